"""The succession of champions: who scored when, and which versions people withdrew.

Belongs here: reading that from the decisions, in order.
Does not belong here: deciding (`decide.py`), storing (`resources/stores/models.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Succession:
    """The champions in their order, and the versions that a person withdrew.

    champions : versions, oldest first; a version is listed once for each time it became champion.
    withdrawn : version -> the roll-back that ended it. Rolling back from a version withdraws it; only rolling back to
        it makes it eligible again, the gate never does. All other versions, newer ones included, compete as usual.
    """

    champions: list[str] = field(default_factory=list)
    withdrawn: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, decisions: list[dict[str, Any]]) -> Succession:
        """From decisions, oldest first, as `ModelStore.decisions` gives them."""
        succession = cls()
        for row in decisions:
            version = row["model_version"]
            if row["decision"] == "rolled_back":
                if succession.champions and succession.champions[-1] != version:
                    succession.withdrawn[succession.champions[-1]] = row
                succession.withdrawn.pop(version, None)
            if row["decision"] in ("promoted", "rolled_back") and succession.champions[-1:] != [version]:
                succession.champions.append(version)
        return succession

    def previous(self) -> str | None:
        """The latest earlier champion that nobody withdrew; None: there is none."""
        earlier = (v for v in reversed(self.champions[:-1]) if v != self.champions[-1] and v not in self.withdrawn)
        return next(earlier, None)
