"""A real server of MongoDB's protocol that the tests start, stop, kill and freeze: SecantusDB, on WiredTiger, syncing each commit.

With `HUB_TEST_MONGODB` naming a running MongoDB (a test instance: databases are made and dropped), the suite runs against that one;
only the tests that kill or freeze the server start their own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError

from tests.hub_process import free_port
from tests.processes import freeze

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
PR_SET_PDEATHSIG = 1


class MongoServer:
    """Files in a temporary folder, a free port of the loopback address."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"mongodb://127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="hub-mongo-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MongoServer:
        program = Path(sys.executable).with_name("secantusd-py")
        command = [str(program), "--port", str(self.port), "--storage-path", str(self.folder / "data")]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--sync-on-commit", "--log-level", "WARNING"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_tests,
            )
        began = time.monotonic()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > START_TIMEOUT_S:
                raise AssertionError("the MongoDB server did not start:\n" + self.log()[-4000:])
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        client: MongoClient[dict[str, object]] = MongoClient(self.url, serverSelectionTimeoutMS=200)
        with client:
            try:
                client.admin.command("ping")
            except PyMongoError:
                return False
        return True

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9: nothing gets written any more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        freeze(self.pid)

    def resume(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _die_with_the_tests() -> None:
    """However they end: the kernel sees to it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.asynccontextmanager
async def mongo_database(server: str | None = None) -> AsyncIterator[str]:
    """The URL of a fresh database, dropped afterwards; on `server`, or on the one that the whole session shares."""
    server = server or os.environ.get("HUB_TEST_MONGODB") or shared_mongo().url
    name = f"hub_{uuid.uuid4().hex[:12]}"
    address, _, options = server.partition("?")
    yield f"{address.rstrip('/')}/{name}" + (f"?{options}" if options else "")
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(server)
    async with client:
        await client.drop_database(name)


@functools.cache
def shared_mongo() -> MongoServer:
    server = MongoServer()
    atexit.register(server.remove)
    return server.start()
