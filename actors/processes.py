"""Ray actors as the hub uses them: named processes in one namespace, restarted for ever, never retried blindly."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAMESPACE = "hub"
CALLS_MAX_AT_ONCE = 10_000
HEAD_ONLY = "node:__internal_head__"
"""A resource that Ray gives to the head alone, so that work can be placed there."""
HEAD_SHARE = 0.001


def spawn(
    shell: type,
    name: str,
    *args: object,
    retries: int = 0,
    on: str | None = None,
    on_head: bool = False,
    detached: bool = False,
) -> Any:
    """Start a process and return its handle, or that of the one that has this name already.

    `retries`: how often Ray itself repeats a call that died with it. `on`: the Ray node it runs on, and nowhere else.
    `on_head`: on the node of Ray's control store, whichever that is. `detached`: it outlives the program that started it.
    """
    remote: Any = ray.remote
    actor = remote(num_cpus=0, max_restarts=-1, max_task_retries=retries, max_concurrency=CALLS_MAX_AT_ONCE)(shell)
    options: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "get_if_exists": True}
    if on is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(on, soft=False)
    if on_head:
        options["resources"] = {HEAD_ONLY: HEAD_SHARE}
    if detached:
        options["lifetime"] = "detached"
    return actor.options(**options).remote(*args)


def end(handle: Any) -> None:
    """End a process for good; Ray does not start it again."""
    ray.kill(handle, no_restart=True)


def own_address() -> str:
    """The address of this machine as the other machines of the cluster know it."""
    services: Any = ray.util
    return str(services.get_node_ip_address())


def find(name: str) -> Any:
    """The handle of a process by name. Raises ValueError where there is none."""
    return ray.get_actor(name, namespace=NAMESPACE)
