"""A file that was put back beside the warehouse is noticed, and nothing of heed's removes files of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from dagster_project.resources.dbt.incremental import FULL, NEW, cleaning
from dagster_project.resources.files.spill import SpillBuffer
from dagster_project.resources.stores.features import DamagedFile, FeatureStore, remove_features
from dagster_project.resources.stores.history_cache import HistoryCache, history_directory
from dagster_project.resources.stores.watermarks import passed_up_to, remember_checked
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings
from tests.dbt.conftest import Dbt, require_kept_is_what_stands
from tests.dbt.test_dbt_only_new import clean

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
MOMENT = BEGIN + timedelta(days=12)


@pytest.fixture(scope="module")
def kept(lasting_dbt_database: Callable[[], Dbt]) -> Dbt:
    """Ten days of alerts, kept in files; then a day is corrected and kept again. The home holds the state before it as
    `before`."""
    made = lasting_dbt_database()
    rows = [
        {"alert_id": f"a{number}", "raised_at": (BEGIN + timedelta(hours=4 * number)).isoformat(), "rule": "r",
         "team": "ops", "loaded_at": MOMENT, "row_hash": str(number), "load_id": 1}
        for number in range(60)
    ]  # fmt: skip
    made.fill("raw.alerts", Dbt.ALERT, rows)
    clean(made, FULL, MOMENT, command="build")
    require_kept_is_what_stands(made, MOMENT)
    home = made.warehouse.home
    shutil.copytree(history_directory(home), home / "before")
    made.sql("UPDATE raw.alerts SET team = 'dev' WHERE alert_id IN ('a20', 'a21')")
    clean(made, NEW, MOMENT)
    require_kept_is_what_stands(made, MOMENT)
    return made


@pytest.mark.parametrize("what", ["day=2025-03-04.arrow", "the manifest as well", "all of it"])
def test_an_older_file_put_back_is_not_believed(kept: Dbt, what: str, caplog: pytest.LogCaptureFixture) -> None:
    home = kept.warehouse.home
    folder = history_directory(home)
    if what == "all of it":
        shutil.rmtree(folder)
        shutil.copytree(home / "before", folder)
    else:
        shutil.copy2(home / "before" / "day=2025-03-04.arrow", folder)
        if what == "the manifest as well":
            shutil.copy2(home / "before" / "manifest.json", folder)
    if what == "day=2025-03-04.arrow":
        [wrong] = HistoryCache(kept.warehouse).compare(100)
        assert "2025-03-04" in wrong
    require_kept_is_what_stands(kept, MOMENT)
    assert HistoryCache(kept.warehouse).compare(100) == []


def test_a_manifest_that_vouches_for_a_wrong_file_is_found_by_comparing(kept: Dbt) -> None:
    """The checksums say what heed wrote; comparing rows says whether that was right."""
    require_kept_is_what_stands(kept, MOMENT)
    history = HistoryCache(kept.warehouse)
    assert history.compare(100) == []
    text = (history_directory(kept.warehouse.home) / "manifest.json").read_text()
    days = json.loads(text)["days"]
    days["2025-03-04"]["parts"], days["2025-03-05"]["parts"] = days["2025-03-05"]["parts"], days["2025-03-04"]["parts"]
    told, _ = history._manifest()
    told.days = days
    written = history._write_manifest(told)
    from dagster_project.resources.stores.watermarks import remember_manifest

    remember_manifest(kept.warehouse, "history", told.cache_id, written, told.transaction)
    assert [line[:10] for line in history.compare(100)] == ["2025-03-04", "2025-03-05"]
    history.forget()


def test_reading_everything_reads_the_history_again(kept: Dbt) -> None:
    """Whatever is kept, and however well it is vouched for."""
    require_kept_is_what_stands(kept, MOMENT)
    folder = history_directory(kept.warehouse.home)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("day=*")}
    with cleaning(kept.warehouse, Settings(), MOMENT, full_refresh=True) as reading:
        assert reading.what == FULL
    require_kept_is_what_stands(kept, MOMENT)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("day=*")}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    keepers = kept.sql("SELECT count(*) FROM quality.checked_rows WHERE suite LIKE 'history kept%'")
    assert keepers == [(1,)], "a full run leaves no watermark of files that are gone"


def test_a_history_of_somebody_else_stays(kept: Dbt) -> None:
    folder = history_directory(kept.warehouse.home)
    (folder / "of somebody.txt").write_text("x")
    HistoryCache(kept.warehouse).forget()
    require_kept_is_what_stands(kept, MOMENT)
    assert (folder / "of somebody.txt").exists()
    (folder / "of somebody.txt").unlink()


def test_a_watermark_holds_where_it_was_written_only(warehouse: Warehouse) -> None:
    now = int(warehouse.value("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
    remember_checked(warehouse, "suite", "checksum", now)
    assert passed_up_to(warehouse, "suite", "checksum") == now
    assert passed_up_to(warehouse, "suite", "another checksum") is None
    row = warehouse.read_arrow(
        "SELECT suite, expectations, transaction, cluster, written_by FROM quality.checked_rows"
    ).to_pylist()[0]

    def again(**changes: object) -> None:
        """The row as a restore would bring it: the same values, written by another transaction."""
        with warehouse.transaction() as cursor:
            cursor.execute("DELETE FROM quality.checked_rows")
            values = {**row, **changes}
            cursor.execute(
                "INSERT INTO quality.checked_rows (suite, expectations, transaction, cluster, written_by) "
                "VALUES ($1, $2, $3, $4, coalesce($5::bigint, pg_current_xact_id()::text::bigint))",
                parameters=tuple(values.values()),
            )

    again()
    assert passed_up_to(warehouse, "suite", "checksum") is None, "another transaction wrote it"
    again(written_by=None)
    assert passed_up_to(warehouse, "suite", "checksum") == now
    again(written_by=None, cluster="another cluster")
    assert passed_up_to(warehouse, "suite", "checksum") is None
    again(written_by=None, transaction=now + 1_000_000)
    assert passed_up_to(warehouse, "suite", "checksum") is None, "of a server that was ahead"


def features_of(day: date, value: float) -> pd.DataFrame:
    times = pd.Series(pd.date_range(day, periods=3, freq="h", tz="UTC")).dt.as_unit("us")
    return pd.DataFrame({"alert_id": ["a", "b", "c"], "raised_at": times, "value": value})


FIRST, SECOND = date(2025, 3, 1), date(2025, 3, 2)


def test_feature_files_are_those_that_were_written(warehouse: Warehouse, tmp_path: Path) -> None:
    store = FeatureStore(UPath(tmp_path) / "features", "contract", warehouse)
    store.write([features_of(FIRST, 1.0), features_of(SECOND, 1.0)], [FIRST, SECOND])
    older = Path(str(store.path(FIRST))).read_bytes()
    shutil.copytree(store.directory, tmp_path / "older")
    store.write([features_of(FIRST, 2.0)], [FIRST])
    assert store.read(FIRST, SECOND)["value"].tolist() == [2.0] * 3 + [1.0] * 3
    assert store.compare(FIRST, SECOND, 5) == []
    newer = Path(str(store.path(FIRST))).read_bytes()

    def require_refused() -> None:
        for read in (lambda: store.read(FIRST, SECOND), lambda: list(store.read_parts(FIRST, SECOND, 2))):
            with pytest.raises(DamagedFile, match="2025-03-01"):
                read()
        assert "2025-03-01" in store.compare(FIRST, SECOND, 5)[0]

    Path(str(store.path(FIRST))).write_bytes(older)
    require_refused()
    Path(str(store.path(FIRST))).unlink()
    require_refused()
    Path(str(store.path(FIRST))).write_bytes(newer)
    assert len(store.read(FIRST, SECOND)) == 6
    # The whole directory with its manifest: the warehouse vouches for the newest manifest only.
    shutil.rmtree(store.directory)
    shutil.copytree(tmp_path / "older", store.directory)
    require_refused()
    store.write([features_of(FIRST, 3.0), features_of(SECOND, 3.0)], [FIRST, SECOND])
    assert set(store.read(FIRST, SECOND)["value"]) == {3.0}
    # A day on which there are no alerts any more, and whose file comes back.
    store.write([], [FIRST])
    assert len(store.read(FIRST, SECOND)) == 3
    Path(str(store.path(FIRST))).write_bytes(older)
    require_refused()


def test_removing_what_heed_keeps_leaves_what_others_keep(tmp_path: Path) -> None:
    store = FeatureStore(UPath(tmp_path) / "features", "contract")
    store.write([features_of(FIRST, 1.0)], [FIRST])
    others = [tmp_path / "features" / "mine.csv", tmp_path / "spill" / "scores" / "mine.arrow"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    buffer = SpillBuffer(tmp_path, "scores")
    list(buffer.keep([features_of(FIRST, 1.0), features_of(FIRST, 2.0)]))
    buffer.clear()
    remove_features(tmp_path)
    assert all(path.exists() for path in others)
    assert not list(tmp_path.rglob("*.parquet"))
    assert [path.name for path in tmp_path.rglob("*.arrow")] == ["mine.arrow"]
