"""All settings: `heed.toml` and the environment, read once and validated into one frozen object.

Belongs here: the names, types, limits and defaults of settings, and where state is kept.
Does not belong here: what a setting does (see its room), and secrets, which come from the environment only
(`HEED_DATABASE_URL`).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    from dagster_project.triage.champion.gate import Targets
    from dagster_project.triage.features.contract import FeatureSettings
    from dagster_project.triage.learning.settings import LearningSettings

PROJECT = Path(__file__).resolve().parent.parent

Days = Annotated[float, Field(gt=0, le=3650)]


def _known_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{zone!r} is not a time zone, write one like 'Europe/Berlin'") from error
    return zone


TimeZone = Annotated[str, AfterValidator(_known_zone)]


class Section(BaseModel):
    """A table of heed.toml. Unknown keys and values of another type are errors: a typo must not silently mean the
    default, nor `true` mean 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Source(Section):
    """Where the contract's tables are, and how to read their times."""

    database_schema: str = "raw"
    alerts: str = "alerts"
    actions: str = "actions"
    rules: str = "rules"
    time_zone: TimeZone = "UTC"
    clock_skew_minutes: Annotated[float, Field(ge=0, le=1440)] = 5
    earliest: str = "2000-01-01"

    @field_validator("earliest")
    @classmethod
    def _a_date(cls, text: str) -> str:
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is not a date, write one like '2015-01-01'") from error
        # Expectations stop a run on earlier times, so staging must reject at least those.
        if not date(2000, 1, 1) <= day < date(2100, 1, 1):
            raise ValueError(f"{text!r} is not from 2000-01-01 to 2099-12-31")
        return day.isoformat()


class Outcome(Section):
    """What counts as an outcome."""

    horizon_days: Days = 14


class Features(Section):
    """The history that features use."""

    keys: Annotated[tuple[str, ...], Field(strict=False)] = (
        "all",
        "rule",
        "entity",
        "team",
        "rule+entity",
        "rule+team",
    )
    lookback_days: Annotated[float, Field(ge=90, le=36_500)] = 3650  # the longest window is 90 days

    @field_validator("keys")
    @classmethod
    def _some_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not keys or len(set(keys)) != len(keys):
            raise ValueError("name at least one history key, each once")
        return keys


class Learning(Section):
    """When there is enough to learn from, and how far back learning looks."""

    training_days: Days = 1825
    minimum_acted: Annotated[int, Field(ge=1)] = 50
    minimum_not_acted: Annotated[int, Field(ge=1)] = 50
    retrain_every_days: Days = 7
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7  # LightGBM's own limit
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    known_at_raise: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_releases(cls, values: Any) -> Any:
        """`prove_first` was in every heed.toml until weights took its place; it changes nothing any more."""
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if name != "prove_first"}
        return values


class Gate(Section):
    """Targets agreed with managers: a candidate that misses one does not become champion."""

    minimum_skill: Annotated[float, Field(ge=-1, le=1)] = -0.1
    minimum_auc: Annotated[float, Field(ge=0, le=1)] = 0.0
    maximum_decile_error: Annotated[float, Field(gt=0, le=1)] = 1.0
    minimum_workload_saved: Annotated[float, Field(ge=0, le=1)] = 0.0


class Holdout(Section):
    """Alerts for which no score is shown, to separate the effect of scores on people from what scores predict.

    5%: of 10,000 alerts a month, 500 are held out, and the effect on the acted share is known to 3.7 points (half the
    width of its 95% interval, at an acted share of 25%). 1% would give 8 points, 20% would give 2: see
    benchmarks/influence.md.
    """

    share: Annotated[float, Field(ge=0, le=0.5)] = 0.05


class Retention(Section):
    """For how many days `heed prune` keeps what neither readers nor evidence need any more."""

    scores_days: Annotated[float, Field(ge=30, le=36_500)] = 730
    models_days: Annotated[float, Field(ge=30, le=36_500)] = 365
    features_days: Annotated[float, Field(ge=30, le=36_500)] = 400
    runs_days: Annotated[float, Field(ge=1, le=36_500)] = 90


class Schedule(Section):
    """When Dagster runs its jobs, as cron lines in UTC."""

    refresh_scores: str = "*/15 * * * *"
    retrain: str = "0 3 * * 1"
    prune: str = "30 2 * * *"
    pull: str = "*/10 * * * *"

    @field_validator("refresh_scores", "retrain", "prune", "pull")
    @classmethod
    def _cron(cls, line: str) -> str:
        if not re.fullmatch(r"\s*(\S+\s+){4}\S+\s*", line):
            raise ValueError(f"{line!r} is not a cron line of five fields, write one like '*/15 * * * *'")
        return line


class Serving(Section):
    """How `heed serve` identifies users, and which pages of other sites may read from it."""

    user_header: str = ""
    origins: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @field_validator("user_header")
    @classmethod
    def _header(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"{name!r} is not the name of a header, write one like 'X-Forwarded-User'")
        if name.lower() in ("authorization", "cookie", "host", "origin", "content-type"):
            raise ValueError(f"{name!r} is a header that clients set themselves, write one like 'X-Forwarded-User'")
        return name

    @field_validator("origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9]\d{0,4})?", origin):
                raise ValueError(
                    f"{origin!r} is not the origin of pages, write one like 'https://alerts.example.com': small "
                    "letters, no path, no slash at the end, the port only where it is not the usual one"
                )
        return origins


class Compute(Section):
    """Where heavy computations run: on this machine, or on an existing Dask cluster."""

    dask: str = ""

    @field_validator("dask")
    @classmethod
    def _address(cls, address: str) -> str:
        if address and not re.fullmatch(r"(tcp|tls|ws|wss)://\S+:\d+", address):
            raise ValueError(f"{address!r} is not a scheduler's address, write one like 'tcp://scheduler:8786'")
        return address


class Notify(Section):
    """Who is notified when a run fails, and when it works again.

    The addresses contain secrets, so they are in the environment; this names the variable.
    """

    urls_from: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "HEED_NOTIFY_URLS"


_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
# What each kind of destination cannot do without.
_NEEDED: dict[str, tuple[str, ...]] = {
    "webhook": ("secret_from",),
    "apprise": ("url_from",),
    "pagerduty": ("secret_from", "user"),
    "jira": ("url", "secret_from"),
    "servicenow": ("url", "secret_from"),
    "sentry": ("secret_from",),
}


class Destination(Section):
    """Another system that gets scores, and the rules for what it gets. Addresses with secrets in them, and secrets, are
    in the environment; `url_from` and `secret_from` name the variables."""

    kind: Literal["webhook", "apprise", "pagerduty", "jira", "servicenow", "sentry"]
    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    url_from: Annotated[str, Field(pattern=rf"{_VARIABLE}|^$")] = ""
    secret_from: Annotated[str, Field(pattern=rf"{_VARIABLE}|^$")] = ""
    user: str = ""
    id_from: str = ""
    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "incident"
    field: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "u_heed_score"
    # Five points: less would send most open alerts at every refresh, because the chance falls as an alert waits.
    minimum_change: Annotated[float, Field(ge=0, le=1)] = 0.05
    teams: Annotated[tuple[str, ...], Field(strict=False)] = ()
    above: Annotated[float, Field(ge=0, le=1)] | None = None
    below: Annotated[float, Field(ge=0, le=1)] | None = None
    quiet_hours: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d)?$")] = ""
    time_zone: TimeZone = "UTC"
    per_minute: Annotated[int, Field(ge=1, le=6000)] = 60

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if missing := [name for name in _NEEDED[self.kind] if not getattr(self, name)]:
            raise ValueError(f"a destination of the kind {self.kind} also needs {' and '.join(missing)}")
        if self.kind == "webhook" and bool(self.url) == bool(self.url_from):
            raise ValueError("a webhook needs either url or url_from")
        return self


class Webhook(Section):
    """Another system that pushes alerts and actions to `heed serve`. `secret_from` names the environment variable with
    the secret that it signs with."""

    kind: Literal["alertmanager", "pagerduty", "grafana", "sentry", "github", "json"]
    secret_from: Annotated[str, Field(pattern=_VARIABLE)]
    timestamp_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$")] = ""


# What each kind of source cannot do without.
_SOURCE_NEEDS: dict[str, tuple[str, ...]] = {
    "pagerduty": ("secret_from",),
    "jira": ("url", "secret_from"),
    "servicenow": ("url", "secret_from"),
    "github": ("secret_from", "repositories"),
    "sentry": ("secret_from", "organization"),
    "dagster": (),
    "dbt": ("path",),
}


class PullSource(Section):
    """Another system from which heed fetches alerts and what was done about them. `secret_from` names the environment
    variable with its token or password."""

    kind: Literal["pagerduty", "jira", "servicenow", "github", "sentry", "dagster", "dbt"]
    url: Annotated[str, Field(pattern=r"^(https?://[^\s?#]+)?$")] = ""
    path: str = ""
    secret_from: Annotated[str, Field(pattern=rf"{_VARIABLE}|^$")] = ""
    user: str = ""
    query: str = ""
    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "incident"
    organization: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    repositories: Annotated[tuple[str, ...], Field(strict=False)] = ()
    preset: str = ""
    since: Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = ""
    # Systems index their searches late: Jira and Sentry within seconds, busy ServiceNow instances within minutes.
    overlap_minutes: Annotated[float, Field(ge=0, le=10_080)] = 10

    @field_validator("repositories")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
                raise ValueError(f"{name!r} is neither owner/name nor an organization")
        return names

    @field_validator("since")
    @classmethod
    def _a_date(cls, text: str) -> str:
        return date.fromisoformat(text).isoformat() if text else text

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if missing := [name for name in _SOURCE_NEEDS[self.kind] if not getattr(self, name)]:
            raise ValueError(f"a source of the kind {self.kind} also needs {' and '.join(missing)}")
        return self


class Settings(Section):
    """All settings, as `load_settings` returns them."""

    source: Source = Source()
    outcome: Outcome = Outcome()
    features: Features = Features()
    learning: Learning = Learning()
    gate: Gate = Gate()
    holdout: Holdout = Holdout()
    retention: Retention = Retention()
    schedule: Schedule = Schedule()
    serving: Serving = Serving()
    compute: Compute = Compute()
    notify: Notify = Notify()
    destinations: dict[_Name, Destination] = {}
    webhooks: dict[_Name, Webhook] = {}
    sources: dict[_Name, PullSource] = {}

    def feature_settings(self) -> FeatureSettings:
        """The settings of features."""
        from datetime import timedelta

        from dagster_project.triage.features.contract import FeatureSettings

        return FeatureSettings(keys=self.features.keys, lookback=timedelta(days=self.features.lookback_days))

    def learning_settings(self) -> LearningSettings:
        """The settings of learning."""
        from datetime import timedelta

        from dagster_project.triage.learning.settings import LearningSettings

        return LearningSettings(
            minimum_acted=self.learning.minimum_acted,
            minimum_not_acted=self.learning.minimum_not_acted,
            horizon=timedelta(days=self.outcome.horizon_days),
            seed=self.learning.seed,
            threads=self.learning.threads or os.cpu_count() or 1,
            features=self.feature_settings(),
            known_at_raise=self.learning.known_at_raise,
        )

    def gate_targets(self) -> Targets:
        """The targets of the gate."""
        from dagster_project.triage.champion.gate import Targets

        return Targets(**self.gate.model_dump())


def heed_home() -> Path:
    """The directory that holds all state: `HEED_HOME`, else `.heed` in the project."""
    return Path(os.environ.get("HEED_HOME") or PROJECT / ".heed").expanduser().resolve()


def settings_path() -> Path:
    """The settings file: `HEED_SETTINGS`, else `heed.toml` in the state directory, else the project's own."""
    if named := os.environ.get("HEED_SETTINGS"):
        return Path(named).expanduser().resolve()
    own = heed_home() / "heed.toml"
    return own if own.exists() else PROJECT / "heed.toml"


def load_settings(path: Path | None = None) -> Settings:
    """Read and validate the settings file; `None` means `settings_path()`.

    Raises HeedError: the file is missing, is not TOML, or has an unknown key or an invalid value; names the line.
    """
    path = path or settings_path()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HeedError(
            f"the settings file {path} cannot be read ({error})",
            "create it (an empty file means the defaults) or set HEED_SETTINGS",
        ) from error
    return _parse(text, path)


@lru_cache(maxsize=8)
def _parse(text: str, path: Path) -> Settings:
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise HeedError(f"{path} is not valid TOML: {error}", "correct that line") from error
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        where = f"{path}{_line_of(text, keys)}"
        if first["type"] == "extra_forbidden":
            raise HeedError(
                f"{where}: unknown setting {'.'.join(keys)}", _nearest_setting(keys) or "remove it"
            ) from error
        reason = first["msg"].removeprefix("Value error, ")
        raise HeedError(f"{where}: {'.'.join(keys)}: {reason}", "correct the value") from error


def _line_of(text: str, keys: list[str]) -> str:
    """The line number of a setting, like ':12'; empty if it cannot be found."""
    wanted = re.compile(rf"\s*['\"]?{re.escape(keys[-1])}['\"]?\s*=")
    table: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            table = header.group(1).strip()
            if ".".join(keys) == table:
                return f":{number}"
        elif table == (".".join(keys[:-1]) or None) and wanted.match(line):
            return f":{number}"
    return ""


def _nearest_setting(keys: list[str]) -> str | None:
    known: Any = Settings
    for key in keys[:-1]:
        fields = getattr(known, "model_fields", {})
        # Not a field: the name of a table among several of one kind, like a destination's.
        known = fields[key].annotation if key in fields else (get_args(known) or (None,))[-1]
    if not hasattr(known, "model_fields"):
        return None
    near = difflib.get_close_matches(keys[-1], list(known.model_fields), n=1)
    return f"perhaps {near[0]!r} is meant" if near else f"known here: {', '.join(known.model_fields)}"
