"""What is not Python goes into the package too: presets, tables, templates, the board's files."""

import subprocess
from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.command.build_py import build_py

from tests.conftest import PROJECT


def test_every_file_of_the_package_is_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As setuptools itself reads pyproject.toml."""
    monkeypatch.chdir(PROJECT)
    distribution = Distribution({"src_root": ".", "script_name": "setup.py"})
    distribution.parse_config_files(["pyproject.toml"])
    build = distribution.get_command_obj("build_py")
    assert isinstance(build, build_py)
    build.ensure_finalized()
    packaged = {Path(folder) / name for _, folder, _, names in build.data_files for name in names}
    packaged |= {Path(path) for _, _, path in build.find_all_modules()}
    listed = subprocess.run(["git", "ls-files", "dagster_project"], capture_output=True, text=True, check=False)
    files = listed.stdout.split() if listed.returncode == 0 else []  # an unpacked archive has no repository
    files = files or [str(path) for path in Path("dagster_project").rglob("*.*") if "__pycache__" not in path.parts]
    assert len(files) > 100
    assert {path for path in map(Path, files) if path.exists()} - packaged == set()
