"""`make bench`: starts a hub, measures it, prints a table against the targets, stops it."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

PORT = 8931
URL = f"http://127.0.0.1:{PORT}"
READY_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 300.0
# (name, flood's arguments, what must hold). Targets are for 2 cores with the generator on the same 2.
RUNS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("idle latency, 50 msg/s", "--path ws --rate 50 --seconds 10 --conversations 20", {"deliver p50 ms": 5}),
    ("web chat, 5,000 msg/s", "--path ws --rate 5000 --seconds 20 --conversations 2000", {"deliver p99 ms": 100}),
    ("web chat, 10,000 msg/s", "--path ws --rate 10000 --seconds 20 --conversations 2000", {"deliver p99 ms": 50}),
    ("API inbound, 15,000 msg/s", "--path inbound --rate 15000 --seconds 10 --conversations 2000", {}),
    ("WhatsApp webhooks, 3,000 msg/s", "--path whatsapp --rate 3000 --seconds 10", {"deliver p99 ms": 50}),
)
QUICK = ("idle latency, 50 msg/s", "web chat, 5,000 msg/s")
COLD_START_TARGET_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what takes under a minute")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hub, seconds = _start(Path(folder))
        try:
            rows = [("cold start", f"{seconds:.1f} s to ready", _verdict(seconds < COLD_START_TARGET_S))]
            for name, flags, targets in RUNS:
                if not args.quick or name in QUICK:
                    rows.append(_row(name, _flood(flags), targets))
            if not args.quick:
                rows.append(_locust(Path(folder)))
        finally:
            hub.send_signal(signal.SIGTERM)
            hub.wait(60)
    _print(rows)
    return 0


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], float]:
    began = time.monotonic()
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    command = [
        sys.executable,
        "-m",
        "api.cli",
        "serve",
        "--demo",
        "--port",
        str(PORT),
        "--data-dir",
        str(folder / "data"),
    ]
    with open(folder / "hub.log", "wb") as log:
        hub = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    while time.monotonic() - began < READY_TIMEOUT_S:
        try:
            if httpx.get(f"{URL}/readyz", trust_env=False).status_code == 200:
                return hub, time.monotonic() - began
        except httpx.HTTPError:
            time.sleep(0.1)
    hub.kill()
    raise SystemExit("the hub did not start:\n" + (folder / "hub.log").read_text())


def _flood(flags: str) -> dict[str, Any]:
    print(f"… bench.flood {flags}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "bench.flood", "--url", URL, *flags.split()]
    done = subprocess.run(command, capture_output=True, timeout=RUN_TIMEOUT_S, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(done.stderr.decode()) from None
    return found


def _row(name: str, report: dict[str, Any], targets: dict[str, float]) -> tuple[str, str, str]:
    figures = {"deliver p50 ms": report["deliver_ms"]["p50"], "deliver p99 ms": report["deliver_ms"]["p99"]}
    ok = report["truth"] == "ok" and report["out_of_order"] == report["errors"] == 0
    ok = ok and report["rate_achieved"] >= 0.9 * report["rate_offered"] * report["seconds"] / (report["seconds"] + 0.5)
    ok = ok and all(figures[figure] < bound for figure, bound in targets.items())
    text = (
        f"{report['rate_achieved']:,.0f} msg/s; ack p50 {report['ack_ms']['p50']} p99 {report['ack_ms']['p99']} ms; "
        f"deliver p50 {report['deliver_ms']['p50']} p99 {report['deliver_ms']['p99']} ms; "
        f"lost {report['lost']}, doubled {report['doubled']}, out of order {report['out_of_order']}; "
        f"server {report['cpu_us_per_msg']} µs CPU a message"
    )
    return name, text, _verdict(ok)


def _locust(folder: Path) -> tuple[str, str, str]:
    print("… locust", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless", "--host", URL]
    command += ["-u", "150", "-r", "50", "-t", "30s", "--csv", str(folder / "locust"), "--only-summary"]
    subprocess.run(command, capture_output=True, timeout=RUN_TIMEOUT_S, check=False)
    with open(folder / "locust_stats.csv") as file:
        [total] = [row for row in csv.DictReader(file) if row["Name"] == "Aggregated"]
    rate, p50, p95, p99 = (float(total[column]) for column in ("Requests/s", "50%", "95%", "99%"))
    failed = int(total["Failure Count"]) / max(1, int(total["Request Count"]))
    text = f"{rate:,.0f} requests/s; p50 {p50:.0f} p95 {p95:.0f} p99 {p99:.0f} ms; errors {failed:.2%}"
    return "Locust, mixed users", text, _verdict(p50 < 100 and p95 < 200 and p99 < 500 and failed < 0.001)


def _verdict(ok: bool) -> str:
    return "met" if ok else "**missed**"


def _print(rows: list[tuple[str, str, str]]) -> None:
    print("| what | measured | target |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    sys.exit(main())
