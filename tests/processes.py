"""Looking at processes of this machine, and ending those that a test has started, by pid."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

FREEZE_TIMEOUT_S = 5.0
PR_SET_CHILD_SUBREAPER = 36
END_TIMEOUT_S = 10.0


def adopt_orphans() -> None:
    """For `preexec_fn`: whatever this process starts stays among its descendants, orphaned or not."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """All that come from `root`, itself left out; nearest first."""
    found: list[int] = []
    queue = [root]
    while queue:
        pid = queue.pop(0)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                queue += [int(child) for child in (task / "children").read_text().split()]
        found.append(pid)
    return found[1:]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """A zombie that nobody has waited for yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory_bytes(pid: int) -> int:
    """Resident, what it shares with others left out: what this process alone costs."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tell(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(pid: int) -> None:
    """SIGSTOP; returns once no thread of the process runs any more: each stops only when it gets to hear of it."""
    tell(pid, signal.SIGSTOP)
    give_up = time.monotonic() + FREEZE_TIMEOUT_S
    while time.monotonic() < give_up and not all(state in "TtZX" for state in _thread_states(pid)):
        time.sleep(0.001)


def _thread_states(pid: int) -> list[str]:
    states = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.append(task.read_text().rpartition(")")[2].split()[0])
    return states


def end_family(root: int) -> None:
    """kill -9 of a process and all that came from it, as if its machine had lost power."""
    tell(root, signal.SIGSTOP)  # or else it would see its children die, and start new ones or say goodbye
    family = [root]
    began = time.monotonic()
    while family and time.monotonic() - began < END_TIMEOUT_S:
        family = [pid for pid in descendants(root) if alive(pid)]
        for pid in family:
            tell(pid, signal.SIGKILL)
        if family:
            time.sleep(0.02)
    tell(root, signal.SIGKILL)
