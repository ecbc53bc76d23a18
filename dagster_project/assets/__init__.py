"""Dagster assets, one module per stage of the lineage.

An asset reads, calls `triage/`, writes and reports metadata. It holds no logic: every number is computed in `triage/`,
where it can be tested without Dagster.
"""
