"""heed's own expectations for Great Expectations. Importing this package registers them.

Belongs here: what "unexpected" means for alerts, outcomes, features and scores where Great Expectations has
no expectation of its own. Does not belong here: statistics (they live in `dagster_project/triage` and are
called from `volume`), the suites (JSON, in `expectations/suites`), and running a suite
(`dagster_project/resources/expectations/validation.py`).

Modules: `rows` (the base class, read it first), `columns` (single columns and pairs), `history` (families of
feature columns, recognised by name), `volume` (floods and visibility-only rules).

Great Expectations finds this package by itself when the folder `expectations/` is opened as a file context,
because `great_expectations.yml` names its parent as the plugins directory; heed imports it by path.
"""

from . import columns, history, volume

__all__ = ["columns", "history", "volume"]
