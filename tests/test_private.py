"""What heed writes is for its own account: the home and all in it, whatever the mask of the shell."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dagster_project.private import private_directory, private_files, share
from tests.conftest import PROJECT

CLOSED = 0o711 if os.geteuid() == 0 else 0o700


@pytest.fixture
def usual_mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("usual_mask")
def test_what_a_command_writes_into_its_home_is_its_own(new_database: Callable[[], str], tmp_path: Path) -> None:
    """A real command in a process of its own; the file that a person asked for is as they want it."""
    home = tmp_path / "above" / "home"
    environment = {**os.environ, "HEED_HOME": str(home), "HEED_DATABASE_URL": new_database()}
    code = (
        "from pathlib import Path\n"
        "from dagster_project.cli import main\n"
        "from dagster_project.instance import dagster_instance\n"
        "from dagster_project.settings import heed_home\n"
        "import click\n"
        "@main.command()\n"
        "def probe():\n"
        "    with dagster_instance(heed_home()) as instance:\n"
        "        instance.get_runs_count()\n"
        "main(['probe'])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment, check=True)
    written = list(home.rglob("*"))
    assert [path for path in written if path.suffix == ".db"], "Dagster wrote nothing"
    assert [path for path in written if mode_of(path) & 0o077] == []
    assert mode_of(home) == CLOSED
    assert mode_of(home.parent) == 0o755, "what lies above is not heed's"


@pytest.mark.usefixtures("usual_mask")
def test_an_old_home_is_closed_and_a_groups_rights_stay(tmp_path: Path) -> None:
    for before, after in ((0o755, 0o751), (0o777, 0o771), (0o750, 0o751), (0o700, 0o711)):
        home = tmp_path / f"{before:o}"
        home.mkdir()
        home.chmod(before)
        private_directory(home)
        assert mode_of(home) == (after if os.geteuid() == 0 else after & ~0o007 if before & 0o010 else before)


@pytest.mark.usefixtures("usual_mask")
def test_files_asked_for_are_shared_and_a_chosen_mask_stays(tmp_path: Path) -> None:
    with private_files():
        (tmp_path / "state").write_text("")
        (tmp_path / "report").write_text("")
        share(tmp_path / "report")
    assert (mode_of(tmp_path / "state"), mode_of(tmp_path / "report")) == (0o600, 0o644)
    os.umask(0o027)
    with private_files():
        (tmp_path / "group").write_text("")
    assert mode_of(tmp_path / "group") == 0o640
    assert os.umask(0o022) == 0o027
