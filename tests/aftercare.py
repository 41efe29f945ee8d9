"""What must be undone on this machine, even when the process that did it is killed: mounts, namespaces, servers.

A shell waits at the other end of a pipe. It runs what it was told once the pipe closes, which happens however this
process ends; an orderly end calls it off first.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess


class Aftercare:
    """Commands are run in the order given, each whether or not the one before worked."""

    def __init__(self) -> None:
        script = 'told=$(cat); eval "$told"'
        quiet = subprocess.DEVNULL
        self._shell = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
        )

    def promise(self, *command: str) -> None:
        """Run this should we die."""
        assert self._shell.stdin is not None
        self._shell.stdin.write((shlex.join(command) + "\n").encode())
        self._shell.stdin.flush()

    def call_off(self) -> None:
        """Everything has been undone in the ordinary way."""
        with contextlib.suppress(ProcessLookupError):
            self._shell.send_signal(signal.SIGKILL)
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()
