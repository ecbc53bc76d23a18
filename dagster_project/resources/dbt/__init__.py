"""dbt: the project, how Dagster runs it, and cleaning only what is new."""
