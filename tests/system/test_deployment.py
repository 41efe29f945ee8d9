"""cluster.yaml and deploy/kuberay.yaml are what their readers take, and say the same as each other and as the code."""

from __future__ import annotations

import subprocess
import tomllib
from typing import Any

import pytest

from actors.supervisor import DRAIN_TIMEOUT_S, LINGER_S, RAY_ENVIRONMENT
from api.cli import _parser
from api.gateway import DRAIN_TIMEOUT_S as GATEWAY_DRAIN_TIMEOUT_S
from hub.config import load
from tests.deployment import (
    ROOT,
    Deployment,
    env_file,
    kubernetes_objects,
    launcher_config,
    ray_env,
    unit_lines,
)


def pods() -> dict[str, Any]:
    """Pod templates by the name of their first container."""
    spec = kubernetes_objects()["RayCluster"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return {group["template"]["spec"]["containers"][0]["name"]: group["template"] for group in groups}


def container(name: str) -> Any:
    [found] = [c for pod in pods().values() for c in pod["spec"]["containers"] if c["name"] == name]
    return found


def values(env: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in env}


def test_the_launcher_takes_cluster_yaml() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(launcher_config())
    validate_config(config)
    [kind] = config["available_node_types"].values()
    assert kind["min_workers"] == len(config["provider"]["worker_ips"]) == 2


def test_every_command_of_cluster_yaml_is_a_shell_command() -> None:
    config = launcher_config()
    for name, commands in config.items():
        for command in commands if name.endswith("commands") else ():
            checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{name}: {checked.stderr}"


def test_files_that_the_commands_speak_of_are_there() -> None:
    config = launcher_config()
    text = "\n".join(c for name, commands in config.items() if name.endswith("commands") for c in commands)
    text += "\n".join(unit_lines()).replace("%h", "~")
    names = {word.partition("~/cocolu-hub/")[2].rstrip('/;"') for word in text.split() if "~/cocolu-hub/" in word}
    assert {"deploy/ray.env", "deploy/cocolu-hub.service"} <= names
    for name in names - {".venv/bin/ray", ".venv/bin/hub"}:
        assert (ROOT / name).exists(), name


def test_ray_gets_the_environment_that_the_hub_wants_everywhere() -> None:
    told = ray_env()
    assert told.items() >= RAY_ENVIRONMENT.items()
    assert told["RAY_AUTH_MODE"] == "token"
    patience_ms = int(told["RAY_health_check_failure_threshold"]) * (
        int(told["RAY_health_check_period_ms"]) + int(told["RAY_health_check_timeout_ms"])
    )
    assert patience_ms < 5_000
    assert kubernetes_objects()["ConfigMap"]["data"] == told
    for name in ("ray-head", "ray-worker", "hub"):
        assert container(name)["envFrom"] == [{"configMapRef": {"name": "cocolu-hub-ray"}}]
        assert values(container(name)["env"])["RAY_AUTH_TOKEN"]["secretKeyRef"]["key"] == "ray-token"


def test_the_hub_starts_by_the_same_command_on_machines_and_on_kubernetes(tmp_path: Any) -> None:
    command = Deployment(tmp_path / "home").hub_command()
    assert container("hub")["command"] == ["hub", *command[1:]] == ["hub", "serve", "--ray-address", "auto"]


@pytest.mark.parametrize("where", ["machines", "kubernetes"])
def test_the_settings_are_settings(where: str) -> None:
    if where == "machines":
        told: dict[str, Any] = env_file(ROOT / "deploy" / "hub.env.example")
    else:
        told = {name: value for name, value in values(container("hub")["env"]).items() if name.startswith("HUB_")}
        secrets = kubernetes_objects()["Secret"]["stringData"]
        told = {k: v if isinstance(v, str) else secrets[v["secretKeyRef"]["key"]] for k, v in told.items()}
    config = load({"ray_address": "auto"}, told)
    assert config.host == "0.0.0.0" and config.storage.startswith("postgresql://") and config.secret_key == "hex:"


def test_a_pod_that_ends_is_drained_first_and_has_the_time_for_it() -> None:
    worker = container("ray-worker")
    [command] = [worker["lifecycle"]["preStop"]["exec"]["command"]]
    args = _parser().parse_args(command[1:])
    [port] = [port["containerPort"] for port in worker["ports"]]
    assert args.here == f"http://127.0.0.1:{port}" and values(container("hub")["env"])["HUB_PORT"] == str(port)
    a_drain_takes_s = LINGER_S + GATEWAY_DRAIN_TIMEOUT_S + 2 * DRAIN_TIMEOUT_S
    assert a_drain_takes_s < args.timeout < pods()["ray-worker"]["spec"]["terminationGracePeriodSeconds"] - 10


def test_traffic_goes_to_gateways_that_are_ready_and_stops_within_their_patience() -> None:
    worker, service = container("ray-worker"), kubernetes_objects()["Service"]["spec"]
    probe = worker["readinessProbe"]
    assert probe["httpGet"] == {"path": "/readyz", "port": 8000}
    assert probe["periodSeconds"] * probe["failureThreshold"] < LINGER_S
    labels = pods()["ray-worker"]["metadata"]["labels"]
    budget = kubernetes_objects()["PodDisruptionBudget"]["spec"]
    assert service["selector"] == budget["selector"]["matchLabels"] == labels
    assert values(worker["env"])["HUB_URL"] == f"http://cocolu-hub:{service['ports'][0]['port']}"


def test_the_head_carries_nothing_and_the_version_is_the_installed_one() -> None:
    import ray

    spec = kubernetes_objects()["RayCluster"]["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert any("--num-cpus=0" in command for command in launcher_config()["head_start_ray_commands"])
    locked = (ROOT / "requirements.lock").read_text()
    assert f"\nray=={spec['rayVersion']} " in locked and ray.__version__ == spec["rayVersion"]


def test_the_image_holds_every_package() -> None:
    copied = {line.split()[1] for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines() if "COPY" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
