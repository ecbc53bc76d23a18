"""Who follows whom: the decisions about champions, in order.

Belongs here: the record of one decision.
Does not belong here: deciding (`gate.py`), storing (`resources/stores/models.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Succession:
    """The champions in their order, and the versions that a person withdrew.

    champions : versions, the oldest first; a version stands again for each time that it became champion.
    withdrawn : version -> the roll-back that ended it. A version is withdrawn by being rolled back from, and stands
        again once a person rolls back to it; the gate alone never makes it champion again. Other versions, newer ones
        included, compete as ever.
    """

    champions: list[str] = field(default_factory=list)
    withdrawn: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, decisions: list[dict[str, Any]]) -> Succession:
        """From decisions, the oldest first, as `ModelStore.decisions` gives them."""
        made = cls()
        for row in decisions:
            version = row["model_version"]
            if row["decision"] == "rolled_back":
                if made.champions and made.champions[-1] != version:
                    made.withdrawn[made.champions[-1]] = row
                made.withdrawn.pop(version, None)
            if row["decision"] in ("promoted", "rolled_back") and made.champions[-1:] != [version]:
                made.champions.append(version)
        return made

    def previous(self) -> str | None:
        """The latest champion before the present one that nobody withdrew; None: there is none."""
        earlier = (v for v in reversed(self.champions[:-1]) if v != self.champions[-1] and v not in self.withdrawn)
        return next(earlier, None)
