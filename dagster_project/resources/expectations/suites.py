"""The suites as JSON documents.

Belongs here: reading suites, their checksum, columns and parameters.
Does not belong here: running a suite (`validation.py`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from dagster_project.errors import HeedError
from dagster_project.resources.expectations.results import CheckSpec

PROJECT = Path(__file__).resolve().parents[3] / "expectations"


def suite_names() -> list[str]:
    """The names of all suites, in order."""
    return sorted(path.stem for path in (PROJECT / "suites").glob("*.json"))


@lru_cache
def _suite_text(name: str) -> str:
    path = PROJECT / "suites" / f"{name}.json"
    if path.parent != PROJECT / "suites" or not path.is_file():
        near = difflib.get_close_matches(name, suite_names(), n=1)
        raise HeedError(
            f"there is no expectation suite {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
            f"name one of: {', '.join(suite_names())}",
        )
    return path.read_text(encoding="utf-8")


def suite_document(name: str) -> dict[str, Any]:
    """The suite's JSON from `expectations/suites/<name>.json`; `HeedError` when there is none."""
    try:
        return cast("dict[str, Any]", json.loads(_suite_text(name)))
    except ValueError as error:
        raise HeedError(
            f"expectations/suites/{name}.json is not JSON ({error})", "correct the file, or restore it"
        ) from error


def check_specs(suite_name: str) -> list[CheckSpec]:
    """The expectations of a suite, in its order, without importing Great Expectations.

    Each unpacks as `(check_name, description, severity)`.
    """
    specs = [
        CheckSpec(
            check_name=entry["meta"]["check_name"],
            description=entry["description"],
            severity=entry["severity"],
            notes=entry["notes"],
            expectation_type=entry["type"],
        )
        for entry in suite_document(suite_name)["expectations"]
    ]
    names = [spec.check_name for spec in specs]
    for name in names:
        if names.count(name) > 1 or not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise HeedError(
                f"the check name {name!r} in expectations/suites/{suite_name}.json is invalid or not unique",
                "give each expectation its own meta.check_name of letters, digits and underscores",
            )
    return specs


def suite_checksum(name: str) -> str:
    """A checksum of what a suite expects; it changes with the file."""
    return hashlib.sha256(_suite_text(name).encode()).hexdigest()[:16]


def required_parameters(suite_name: str) -> set[str]:
    """The names of the parameters (`{"$PARAMETER": name}`) that the suite uses, defaults or not."""
    return set(re.findall(r'"\$PARAMETER":\s*"(\w+)"', _suite_text(suite_name)))


def columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The columns an expectation names. Every argument that names columns starts with `column`, in Great
    Expectations' own expectations and in heed's."""
    named: list[str] = []
    for key, value in kwargs.items():
        if key.startswith("column"):
            named += [value] if isinstance(value, str) else [item for item in value if isinstance(item, str)]
    return named


def default_parameters() -> dict[str, Any]:
    """The values of parameters that are not passed. `cut` has no default: a forgotten cut must not mean now."""
    return {
        "as_of": datetime.now(UTC).isoformat(),
        # With fewer acted alerts than this a model does worse than the best simple rule.
        "minimum_acted": 50,
        "minimum_not_acted": 50,
        "flood_settings": {},
        "visibility_settings": {},
        "rules": [],
        "overrides": [],
    }
