"""The supervisor: starts Ray, the directory, shards and gateways, and keeps an eye on them. Off the data path."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

import ray

from actors import directory, processes, shard
from hub.config import Config

log = logging.getLogger("hub.supervisor")

PING_EVERY_S = 1.0
START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 20.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024
# Ray runs workers at nice 15, which starves a server that shares its machine; it reports every call of an actor
# to its control store, which costs more than our calls do; the rest we neither read nor want sent anywhere.
RAY_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_event_stats": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}


class Supervisor:
    def __init__(self, config: Config, partitions: int, start_gateway: Callable[[str, Config, int], Any]) -> None:
        self._config = config
        self._partitions = partitions
        self._start_gateway = start_gateway
        self.shards: dict[str, Any] = {}
        self.gateways: dict[str, Any] = {}

    def start(self) -> None:
        """Start everything; returns before it is ready."""
        _start_ray(self._config)
        names = [f"hub-shard-{n}" for n in range(self._config.shards)]
        self._directory = directory.start(self._partitions, names)
        self.shards = {name: shard.start(name, self._config) for name in names}
        for n in range(self._config.gateways):
            name = f"hub-gateway-{n}"
            self.gateways[name] = self._start_gateway(name, self._config, self._partitions)

    async def ready(self) -> None:
        """Return once every shard owns its partitions and every gateway listens. Raises what stopped one."""
        async with asyncio.timeout(START_TIMEOUT_S):
            for handle in [*self.shards.values(), *self.gateways.values()]:
                await handle.ping.remote()

    async def watch(self) -> None:
        """A restarted process begins its work with the first call it gets: this one, at the latest."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            for name, handle in {**self.shards, **self.gateways}.items():
                asyncio.get_running_loop().create_task(_ping(name, handle))

    async def drain(self) -> None:
        """Gateways first, so that nothing new comes in; then shards, so that what came in is finished."""
        for group in (self.gateways, self.shards):
            calls = [handle.drain.remote() for handle in group.values()]
            for call in calls:
                try:
                    async with asyncio.timeout(DRAIN_TIMEOUT_S):
                        await call
                except Exception as error:
                    log.warning("a process did not drain: %s", type(error).__name__)


async def _ping(name: str, handle: Any) -> None:
    try:
        await handle.ping.remote()
    except Exception as error:
        log.warning("%s is restarting: %s", name, type(error).__name__)


def _start_ray(config: Config) -> None:
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if config.ray_address:
        ray.init(address=config.ray_address, namespace=processes.NAMESPACE, log_to_driver=False)
        return
    _leave_out_what_one_machine_never_uses()
    ray.init(
        include_dashboard=False,
        namespace=processes.NAMESPACE,
        log_to_driver=True,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _leave_out_what_one_machine_never_uses() -> None:
    """A Ray of our own on one machine needs neither an autoscaler's monitor nor a dashboard's web server.

    Ray has no setting for either (`include_dashboard=False` still starts the server's process), and starting those
    two costs a small machine two seconds of every cold start.
    """
    from ray._private.node import Node

    for name in ("start_monitor", "start_api_server"):
        if hasattr(Node, name):
            setattr(Node, name, _do_nothing)


def _do_nothing(*args: object, **kwargs: object) -> None:
    pass
