"""History features: what was known about a key (rule, entity, team, ...) just before each alert was raised.

Belongs here: the declaration of a history feature (`definition.py`) and its computation: the input frames
(`inputs.py`), events in order of time (`streams.py`), the executor (`engine.py`) with its threads (`workers.py`) and
compiled loops (`kernels.py`, imported only when something is computed), and computing in parts (`parts.py`).
Does not belong here: which features heed uses (`triage/features/contract.py`), what makes an event excluded
(`triage/flags/exclusion.py`), reading and writing.
"""

from dagster_project.triage.features.history.definition import HistoryFeature, span_name
from dagster_project.triage.features.history.engine import history_features

__all__ = ["HistoryFeature", "history_features", "span_name"]
