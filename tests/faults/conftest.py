"""The company that the faults of one file befall, and the table at the end."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dagster_project.resources.warehouse.embedded import stop_server
from tests.faults.soak import Soak

Row = Callable[[str, str, tuple[float, int]], None]


@pytest.fixture(scope="module")
def soak() -> Iterator[Soak]:
    directory = Path(tempfile.mkdtemp(prefix="heed-faults-"))
    directory.chmod(0o755)
    home = directory / "home"
    home.mkdir()
    disk = mount(home, "1536m")
    made = Soak(home, has_own_disk=disk)
    try:
        made.begin()
        yield made
    finally:
        made.close()
        stop_server(home)
        if disk:
            unmount(home)
        shutil.rmtree(directory, ignore_errors=True)


def mount(place: Path, size: str) -> bool:
    """A disk of its own, in memory, where the tests may mount one."""
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", place]).returncode == 0


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Puts a row into the table: the fault, how it was injected, (seconds of the run that recovered, what is lost)."""

    def put(fault: str, injected: str, recovered: tuple[float, int]) -> None:
        request.node.user_properties.append(("fault", [fault, injected, *recovered]))
        assert recovered[1] == 0

    return put


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test runs the whole job a few times: on a machine that is busy otherwise, that takes minutes."""
    for item in items:
        if "tests/faults" in item.nodeid:
            item.add_marker(pytest.mark.timeout(1200))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """`fault | injected | recovered in | lost`."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "fault"
    ]
    if not rows:
        return
    texts = [["fault", "injected", "recovered in", "lost"]]
    texts += [[fault, injected, f"{seconds:.0f} s", str(lost)] for fault, injected, seconds, lost in rows]
    widths = [max(len(line[column]) for line in texts) for column in range(4)]
    terminalreporter.write_line("")
    for line in texts:
        terminalreporter.write_line(" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
