"""The PostgreSQL warehouse: connections, the embedded server, schema, roles, locks."""
