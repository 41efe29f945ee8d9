"""What cluster.yaml and `deploy/` say, for tests that do it: the commands, the environment, the hub's entry point.

They speak of a home folder with the hub and its `.venv` in it. Here that is a folder of links into this repository and
into the Python that runs the tests, so that not a word of the commands needs changing.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PORT = ":6379"
LAUNCHER_ONLY = " --autoscaling-config=~/ray_bootstrap_config.yaml"
"""For the head of a real cluster, which starts Ray on the other machines over SSH."""


class Deployment:
    """`home` is made, with a token for Ray in it."""

    def __init__(self, home: Path) -> None:
        installed = home / "cocolu-hub" / ".venv"
        installed.mkdir(parents=True)
        (installed / "bin").symlink_to(Path(sys.executable).parent)
        (home / "cocolu-hub" / "deploy").symlink_to(ROOT / "deploy")
        token = home / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text(secrets.token_hex(32))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HUB_", "RAY_"))}
        self.environment = {**inherited, "HOME": str(home), **ray_env(), "RAY_AUTH_TOKEN_PATH": str(token)}
        """Of every process of the cluster. Nodes read ray.env themselves, too."""
        self._home = home
        self._before: dict[str, str | None] = {}

    # --- commands -------------------------------------------------------------------------------------------------

    def head_command(self, address: str) -> str:
        """A shell command; options of `ray start` may be appended. `address` is the head's, with its port."""
        command = _starts_ray("head_start_ray_commands")
        assert LAUNCHER_ONLY in command
        return command.replace(LAUNCHER_ONLY, "").replace("--port=6379", f"--port={address.rpartition(':')[2]}")

    def node_command(self, address: str) -> str:
        host, _, port = address.rpartition(":")
        return f"RAY_HEAD_IP={host}; " + _starts_ray("worker_start_ray_commands").replace(PORT, f":{port}")

    def hub_command(self) -> list[str]:
        """What the service on the head runs."""
        [line] = [line for line in unit_lines() if line.startswith("ExecStart=")]
        return shlex.split(line.partition("=")[2].replace("%h", str(self._home)))

    # --- this process as a program of the cluster -----------------------------------------------------------------

    def sign_in(self) -> None:
        """Ray's own calls from this process carry the token from now on."""
        wanted = {name: self.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
        self._before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        _read_environment_again()

    def sign_out(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_environment_again()


def _read_environment_again() -> None:
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _starts_ray(commands: str) -> str:
    [command] = [command for command in launcher_config()[commands] if "ray start" in command]
    # Signals for the command are for Ray, not for the shell that began it.
    assert command.count("~/cocolu-hub/.venv/bin/ray start") == 1
    return str(command).replace("~/cocolu-hub/.venv/bin/ray start", "exec ~/cocolu-hub/.venv/bin/ray start")


# --- the files --------------------------------------------------------------------------------------------------------


def launcher_config() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def kubernetes_objects() -> dict[str, Any]:
    """By their kinds, of which there is one each."""
    objects = list(yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text()))
    found = {item["kind"]: item for item in objects}
    assert len(found) == len(objects)
    return found


def unit_lines() -> list[str]:
    return (ROOT / "deploy" / "cocolu-hub.service").read_text().splitlines()


def ray_env() -> dict[str, str]:
    return env_file(ROOT / "deploy" / "ray.env")


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
