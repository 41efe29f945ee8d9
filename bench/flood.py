"""`python -m bench.flood`: an open-loop load with a truth check.

Every message has a moment at which it *should* be sent, and latency counts from there, so a hub that stalls
is charged for everything that queued up meanwhile. Prints one JSON object; exits 0 only if nothing was lost,
doubled, reordered or refused.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import resource
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.ledger import Ledger
from bench.paths import Inbound, Path, WebChat, WhatsApp
from bench.peers.agent import Agent
from bench.truth import numbers_in_journal, server_cpu_seconds
from bench.words import MARK

TICK_S = 0.001
SECONDS_MAX = 3_600
FILES_SPARE = 200
CHANNELS = {"ws": "demo-web", "inbound": "demo-api", "whatsapp": "demo-whatsapp"}


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    problem = _refuse(args)
    if problem:
        print(f"bench.flood: {problem}", file=sys.stderr)
        return 2
    report = uvloop.run(flood(args))
    print(json.dumps(report), flush=True)
    if args.json_out:
        with open(args.json_out, "w") as file:
            json.dump(report, file)
    bad = report["lost"] or report["doubled"] or report["out_of_order"] or report["truth"] != "ok"
    return 1 if bad or (report["errors"] and not args.tolerate_errors) else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the hub (loopback only)")
    parser.add_argument("--rate", type=float, default=1000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--conversations", type=int, default=500)
    parser.add_argument("--agents", type=int, default=1, help="agents that follow the inbox")
    parser.add_argument("--path", choices=sorted(CHANNELS), default="ws")
    parser.add_argument("--channel", help="channel id (default: the demo tenant's)")
    parser.add_argument("--key", default="demo-key", help="API key")
    parser.add_argument("--batch", type=int, default=100, help="items a request, path inbound")
    parser.add_argument("--connections", type=int, default=64, help="HTTP connections")
    parser.add_argument("--drain", type=float, default=30, help="seconds to wait for the last answers")
    parser.add_argument("--no-journal", action="store_true", help="leave out the check against the REST API")
    parser.add_argument("--tolerate-errors", action="store_true", help="exit 0 although some requests were refused")
    parser.add_argument(
        "--give-up", action="store_true", help="path ws: do not send again what is refused; count it as refused"
    )
    parser.add_argument("--json-out", help="write the report here too")
    return parser.parse_args(argv)


def _refuse(args: argparse.Namespace) -> str | None:
    host = urlsplit(args.url).hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        return f"--url must be loopback, got {args.url}"
    if not 0 < args.seconds <= SECONDS_MAX or args.rate <= 0 or args.conversations < 1 or args.agents < 1:
        return f"--seconds takes up to {SECONDS_MAX}; rate, conversations and agents must be positive"
    return _raise_file_limit(args.conversations + args.agents + args.connections + FILES_SPARE)


def _raise_file_limit(wanted: int) -> str | None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        return f"needs {wanted} open files, the limit is {hard}; raise it with: ulimit -n {wanted}"
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return None


async def flood(args: argparse.Namespace) -> dict[str, Any]:
    run = f"{time.time_ns() % 36**8:x}"
    mark = f"{MARK}{run}:"
    channel = args.channel or CHANNELS[args.path]
    ledgers = [Ledger(args.conversations) for _ in range(args.agents)]
    ledger = ledgers[0]
    path = _path(args, channel, run, ledger)
    ws_url = args.url.replace("http", "ws", 1) + "/v1/stream"
    agents = [Agent(ws_url, args.key, mark, other.deliver) for other in ledgers]
    for agent in agents:
        agent.start()
    async with asyncio.timeout(60):
        await asyncio.gather(*(agent.subscribed.wait() for agent in agents))
    await path.open()
    server_cpu = await server_cpu_seconds(args.url)
    own_cpu, began = time.process_time(), time.perf_counter()
    await _offer(args, path, ledgers)
    await _drain(args, ledgers)
    own_cpu, elapsed = time.process_time() - own_cpu, time.perf_counter() - began
    cpu_after = await server_cpu_seconds(args.url)
    reconnects = sum(agent.reconnects for agent in agents)
    await path.close()
    for agent in agents:
        await agent.stop()
    report = _report(args, ledgers)
    offered = report["offered"]
    report |= {
        "path": args.path,
        "rate_offered": args.rate,
        "rate_achieved": round(report["acked"] / max(elapsed, 1e-9), 1),
        "seconds": round(elapsed, 2),
        "agent_reconnects": reconnects,
        "agent_resyncs": sum(agent.resyncs for agent in agents),
        "generator_cpu_us_per_msg": round(own_cpu / offered * 1e6, 1),
        "cpu_us_per_msg": _per_message(server_cpu, cpu_after, offered),
    }
    return report | await _truth(args, channel, mark, ledger)


def _path(args: argparse.Namespace, channel: str, run: str, ledger: Ledger) -> Path:
    if args.path == "ws":
        return WebChat(args.url, channel, run, ledger, gives_up=args.give_up)
    if args.path == "inbound":
        return Inbound(args.url, channel, run, ledger, args.connections, args.key, args.batch)
    return WhatsApp(args.url, channel, run, ledger, args.connections)


async def _offer(args: argparse.Namespace, path: Path, ledgers: list[Ledger]) -> None:
    total, began = int(args.rate * args.seconds), time.perf_counter()
    n = 0
    while n < total:
        now = time.perf_counter() - began
        due = min(total, int(now * args.rate) + 1)
        while n < due:
            for ledger in ledgers:
                ledger.plan(began + n / args.rate)
            path.write(n, n % args.conversations)
            n += 1
        path.flush()
        await asyncio.sleep(TICK_S)


async def _drain(args: argparse.Namespace, ledgers: list[Ledger]) -> None:
    give_up = time.perf_counter() + args.drain
    while time.perf_counter() < give_up:
        for other in ledgers[1:]:
            other.acked_at, other.refused = ledgers[0].acked_at, ledgers[0].refused
        if all(ledger.complete() for ledger in ledgers):
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)  # anything delivered twice would come now


def _report(args: argparse.Namespace, ledgers: list[Ledger]) -> dict[str, Any]:
    for other in ledgers[1:]:
        other.acked_at = ledgers[0].acked_at
    report = ledgers[0].report()
    for name in ("lost", "doubled", "out_of_order"):
        report[name] = sum(getattr(ledger, name) for ledger in ledgers)
    return report


def _per_message(before: float | None, after: float | None, count: int) -> float | None:
    return None if before is None or after is None else round((after - before) / count * 1e6, 1)


async def _truth(args: argparse.Namespace, channel: str, mark: str, ledger: Ledger) -> dict[str, Any]:
    """sent = acked = journal = delivered, each message by its number."""
    wrong = []
    taken = len(ledger.intended) - len(ledger.refused)
    if ledger.acked != taken:
        wrong.append(f"offered {len(ledger.intended)}, refused {len(ledger.refused)} but acked {ledger.acked}")
    if ledger.delivered != taken:
        wrong.append(f"offered {len(ledger.intended)}, refused {len(ledger.refused)} but delivered {ledger.delivered}")
    if args.no_journal:
        return {"journal": None, "truth": wrong or "ok"}
    found = await numbers_in_journal(args.url, args.key, channel, mark)
    missing = [n for n, at in enumerate(ledger.acked_at) if at and n not in found]
    doubled = [n for n, count in found.items() if count > 1]
    if missing:
        wrong.append(f"{len(missing)} acknowledged messages are not in the journal, the first is {missing[0]}")
    if doubled:
        wrong.append(f"{len(doubled)} messages stand in the journal more than once")
    return {"journal": len(found), "truth": wrong or "ok"}


if __name__ == "__main__":
    sys.exit(main())
