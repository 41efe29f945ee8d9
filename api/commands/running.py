"""`hub status` and `hub drain`: operations on a running hub, asked over HTTP as its operator.

Who holds the installation's secret is its operator: the token is made from it, and lives a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from api.auth import operator_token
from hub.sealing import Keyring, load_secret

URL_DEFAULT = "http://127.0.0.1:8000"
ANSWER_TIMEOUT_S = 15.0
ASK_EVERY_S = 0.5
DRAIN_TIMEOUT_S = 120


class Unreachable(Exception):
    """No hub answers there. The message is one line for the person who asked."""


def register(commands: Any) -> None:
    status = commands.add_parser("status", help="show what a running hub is made of")
    _where(status)
    status.set_defaults(run=_status)
    drain = commands.add_parser(
        "drain",
        help="empty a node, or stop the whole hub, losing nothing",
        description="Sessions are told to resume elsewhere, partitions move to other nodes, what is under way is finished. "
        "Returns when it is done: the node's machine may then be stopped or restarted. Without --node the hub stops.",
    )
    _where(drain)
    which = drain.add_mutually_exclusive_group()
    which.add_argument("--node", default="", metavar="NAME", help="the node to empty; hub status lists them")
    which.add_argument(
        "--here",
        metavar="URL",
        help="the node of the gateway at this address, such as http://127.0.0.1:8000; --url should be another's, "
        "or what stands before all of them",
    )
    drain.add_argument(
        "--timeout", type=float, default=DRAIN_TIMEOUT_S, metavar="S", help="give up after (default 120)"
    )
    drain.set_defaults(run=_drain)


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=os.environ.get("HUB_URL", URL_DEFAULT), help="address of the hub")
    parser.add_argument("--data-dir", default=os.environ.get("HUB_DATA_DIR", "data"), help="where secret.key is")


def _status(args: argparse.Namespace) -> int:
    return _told(lambda: print(json.dumps(_ask(args, "GET", "/v1/status"), indent=2)))


def _drain(args: argparse.Namespace) -> int:
    def drain() -> None:
        if args.here:
            args.node = _ask(args, "GET", "/v1/status", url=args.here)["node"]
        _drain_and_wait(args)

    return _told(drain)


def _told(work: Any) -> int:
    """Run it; one clear line and a failing exit where it cannot be done."""
    try:
        work()
    except Unreachable as error:
        print(f"hub: {error}", file=sys.stderr)
        return 1
    return 0


def _drain_and_wait(args: argparse.Namespace) -> None:
    what = f"node {args.node}" if args.node else "the hub"
    give_up = time.monotonic() + args.timeout
    said = False
    while time.monotonic() < give_up:
        try:
            state = _ask(args, "POST", "/v1/drain", {"node": args.node})
        except Unreachable:
            if not said:
                raise
            if not args.node:
                print(f"hub: {what} has stopped")
                return
            time.sleep(ASK_EVERY_S)  # the gateway that was asked may be the one that goes
            continue
        if not said:
            print(f"hub: draining {what} …", flush=True)
            said = True
        if args.node and args.node in state["drained"]:
            print(f"hub: {what} is drained; it may be stopped now")
            return
        time.sleep(ASK_EVERY_S)
    raise Unreachable(f"{what} is not drained after {args.timeout:.0f} s; see hub status and its log, then ask again")


def _ask(
    args: argparse.Namespace, method: str, path: str, body: dict[str, str] | None = None, *, url: str | None = None
) -> Any:
    url = (url or args.url).rstrip("/")
    headers = {"authorization": f"Bearer {_token(args)}"}
    try:
        answer = httpx.request(
            method, f"{url}{path}", json=body, headers=headers, trust_env=False, timeout=ANSWER_TIMEOUT_S
        )
    except httpx.HTTPError as error:
        raise Unreachable(f"no hub answers at {url}: {error}") from None
    if answer.status_code != 200:
        raise Unreachable(_refusal(answer))
    return answer.json()


def _refusal(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the hub answered {answer.status_code}"


def _token(args: argparse.Namespace) -> str:
    data_dir = Path(args.data_dir)
    configured = os.environ.get("HUB_SECRET_KEY")
    if not configured and not (data_dir / "secret.key").exists():
        raise Unreachable(f"no secret.key in {data_dir}; give --data-dir or HUB_SECRET_KEY")
    return operator_token(Keyring(load_secret(configured, data_dir)))
