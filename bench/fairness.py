"""`python -m bench.fairness`: what a noisy tenant does to its neighbour.

Two tenants write at their share; then the first offers ten times as much and gives up on what it is refused, while the
second goes on as before. Prints one JSON object with both tenants' figures in both runs, and how many times the
neighbour's p99 has grown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

NEIGHBOUR = ("--channel", "demo2-web", "--key", "demo2-key")
LIMIT_DEFAULT = 1.5
RUN_TIMEOUT_S = 180


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the hub (loopback only)")
    parser.add_argument("--share", type=float, default=300, help="messages a second of each tenant")
    parser.add_argument("--times", type=float, default=10, help="how many times its share the noisy tenant offers")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--limit", type=float, default=LIMIT_DEFAULT, help="how much the neighbour's p99 may grow")
    args = parser.parse_args()
    quiet = _both(args, args.share)
    noisy = _both(args, args.share * args.times)
    before, after = quiet["neighbour"]["deliver_ms"]["p99"], noisy["neighbour"]["deliver_ms"]["p99"]
    grown = round(after / max(before, 1e-9), 2)
    print(json.dumps({"at_share": quiet, "at_times": noisy, "neighbour_p99_grown": grown}))
    sound = all(run[who]["truth"] == "ok" for run in (quiet, noisy) for who in run)
    return 0 if sound and not noisy["neighbour"]["refused"] and grown <= args.limit else 1


def _both(args: argparse.Namespace, noise: float) -> dict[str, Any]:
    noisy = _flood(args, noise)
    neighbour = _flood(args, args.share, *NEIGHBOUR)
    return {"noisy": _report(noisy), "neighbour": _report(neighbour)}


def _flood(args: argparse.Namespace, rate: float, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.flood", "--url", args.url, "--rate", str(rate), "--give-up"]
    command += ["--seconds", str(args.seconds), "--conversations", str(args.conversations), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _report(flood: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, _ = flood.communicate(timeout=RUN_TIMEOUT_S)
    found: dict[str, Any] = json.loads(out)
    return found


if __name__ == "__main__":
    sys.exit(main())
