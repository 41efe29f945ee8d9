"""`python -m tests.faults`: every fault on every home, as a table."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import msgspec

from tests.faults import table
from tests.faults.catalogue import BY_KEY, FAULTS, Fault
from tests.faults.homes import HOMES
from tests.faults.run import Outcome, run

RESULTS = Path(".faults.json")


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    # SIGTERM ends it as Ctrl-C does: what was started is stopped, what was mounted is unmounted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = _load(args.results)
    if args.fresh:
        known = {}
    pairs = [(fault, home) for fault in FAULTS for home in HOMES if _wanted(fault, home, args)]
    for at, (fault, home) in enumerate(pairs, 1):
        if f"{fault.key} {home}" in known and not args.only:
            continue
        print(f"[{at}/{len(pairs)}] {fault.title}, {home} …", file=sys.stderr, flush=True)
        outcome = run(fault, home)
        known[f"{fault.key} {home}"] = outcome
        _save(args.results, known)
        print(_said(outcome), file=sys.stderr, flush=True)
    print(table.markdown(known))
    if args.write:
        table.write(Path(args.write), known)
    return 0 if all(outcome.clean for outcome in known.values()) else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--homes", default=",".join(HOMES), help="some of " + ", ".join(HOMES))
    parser.add_argument("--faults", default=",".join(BY_KEY), help="some of " + ", ".join(BY_KEY))
    parser.add_argument("--only", action="store_true", help="run these even if their results are known already")
    parser.add_argument("--fresh", action="store_true", help="forget all results first")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept between runs")
    parser.add_argument("--write", metavar="FILE", help="put the table between the markers of this file")
    args = parser.parse_args(argv)
    args.homes, args.faults = args.homes.split(","), args.faults.split(",")
    unknown = [name for name in args.faults if name not in BY_KEY] + [name for name in args.homes if name not in HOMES]
    if unknown:
        parser.error(f"not known: {', '.join(unknown)}")
    return args


def _wanted(fault: Fault, home: str, args: argparse.Namespace) -> bool:
    return fault.key in args.faults and home in args.homes and home in fault.homes


def _load(path: Path) -> dict[str, Outcome]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Outcome]) if path.exists() else {}


def _save(path: Path, known: dict[str, Outcome]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(known)))


def _said(outcome: Outcome) -> str:
    lines = [table.row(outcome), f"  refusals: {outcome.refusals}; longest wait: {outcome.longest_wait_for}"]
    lines.append(f"  acks a second: {outcome.normal_rate:.0f} before, then {outcome.timeline}")
    return "\n".join(lines + [f"  ! {problem}" for problem in outcome.problems])


if __name__ == "__main__":
    sys.exit(main())
