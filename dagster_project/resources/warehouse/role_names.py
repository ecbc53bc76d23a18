"""What a connection must know of roles.

Belongs here: the transformer's name, and the query that tells whether roles exist.
Does not belong here: creating roles and granting rights (`roles.py`).
"""

from __future__ import annotations

# The role that owns what dbt builds; the others are in `roles.py`.
TRANSFORMER = "heed_transformer"

# Whether it exists and `heed init` prepared this database for it, and whether this login may take it on.
HAS_ROLES = f"""
SELECT CASE WHEN to_regrole('{TRANSFORMER}') IS NULL OR to_regnamespace('marts') IS NULL THEN false
       ELSE has_schema_privilege('{TRANSFORMER}', 'marts', 'CREATE') END AS has_roles,
       CASE WHEN to_regrole('{TRANSFORMER}') IS NULL THEN false
       ELSE pg_has_role(to_regrole('{TRANSFORMER}'), 'MEMBER') END AS is_member
"""
