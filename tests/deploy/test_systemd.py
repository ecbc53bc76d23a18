"""What `deploy/systemd` says is what systemd understands, and what heed's command line takes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from tests.conftest import PROJECT
from tests.end_to_end.test_backup import programs

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


def test_a_backup_shows_no_password_to_other_accounts(server_url: str, tmp_path: Path) -> None:
    """The unit's own script, run for real; `sh -x` prints each command line as other accounts could read it."""
    [line] = re.findall(r"^ExecStart=(.*)$", (ROOM / "heed-backup.service").read_text(encoding="utf-8"), re.MULTILINE)
    program, _, script = shlex.split(line)
    script = script.replace("%%", "%").replace("$$", "$").replace("/var/lib/heed-backups", str(tmp_path))
    connection = psycopg2.connect(server_url.format("postgres"))
    host, version = connection.info.host, connection.info.server_version // 10000
    user = connection.info.user
    connection.close()
    address = {"PGHOST": host, "PGDATABASE": "postgres", "PGUSER": user, "PGPASSWORD": "planted-Zq7x"}
    url = {"HEED_DATABASE_URL": f"postgresql://{user}:planted-Zq7x@/postgres?host={host}"}
    done = subprocess.run(
        [program, "-xeuc", script],
        env={"PATH": f"{programs(version)}:/usr/bin:/bin", **address, **url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pg_dump" in done.stderr
    assert "planted" not in done.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".dump"]
    unset = subprocess.run([program, "-euc", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert unset.returncode != 0
    assert "/etc/heed/backup-environment" in unset.stderr
