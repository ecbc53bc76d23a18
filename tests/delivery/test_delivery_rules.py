"""The rules of a destination, as laws."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.delivery.rules import Said, in_range, is_quiet, to_say
from dagster_project.errors import HeedError
from dagster_project.settings import Destination
from tests.test_settings import settings_of


def rules(**values: Any) -> Destination:
    return Destination(kind="webhook", url="http://127.0.0.1/", secret_from="S", **values)


chances = st.floats(0, 1)
limits = st.one_of(st.none(), chances)


@given(st.lists(st.tuples(chances, st.booleans()), max_size=8), limits, limits, chances)
def test_what_was_said_is_never_further_away_than_the_minimum_change(
    steps: list[tuple[float, bool]], above: float | None, below: float | None, minimum: float
) -> None:
    """Whatever the number does, a destination that heard of an alert knows it to within the minimum change."""
    wanted, said = rules(above=above, below=below, minimum_change=minimum), dict[str, Said]()
    for probability, flagged in steps:
        words = "a flood" if flagged else None
        score = {"alert_id": "a", "team": "t", "probability": probability, "flag_words": words}
        news = to_say([score], said, wanted)
        if news:
            version = said["a"].version + 1 if "a" in said else 1
            said["a"] = Said(version, probability, words)
        if "a" in said:
            assert abs(said["a"].probability - probability) < minimum or said["a"].probability == probability
            assert said["a"].flag_words == words
        else:
            assert not in_range(probability, wanted)
        assert to_say([score], said, wanted) == []  # once is enough


def test_only_the_teams_named() -> None:
    scores = [{"alert_id": t, "team": t, "probability": 0.5, "flag_words": None} for t in ("ads", "web")]
    assert [score["team"] for score in to_say(scores, {}, rules(teams=("web",)))] == ["web"]


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(0, 1439), st.integers(0, 1439))
def test_quiet_hours_and_their_complement_share_no_moment(moment: datetime, first: int, last: int) -> None:
    clock = lambda minutes: f"{minutes // 60:02}:{minutes % 60:02}"  # noqa: E731
    now = moment.replace(tzinfo=UTC)
    quiet, loud = (
        is_quiet(now, rules(quiet_hours=f"{clock(a)}-{clock(b)}", time_zone="Europe/Berlin"))
        for a, b in ((first, last), (last, first))
    )
    assert quiet != loud if first != last else quiet == loud


def test_quiet_hours_follow_their_zone() -> None:
    night = rules(quiet_hours="22:00-07:00", time_zone="Europe/Berlin")
    assert is_quiet(datetime(2026, 7, 1, 20, 0, tzinfo=UTC), night)  # 22:00 in summer
    assert not is_quiet(datetime(2026, 1, 1, 20, 59, tzinfo=UTC), night)  # 21:59 in winter
    assert not is_quiet(datetime(2026, 7, 1, 5, 0, tzinfo=UTC), night)
    assert not is_quiet(datetime.now(UTC) + timedelta(hours=3), rules())


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("kind = 'webhook'\nurl = 'http://x/'", 2, "also needs secret_from"),
        ("kind = 'webhook'\nsecret_from = 'S'", 2, "either url or url_from"),
        ("kind = 'jira'\nsecret_from = 'S'", 2, "also needs url"),
        ("kind = 'fax'", 3, "'webhook', 'apprise'"),
        ("kind = 'apprise'\nurl_from = 'S'\nabov = 0.5", 5, "Perhaps 'above' is meant"),
        ("kind = 'apprise'\nurl_from = 'S'\nquiet_hours = '9-5'", 5, "match pattern"),
        ("kind = 'apprise'\nurl_from = 'S'\ntime_zone = 'Mars'", 5, "is not a time zone"),
    ],
)
def test_a_wrong_destination_names_its_line(text: str, line: int, said: str, tmp_path: Any) -> None:
    with pytest.raises(HeedError) as raised:
        settings_of(f"\n[destinations.hook]\n{text}\n", tmp_path)
    assert f"heed.toml:{line}:" in str(raised.value)
    assert said in str(raised.value)
