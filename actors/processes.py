"""Ray actors as the hub uses them: named processes in one namespace, restarted for ever, never retried blindly."""

from __future__ import annotations

from typing import Any

import ray

NAMESPACE = "hub"
CALLS_MAX_AT_ONCE = 10_000


def spawn(shell: type, name: str, *args: object, retries: int = 0) -> Any:
    """Start a process and return its handle. `retries`: how often Ray itself repeats a call that died with it."""
    remote: Any = ray.remote
    actor = remote(num_cpus=0, max_restarts=-1, max_task_retries=retries, max_concurrency=CALLS_MAX_AT_ONCE)(shell)
    return actor.options(name=name, namespace=NAMESPACE).remote(*args)


def own_address() -> str:
    """The address of this machine as the other machines of the cluster know it."""
    services: Any = ray.util
    return str(services.get_node_ip_address())


def find(name: str) -> Any:
    """The handle of a process by name. Raises ValueError where there is none."""
    return ray.get_actor(name, namespace=NAMESPACE)
