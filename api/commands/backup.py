"""`hub backup`, `hub export` and `hub verify`: reading a store while it is served."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from api.commands.places import config_of, existing, host_of, is_archive, keyring_of, run, store_flags, url_of
from api.commands.progress import MB, Progress
from hub import positions
from hub.archive.blocks import Block, Header
from hub.archive.compare import differences, digest
from hub.archive.files import STDOUT, header_of, read_file, write_file
from hub.archive.source import read_store
from hub.clock import SystemClock, rfc3339


def register(commands: Any) -> None:
    backup = commands.add_parser(
        "backup",
        help="write an archive of the store, while the hub serves",
        description="Write an archive of the store, consistent as of the moment it begins. The hub may go on serving. The archive is "
        "as sealed as the store: it can be read only with the installation's secret, which is not in it. Keep secret.key apart.",
    )
    backup.add_argument("--to", required=True, metavar="FILE", help="the archive to write; - is standard output")
    backup.add_argument("--since", metavar="FILE", help="write only what came after this earlier archive")
    _reading_flags(backup, "the store to back up")
    backup.set_defaults(run=run(_backup))
    export = commands.add_parser(
        "export",
        help="write the whole store to a file, to `hub import` it in another home",
        description="Write the whole store to a file, for `hub import` in another home (SQLite, PostgreSQL, MongoDB). Stop the hub "
        "first: what it takes later stays behind.",
    )
    export.add_argument("--to", required=True, metavar="FILE", help="the archive to write; - is standard output")
    _reading_flags(export, "the store to export")
    export.set_defaults(run=run(_backup), since=None)
    verify = commands.add_parser(
        "verify",
        help="tell whether two stores, or a store and an archive, hold the same",
        description="Read both from the first event to the last and say what differs. Stop the hub first: a store that is written to differs.",
    )
    verify.add_argument("one", metavar="A", help="a store's URL, a data folder, or a full archive")
    verify.add_argument("other", metavar="B", help="the other")
    verify.set_defaults(run=run(_verify))


def _reading_flags(parser: argparse.ArgumentParser, what: str) -> None:
    store_flags(parser, what)
    parser.add_argument("--max-rate", type=float, metavar="MB/S", help="read no faster, so that the hub keeps its pace")


async def _backup(args: argparse.Namespace) -> int:
    config = config_of(args)
    secret = keyring_of(config).fingerprint
    base = header_of(args.since) if args.since else None
    progress = Progress(args.command, mb_per_s=args.max_rate)
    kept: list[Header] = []
    async with existing(config.storage) as store:
        blocks = read_store(store, secret=secret, now=SystemClock().now(), base=base)
        size = await write_file(_noting_header(progress.watch(blocks), kept), args.to)
    seconds = progress.finish()
    [header] = kept
    out = sys.stderr if args.to == STDOUT else sys.stdout
    print(f"{args.to}: {header.events:,} events, {size / MB:,.1f} MB in {seconds:.1f} s", file=out)
    print(f"  made at   {rfc3339(header.created_at)} of {host_of(config.storage)}", file=out)
    print(f"  position  {positions.encode({n: head for n, head in enumerate(header.heads) if head})}", file=out)
    print(
        f"  secret    {header.secret} (not in the archive: keep secret.key apart, without it this cannot be read)",
        file=out,
    )
    return 0


async def _noting_header(blocks: AsyncIterator[Block], kept: list[Header]) -> AsyncIterator[Block]:
    async for block in blocks:
        if isinstance(block, Header):
            kept.append(block)
        yield block


async def _verify(args: argparse.Namespace) -> int:
    digests = []
    for place in (args.one, args.other):
        async with _reading(place) as blocks:
            progress = Progress(f"verify {host_of(place)}")
            digests.append(await digest(progress.watch(blocks)))
            progress.finish()
    found = differences(*digests)
    for line in found:
        print(line)
    if found:
        print("hub: they are not the same", file=sys.stderr)
        return 1
    totals = digests[0].totals
    print(
        f"the same: {totals.events:,} events, {totals.keys:,} keys, {totals.documents:,} documents, {totals.claims:,} names"
    )
    return 0


@contextlib.asynccontextmanager
async def _reading(place: str) -> AsyncIterator[AsyncIterator[Block]]:
    if is_archive(place):
        yield read_file(place)
        return
    async with existing(url_of(place)) as store:
        yield read_store(store, secret="", now=SystemClock().now())
