"""heed's advisory locks, and what each one is held for.

Belongs here: the numbers. PostgreSQL keeps advisory locks per database, so they only have to differ from each other.
Does not belong here: taking them (`run_lock.py`, `schema.py`, `loading/load.py`, `stores/scores.py`,
`stores/deliveries.py`).
"""

from __future__ import annotations

# While scores are published, in the transaction that writes them: two publications do not interleave.
PUBLISH_LOCK = 0x68656564
# While tables are created or migrated, in that transaction: concurrent CREATE IF NOT EXISTS of one object collide.
SCHEMA_LOCK = PUBLISH_LOCK + 1
# From the first step of a run to its last, on a session of its own. dbt_project/macros/run_lock.sql repeats it.
RUN_LOCK = PUBLISH_LOCK + 2
# While messages are sent to one destination (with a hash of its name), on a session of its own.
DELIVERY_LOCK = PUBLISH_LOCK + 3
# While one source is pulled (with a hash of its name), on a session of its own.
PULL_LOCK = PUBLISH_LOCK + 4
