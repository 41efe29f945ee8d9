"""The table of `docs/reliability.md`, between its markers."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.catalogue import BY_KEY, FAULTS
from tests.faults.homes import HOMES
from tests.faults.run import Outcome

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEAD = (
    "fault",
    "home",
    "acknowledged",
    "lost",
    "doubled",
    "reordered",
    "seconds to full service",
    "longest wait for any answer",
    "peak memory",
)


def markdown(known: dict[str, Outcome]) -> str:
    """In the order of the catalogue; a pair that makes no sense has no row."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * (len(HEAD) - 2)]
    for fault in FAULTS:
        lines += [row(known[f"{fault.key} {home}"]) for home in HOMES if f"{fault.key} {home}" in known]
    return "\n".join(lines)


def row(outcome: Outcome) -> str:
    full = "never" if outcome.full_service_s is None else f"{outcome.full_service_s:.1f}"
    cells = [BY_KEY[outcome.fault].title, outcome.home, f"{outcome.acknowledged:,}"]
    cells += [
        str(count) if not count else f"**{count}**" for count in (outcome.lost, outcome.doubled, outcome.reordered)
    ]
    cells += [full, f"{outcome.longest_wait_s:.1f} s", f"{outcome.peak_bytes / 2**20:.0f} MB"]
    return "| " + " | ".join(cells) + " |"


def write(path: Path, known: dict[str, Outcome]) -> None:
    """Replace what stands between the markers. Raises ValueError where they are missing."""
    text = path.read_text()
    pattern = re.compile(f"({re.escape(BEGIN)}\n).*({re.escape(END)})", re.S)
    if not pattern.search(text):
        raise ValueError(f"{path} has no {BEGIN} … {END}")
    path.write_text(pattern.sub(lambda found: found[1] + markdown(known) + "\n" + found[2], text))
