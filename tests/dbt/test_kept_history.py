"""The history kept beside the warehouse is what the warehouse holds, whatever happened to either."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from dagster_project.resources.dbt.incremental import FULL, NEW
from dagster_project.resources.stores import history_cache as kept_history
from dagster_project.resources.stores.flags import read_overrides
from dagster_project.resources.stores.history import read_coded_history, read_history
from dagster_project.resources.stores.history_cache import history_directory
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.flags.floods.sources import MARK
from tests.dbt.conftest import Dbt, require_kept_is_what_stands
from tests.dbt.test_dbt_only_new import clean

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)


def test_only_days_that_changed_are_read_again_and_all_of_them(dbt_database: Callable[[], Dbt]) -> None:
    made, moment = dbt_database(), BEGIN + timedelta(days=40)
    rows = [
        {
            "alert_id": f"a{number}",
            "raised_at": (BEGIN + timedelta(hours=3 * number)).isoformat(),
            "rule": f"rule {number % 3}",
            "team": ["ops", None][number % 2],
            "attributes": [json.dumps({"place": "x", "n": 1, "id": str(number)}), '{"place": "y", "n": 2.5}', None][
                number % 3
            ],
            "loaded_at": moment,
            "row_hash": str(number),
            "load_id": 1,
        }
        for number in range(320)
    ]
    # A flood of one source on the last day but five.
    flood = BEGIN + timedelta(days=35)
    rows += [
        {**rows[0], "alert_id": f"f{number}", "raised_at": (flood + timedelta(minutes=number)).isoformat(),
         "rule": f"rule {number % 3}", "attributes": '{"place": "z"}', "row_hash": f"f{number}"}
        for number in range(300)
    ]  # fmt: skip
    made.fill("raw.alerts", Dbt.ALERT, rows)
    clean(made, FULL, moment, command="build")
    require_kept_is_what_stands(made, moment)
    require_kept_is_what_stands(made, moment - timedelta(days=4, hours=5))
    require_kept_is_what_stands(made, moment - timedelta(days=4, hours=5), BEGIN + timedelta(days=2, hours=2))
    folder = history_directory(made.warehouse.home)

    def rewritten() -> set[str]:
        now = {path.name: path.stat().st_mtime_ns for path in folder.glob("day=*")}
        changed = {name for name, at in now.items() if at != seen.get(name)} | (set(seen) - set(now))
        seen.clear()
        seen.update(now)
        return {name[4:14] for name in changed}

    seen: dict[str, int] = {}
    assert len(rewritten()) == 40
    require_kept_is_what_stands(made, moment, flags=False)
    assert not rewritten(), "nothing changed"

    # An action, a corrected alert, one that vanished with its day, and a late one on a day that had none.
    made.sql("DELETE FROM raw.alerts WHERE alert_id ~ '^a(8|9|10|11|12|13|14|15)$'")
    clean(made, NEW, moment)
    require_kept_is_what_stands(made, moment)
    assert rewritten() == {"2025-03-02"}
    assert not (folder / "day=2025-03-02.arrow").exists()
    action = {
        "action_id": "x",
        "alert_id": "a310",
        "acted_at": moment.isoformat(),
        "action_type": "fixed",
        "loaded_at": moment,
    }
    made.fill("raw.actions", Dbt.ACTION, [action])
    made.sql("INSERT INTO raw.corrections (load_id) VALUES (2)")
    made.fill("raw.alerts", Dbt.ALERT, [
        {**rows[100], "rule": "rule 9", "loaded_at": moment + timedelta(hours=1), "row_hash": "new",
         "load_id": 2},
        {**rows[9], "alert_id": "late", "row_hash": "late"},
    ])  # fmt: skip
    clean(made, NEW, moment + timedelta(hours=2))
    kept = require_kept_is_what_stands(made, moment + timedelta(hours=2)).set_index("alert_id")
    assert kept.loc["a310", "acted"] == 1.0
    assert kept.loc["a100", "rule"] == "rule 9"
    changed = rewritten()
    assert {"2025-03-02", "2025-03-13", "2025-04-08"} <= changed
    assert len(changed) < 20

    # What is damaged, or not of this database, is read anew.
    (folder / "day=2025-03-20.arrow").write_bytes(b"ARROW1 no more")
    require_kept_is_what_stands(made, moment + timedelta(hours=2), flags=False)
    assert len(rewritten()) == 40
    made.sql("DELETE FROM quality.checked_rows")
    require_kept_is_what_stands(made, moment + timedelta(hours=2), flags=False)
    assert len(rewritten()) == 40
    other = dbt_database()
    other.warehouse.home = made.warehouse.home
    other.fill("raw.alerts", Dbt.ALERT, rows[:30])
    clean(other, FULL, moment, command="build")
    assert len(require_kept_is_what_stands(other, moment)) == 30


def test_a_day_too_big_for_one_file_has_several(
    dbt_database: Callable[[], Dbt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_history, "_AT_ONCE", 100)
    made, moment = dbt_database(), BEGIN + timedelta(days=9)
    rows = [
        {"alert_id": f"{day}-{number}", "raised_at": (BEGIN + timedelta(days=day, minutes=2 * number)).isoformat(),
         "rule": f"rule {number % 3}", "attributes": json.dumps({f"place {number // 90}": number % 7}),
         "loaded_at": moment, "row_hash": str(number), "load_id": 1}
        for day, many in enumerate([30, 30, 350, 30, 100, 30]) for number in range(many)
    ]  # fmt: skip
    made.fill("raw.alerts", Dbt.ALERT, rows)
    clean(made, FULL, moment, command="build")
    folder = history_directory(made.warehouse.home)

    def of_the_big_day() -> list[str]:
        return sorted(path.name for path in folder.glob("day=2025-03-03*"))

    def require_in_full(as_of: datetime) -> None:
        """From every side of the big day's seams: an alert is raised every other minute."""
        require_kept_is_what_stands(made, as_of)
        for minutes in (0, 1, 198, 199, 200, 201, 699, 2000):
            middle = BEGIN + timedelta(days=2, minutes=minutes)
            require_kept_is_what_stands(made, as_of, middle)
            require_kept_is_what_stands(made, middle, flags=minutes in (199, 699))

    require_in_full(moment)
    assert len(of_the_big_day()) == 4
    assert len(list(folder.glob("day=*"))) == 9

    # It shrinks, and none of its files is left behind.
    made.sql("DELETE FROM raw.alerts WHERE alert_id ~ '^2-(1|2)[0-9]{2}$'")
    clean(made, NEW, moment)
    require_in_full(moment)
    assert len(of_the_big_day()) == 2
    made.sql("DELETE FROM raw.alerts WHERE alert_id ~ '^2-'")
    clean(made, NEW, moment)
    require_kept_is_what_stands(made, moment)
    assert not of_the_big_day()


def test_a_source_is_followed_until_it_has_too_many_values(dbt_database: Callable[[], Dbt]) -> None:
    made = dbt_database()
    rows = [
        {"alert_id": f"a{number}", "raised_at": (BEGIN + timedelta(hours=number)).isoformat(), "rule": "r",
         "attributes": json.dumps({"few": number % 3, "many": number}), "loaded_at": BEGIN + timedelta(days=9),
         "row_hash": str(number), "load_id": 1}
        for number in range(120)
    ]  # fmt: skip
    made.fill("raw.alerts", Dbt.ALERT, rows)
    clean(made, FULL, BEGIN + timedelta(days=9), command="build")
    kept = read_coded_history(made.warehouse, BEGIN + timedelta(days=9))
    assert kept[MARK + "few"].notna().all()
    # The 51st value comes at the third day's third alert: to the end of that day it is followed, and not after it.
    assert kept[MARK + "many"].notna().tolist() == [True] * 72 + [False] * 48

    # A person's word about one of its values still reaches every alert that has it.
    said = {"flag": "flood", "action": "flag", "scope": "many = 100", "who": "ann", "why": "a bug"}
    at = BEGIN + timedelta(days=5)
    made.sql(
        "INSERT INTO quality.flag_overrides (flag, action, scope, who, why, created_at, day) "
        "VALUES (%(flag)s, %(action)s, %(scope)s, %(who)s, %(why)s, %(at)s, %(at)s::date - 1)", {**said, "at": at}
    )  # fmt: skip
    as_of = BEGIN + timedelta(days=9)
    told = read_overrides(made.warehouse, as_of)
    from_codes, from_text = (
        find_flags(history, None, as_of, overrides=told)[0]
        for history in (read_coded_history(made.warehouse, as_of), read_history(made.warehouse, as_of))
    )
    pd.testing.assert_frame_equal(from_codes, from_text)
    assert from_codes["where_value"].tolist() == ["100"]
