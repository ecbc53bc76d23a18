"""What `deploy/systemd` says is what systemd understands, and what heed's command line takes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from tests.conftest import PROJECT

ROOM = PROJECT / "deploy" / "systemd"
UNITS = sorted(path.name for path in ROOM.iterdir() if path.suffix in (".service", ".timer"))


def test_systemd_knows_every_line(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        assert not os.environ.get("CI"), ".ci/run should have installed systemd, and did not"
        pytest.skip("systemd-analyze is not here (Debian's package systemd); .ci/run installs it and does not skip")
    for name in UNITS:
        text = (ROOM / name).read_text(encoding="utf-8")
        # The installed place is not here; the program is.
        (tmp_path / name).write_text(text.replace("/opt/heed/.venv/bin/heed", f"{Path(sys.executable).parent}/heed"))
    made = subprocess.run(
        [verify, "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)], capture_output=True, text=True
    )
    about = [line for line in (made.stdout + made.stderr).splitlines() if "heed" in line]
    assert about == []


@pytest.mark.parametrize("name", [name for name in UNITS if name in ("heed.service", "heed-serve.service")])
def test_the_commands_exist_with_their_options(name: str) -> None:
    [line] = re.findall(r"^ExecStart=(.*)$", (ROOM / name).read_text(encoding="utf-8"), re.MULTILINE)
    program, command, *options = shlex.split(line)
    assert program.endswith("/heed")
    told = CliRunner().invoke(main, [command, "--help"])
    assert told.exit_code == 0
    for option in options:
        if option.startswith("--"):
            assert option in told.output
    assert "127.0.0.1" in options, "it would listen beyond loopback"
