"""What `deploy/kubernetes` says is what its packages and Kubernetes itself understand, as far as no cluster shows.

The instance is a real one, on a real PostgreSQL, with the launcher of dagster-k8s. The API server only listens: it
writes down what it is told, and answers that it was done.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.conftest import PROJECT

ROOM = PROJECT / "deploy" / "kubernetes"
KINDS = {
    "Deployment": "V1Deployment",
    "NetworkPolicy": "V1NetworkPolicy",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "Service": "V1Service",
    "ServiceAccount": "V1ServiceAccount",
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOM / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["heed.yaml", "dask.yaml"])
def test_kubernetes_knows_every_field(name: str) -> None:
    import kubernetes.client
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    for document in documents(name):
        model = getattr(kubernetes.client, KINDS[document["kind"]])
        made = k8s_model_from_dict(model, k8s_snake_case_dict(model, document))  # raises for what it does not know
        assert kubernetes.client.ApiClient().sanitize_for_serialization(made) == document


def test_every_name_that_is_used_is_made() -> None:
    kustomization = documents("kustomization.yaml")[0]
    maps = {generator["name"] for generator in kustomization["configMapGenerator"]}
    environment = next(g for g in kustomization["configMapGenerator"] if g["name"] == "heed-environment")
    values = dict(line.split("=", 1) for line in environment["literals"])
    image = kustomization["images"][0]
    assert values["HEED_IMAGE"] == f"{image['newName']}:{image['newTag']}"
    secrets = {"heed-urls"}
    assert "create secret generic heed-urls" in (ROOM / "README.md").read_text(encoding="utf-8")
    made = {(document["kind"], document["metadata"]["name"]) for document in documents("heed.yaml")}

    launcher = documents("dagster.yaml")[0]["run_launcher"]["config"]
    deployment = next(d for d in documents("heed.yaml") if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert {launcher["instance_config_map"], *launcher["env_config_maps"]} <= maps
    assert set(launcher["env_secrets"]) <= secrets
    assert ("ServiceAccount", launcher["service_account_name"]) in made
    for volume in [*launcher["volumes"], *deployment["volumes"]]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] in maps
        else:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made
    for container in deployment["containers"]:
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in deployment["volumes"]}
        for source in container["envFrom"]:
            assert source.get("configMapRef", {"name": "heed-environment"})["name"] in maps
            assert source.get("secretRef", {"name": "heed-urls"})["name"] in secrets
    mounts = {m["mountPath"] for m in launcher["volume_mounts"]}
    assert {values["HEED_HOME"], str(Path(values["HEED_SETTINGS"]).parent)} == mounts
    names = {d["metadata"]["name"] for d in documents("dask.yaml") if d["kind"] == "Service"}
    assert names == {"heed-dask"}


class Listening(BaseHTTPRequestHandler):
    told: list[tuple[str, str, Any]]

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.told.append((self.command, self.path.partition("?")[0], body))
        text = json.dumps(body if self.command == "POST" else {"kind": "Status", "status": "Success"}).encode()
        self.send_response(201 if self.command == "POST" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = do_PATCH = _answer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    told: list[tuple[str, str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Listening,), {"told": told}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def test_a_run_becomes_a_job(
    api: tuple[str, list[tuple[str, str, Any]]],
    new_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.launcher import LaunchRunContext
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster._core.test_utils import create_run_for_test

    url, told = api
    access = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": url}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    access.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "users": [{"name": "u", "user": {}}],
                "contexts": [context],
                "current-context": "x",
            }
        )
    )
    configured = documents("dagster.yaml")[0]
    # Outside a cluster the launcher is told where the API server is; all else is as it is written.
    configured["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(access)}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(configured))
    shown = re.search(r"HEED_DAGSTER_URL='([a-z0-9+]+)://", (ROOM / "README.md").read_text(encoding="utf-8"))
    assert shown is not None
    monkeypatch.setenv("HEED_DAGSTER_URL", new_database().replace("postgresql", shown.group(1), 1))
    monkeypatch.setenv("HEED_NAMESPACE", "alerts")
    monkeypatch.setenv("HEED_IMAGE", "registry.example.com/heed:7")

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == "K8sRunLauncher"
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        origin = JobPythonOrigin(
            "refresh_scores",
            RepositoryPythonOrigin(
                executable_path="/app/.venv/bin/python",  # the image's
                code_pointer=ModuleCodePointer("dagster_project.definitions", "defs"),
            ),
        )
        run = create_run_for_test(instance, job_name="refresh_scores", job_code_origin=origin)
        instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        assert instance.get_run_by_id(run.run_id) is not None

    posts = [(path, body) for command, path, body in told if command == "POST"]
    assert [path for path, _ in posts] == ["/apis/batch/v1/namespaces/alerts/jobs"]
    job = posts[0][1]
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == "registry.example.com/heed:7"
    assert container["args"][:5] == ["/app/.venv/bin/python", "-m", "dagster", "api", "execute_run"]
    assert run.run_id in container["args"][5]
    assert {"configMapRef": {"name": "heed-environment"}} in container["envFrom"]
    assert {"secretRef": {"name": "heed-urls"}} in container["envFrom"]
    assert {m["mountPath"] for m in container["volumeMounts"]} >= {"/heed", "/etc/heed"}
    assert {"name": "DAGSTER_HOME", "value": "/opt/dagster/dagster_home"} in container["env"]
    assert (pod["serviceAccountName"], pod["restartPolicy"]) == ("heed", "Never")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert job["spec"]["backoffLimit"] == 0
    # Everything it asked of the API server is within its role.
    role = next(d for d in documents("heed.yaml") if d["kind"] == "Role")
    verbs = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    for command, path, _ in told:
        resource = path.split("/namespaces/alerts/")[1].split("/")[0]
        assert {"POST": "create", "GET": "get", "DELETE": "delete", "PATCH": "patch"}[command] in verbs[resource]
