"""`hub replay`: a conversation, or a customer with all of theirs, as it was."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from actors.replay import Past, has, replay, stream_of
from api.commands.places import config_of, existing, keyring_of, run, store_flags
from api.commands.restore import instant
from hub import positions
from hub.archive.blocks import ArchiveError
from hub.clock import rfc3339
from hub.ids import stream_partition
from hub.sealing import Unsealable

ERASED = "(erased)"


def register(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="show a conversation as it was",
        description="Show a conversation, or a customer with all of theirs, as it was, from the journal alone. The hub may be stopped or serving.",
    )
    parser.add_argument("id", metavar="ID", help="cnv_… or cus_…")
    parser.add_argument(
        "--at", metavar="TIME", help="as of then, such as 2026-01-31T12:00:00Z; without it, as of the newest event"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    store_flags(parser, "the store to read")
    parser.set_defaults(run=run(_replay))


async def _replay(args: argparse.Namespace) -> int:
    stream = stream_of(args.id)
    if stream is None:
        raise ArchiveError(f"{args.id[:80]!r} is not an id of a conversation (cnv_…) or customer (cus_…)")
    until = instant(args.at, "--at") if args.at is not None else None
    config = config_of(args)
    keyring = keyring_of(config)
    async with existing(config.storage) as store:
        try:
            past = await replay(store, keyring, stream, until)
        except Unsealable:
            raise ArchiveError("this store was sealed with another secret; give --data-dir or HUB_SECRET_KEY") from None
        partition = stream_partition(stream, store.partitions)
    if not has(past, args.id):
        raise ArchiveError(f"there is no {args.id} in this store" + (f" as of {args.at}" if args.at else ""))
    shown = past.shown(args.id if args.id != stream else None)
    position = positions.encode({partition: past.offset})
    if args.json:
        whole = {"position": position, "at": rfc3339(past.at), "erased": past.sealed_away, **shown}
        print(msgspec.json.encode(whole).decode())
    else:
        print(_page(past, shown, position))
    return 0


def _page(past: Past, shown: dict[str, Any], position: str) -> str:
    customer = shown["customer"]
    name = customer["name"] or (ERASED if past.sealed_away else "–")
    lines = [f"{_plain(name)} ({customer['id']}), as of {rfc3339(past.at)}, position {position}"]
    for conversation in shown["conversations"]:
        lines += ["", *_conversation(conversation)]
    return "\n".join(lines)


def _conversation(shown: dict[str, Any]) -> list[str]:
    lines = [f"{shown['id']}  on {shown['channel']['id']} ({shown['channel']['kind']})"]
    facts = {
        name: shown[name] or "–" for name in ("status", "priority", "assignee", "team", "category", "snoozed_until")
    }
    facts["labels"] = ", ".join(shown["labels"]) or "–"
    lines.append("  " + "  ".join(f"{name} {_plain(str(value))}" for name, value in facts.items() if value != "–"))
    lines.append(f"  unread {shown['unread']}  opened {shown['created_at']}  changed {shown['updated_at']}")
    width = max((len(_author(message)) for message in shown["messages"]), default=0)
    for message in shown["messages"]:
        lines.append(_message(message, width))
    return lines


def _message(message: dict[str, Any], width: int) -> str:
    text = ERASED if message["erased"] else _plain(message["text"])
    files = "".join(f" [{_plain(file['name'] or file['kind'])}]" for file in message["attachments"])
    status = f"  ({message['status']})" if message["status"] else "  (note)" if message["kind"] == "note" else ""
    return f"{message['seq']:>5}  {message['created_at']}  {_author(message):<{width}}  {text}{files}{status}"


def _author(message: dict[str, Any]) -> str:
    author = message["author"]
    return _plain(author["name"] or author["id"] or author["type"])


def _plain(text: str) -> str:
    """What people wrote, on one line, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
