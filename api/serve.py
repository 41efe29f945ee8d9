"""`hub serve`: start everything, say so, wait for the signal to stop, drain."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from typing import IO, TYPE_CHECKING, NoReturn

import msgspec

from api.listener import listen
from hub import logs
from hub.config import Config, InvalidSetting
from hub.errors import HubError
from hub.sealing import READY, load_secret
from hub.storage import open_store

if TYPE_CHECKING:
    from actors.supervisor import Supervisor

log = logging.getLogger("hub.serve")


def serve(config: Config) -> int:
    logs.configure(config.log_level, "hub")
    began = time.monotonic()
    if config.redis is None and config.several_gateways:
        log.warning("several gateways and no --redis: limits and presence are each gateway's own")
    lock = _lock(config)
    if config.ray_address is None:
        _check_port(config)
    partitions = asyncio.run(_prepare(config))
    # Every process of the hub has the same secret, whatever its machine holds.
    secret = load_secret(config.secret_key, config.data_dir)
    config = msgspec.structs.replace(config, secret_key=READY + secret.hex(), partitions=partitions)
    from actors.supervisor import Supervisor
    from api import gateway

    supervisor = Supervisor(config, partitions, gateway.start)
    try:
        return asyncio.run(_run(config, supervisor, began))
    finally:
        lock.close()


def _lock(config: Config) -> IO[str]:
    """Two hubs on one data folder would fence each other for ever. The lock goes with the process, however it ends."""
    config.data_dir.mkdir(parents=True, exist_ok=True)
    lock = open(config.data_dir / "hub.lock", "a+")  # noqa: SIM115 (held until the process ends)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InvalidSetting(
            f"another hub is running on {config.data_dir}; stop it, or choose another --data-dir"
        ) from None
    return lock


def _check_port(config: Config) -> None:
    """Say so now rather than after everything has been started."""
    try:
        listen(config.host, config.port, shared=False).close()
    except RuntimeError as error:
        raise InvalidSetting(str(error)) from None


async def _prepare(config: Config) -> int:
    """Create or migrate the store once, before several processes open it. Returns its partition count."""
    try:
        store = await open_store(config.storage, partitions=config.partitions)
    except (ValueError, OSError, HubError) as error:
        raise InvalidSetting(str(error)) from None
    count = store.partitions
    await store.close()
    return count


async def _run(config: Config, supervisor: Supervisor, began: float) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        supervisor.start()
        # Now, since Ray has set handlers of its own; and not later: the gateways may be found ready, and we be told to
        # stop, before we have noticed.
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        await supervisor.ready()
    except Exception as error:
        print(f"hub: cannot start: {_reason(error)}", file=sys.stderr)
        return 1
    _announce(config, time.monotonic() - began)
    watching = loop.create_task(supervisor.watch(stop))
    await stop.wait()
    watching.cancel()
    if supervisor.lost_ray and config.ray_address is not None:
        print("hub: the Ray cluster is gone; start the hub again when it is back", file=sys.stderr)
        return 1
    if supervisor.lost_ray:
        _start_over(supervisor)
    print("hub: draining …", flush=True)
    await supervisor.drain()
    print("hub: stopped", flush=True)
    # Ray's own shutdown takes seconds and has nothing left to save; its processes end with this one.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _start_over(supervisor: Supervisor) -> NoReturn:
    """Nobody would restart what Ray had started: end it, and be a new hub in the same process."""
    print("hub: Ray is gone; starting over", file=sys.stderr, flush=True)
    supervisor.bury()
    os.execv(sys.executable, [sys.executable, "-m", "api.cli", *sys.argv[1:]])


def _reason(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error.__cause__ or error
    return str(cause).strip().splitlines()[-1] if str(cause).strip() else type(cause).__name__


def _announce(config: Config, seconds: float) -> None:
    url = f"http://{config.host}:{config.port}"
    lines = [f"Cocolu Hub is ready at {url} ({seconds:.1f} s)"]
    if config.demo:
        lines += [
            "  inbox   " + url + "/        sign in as ana@demo.test, luis@demo.test or admin@demo.test, password demo",
            "  widget  " + url + "/demo    a shop with the chat widget",
            "  API     " + url + "/docs    key demo-key",
        ]
    print("\n".join(lines), flush=True)
