"""Names of roles that a connection must know.

Belongs here: the transformer's name, and whether roles exist.
Does not belong here: making roles and granting rights (`warehouse/roles.py`).
"""

from __future__ import annotations

# The role that owns what dbt builds; the others are in `warehouse/roles.py`.
TRANSFORMER = "heed_transformer"

# It stands, this database was prepared for it by `heed init`, and whoever logged in may take it on.
HAS_ROLES = f"""
SELECT CASE WHEN to_regrole('{TRANSFORMER}') IS NULL OR to_regnamespace('marts') IS NULL THEN false
       ELSE has_schema_privilege('{TRANSFORMER}', 'marts', 'CREATE') END AS has_roles,
       CASE WHEN to_regrole('{TRANSFORMER}') IS NULL THEN false
       ELSE pg_has_role(to_regrole('{TRANSFORMER}'), 'MEMBER') END AS is_member
"""
