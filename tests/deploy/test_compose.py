"""What `deploy/compose` names exists, and heed's command line takes its commands. No container engine is needed."""

import re
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dagster_project.cli import main
from tests.conftest import PROJECT

ROOM = PROJECT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOM / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_what_it_builds_from_exists_and_what_is_mounted_is_declared() -> None:
    for service in SERVICES.values():
        if build := service.get("build"):
            context = (ROOM / build["context"]).resolve()
            assert context == PROJECT
            dockerfile = (context / build["dockerfile"]).read_text(encoding="utf-8")
            assert f"HEED_HOME={service['environment']['HEED_HOME']}" in dockerfile
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(COMPOSE["volumes"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_nothing_is_open_to_a_network_and_no_secret_stands_in_it() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "URL" in name:
                assert re.search(r"\$\{HEED_DATABASE_PASSWORD:\?", value), name


@pytest.mark.parametrize("name", ["daemon", "serve"])
def test_what_listens_beyond_loopback_names_its_hosts(name: str) -> None:
    command = SERVICES[name]["command"]
    assert "0.0.0.0" in command
    assert re.search(r"localhost", command[command.index("--allowed-host") + 1])


@pytest.mark.parametrize("name", ["daemon", "serve"])
def test_heed_takes_its_commands(name: str) -> None:
    program, command, *options = SERVICES[name]["command"]
    assert (program, command) == ("heed", {"daemon": "up"}.get(name, name))
    shown = CliRunner().invoke(main, [command, "--help"]).output
    assert all(option in shown for option in options if option.startswith("--"))
    port = options[options.index("--port") + 1]
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
