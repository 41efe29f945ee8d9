"""`hub restore` and `hub import`: writing an archive, or another store, into an empty one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from actors.rebuild import rebuild
from api.commands.places import (
    config_of,
    data_dir_flag,
    existing,
    folder_of,
    host_of,
    is_archive,
    keyring_of,
    run,
    store_flags,
    target,
    url_of,
)
from api.commands.progress import MB, Progress
from hub import logs, positions
from hub.archive.blocks import ArchiveError, Header
from hub.archive.cut import Cut
from hub.archive.files import check_chain, read_file
from hub.archive.sink import Restored, StoreWriter, check_empty
from hub.archive.source import read_store
from hub.clock import SystemClock, parse_rfc3339, rfc3339
from hub.config import Config, InvalidSetting
from hub.ports import Store
from hub.sealing import Unsealable


def register(commands: Any) -> None:
    restore = commands.add_parser(
        "restore",
        help="make a store from archives, whole or as of an earlier moment",
        description="Make a store from archives. Every checksum is read before anything is written. Outbound messages that the old hub may "
        "have sent after the backup are marked, so that none is sent twice blindly; everybody signs in anew.",
    )
    restore.add_argument(
        "--from",
        required=True,
        nargs="+",
        metavar="FILE",
        dest="files",
        help="a full archive, then those that continue it, in order",
    )
    where = restore.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", metavar="URL|DIR", help="an empty store to write to: its URL, or a data folder")
    where.add_argument(
        "--verify", action="store_true", help="only check that the archives are whole and belong together"
    )
    when = restore.add_mutually_exclusive_group()
    when.add_argument(
        "--position",
        metavar="P",
        help="stop at these offsets, such as 3-1041_7-88 (partition-offset); others are whole",
    )
    when.add_argument(
        "--until", metavar="TIME", help="stop at the first event later than this, such as 2026-01-31T12:00:00Z"
    )
    restore.add_argument(
        "--forget",
        metavar="FILE",
        help="customers whose words stay erased, an id a line: the backup may be older than that",
    )
    _writing_flags(restore)
    data_dir_flag(restore)
    restore.set_defaults(run=run(_restore))
    importing = commands.add_parser(
        "import",
        help="move a store to another home: from an export, or from the other store directly",
        description="Fill an empty store with all of another, the same journal byte for byte. Stop the hub first.",
    )
    importing.add_argument(
        "--from",
        required=True,
        metavar="FILE|URL|DIR",
        dest="source",
        help="an export, or the store to move: its URL or data folder",
    )
    _writing_flags(importing)
    store_flags(importing, "the empty store to fill")
    importing.set_defaults(run=run(_import))


def _writing_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted one; what is there is compared first"
    )
    parser.add_argument(
        "--without-secret", action="store_true", help="the installation's secret is not here; do not check for it"
    )
    parser.add_argument(
        "--without-lists", action="store_true", help="leave it to the first start to make lists from the journal"
    )


async def _restore(args: argparse.Namespace) -> int:
    cut, forget = _cut(args), _forget(args.forget)
    headers = check_chain(args.files)
    newest = headers[-1]
    cut.check(newest)
    config = _target_config(args) if args.to else None
    if config is not None:
        _check_secret(config, newest, skip=args.without_secret)
    await _check_files(args.files)
    if config is None:
        print(
            f"whole: {len(args.files)} archive(s), {sum(h.events for h in headers):,} events, made at {rfc3339(newest.created_at)}"
        )
        return 0
    progress = Progress("restore")
    async with target(config.storage, newest.partitions) as store:
        if not args.resume:
            await check_empty(store)
        writer = StoreWriter(store, cut=cut, forget=forget)
        for name, header in zip(args.files, headers, strict=True):
            await writer.write(progress.watch(read_file(name)), newest=header is newest, documents=False)
        done = await writer.finish(attempts_at=SystemClock().now())
        _report(done, config, progress)
        await _make_lists(store, config, args)
    return 0


def _cut(args: argparse.Namespace) -> Cut:
    if args.position is not None:
        offsets = positions.decode(args.position)
        if offsets is None:
            raise InvalidSetting(f"--position got {args.position!r}, takes partition-offset pairs such as 3-1041_7-88")
        return Cut(offsets)
    if args.until is None:
        return Cut()
    return Cut(until=instant(args.until, "--until"))


def instant(text: str, flag: str) -> int:
    """Epoch ms of what a flag was given. Raises InvalidSetting."""
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise InvalidSetting(f"{flag} got {text!r}, takes an instant such as 2026-01-31T12:00:00Z") from None


def _forget(name: str | None) -> frozenset[str]:
    return frozenset(Path(name).read_text().split()) if name else frozenset()


def _target_config(args: argparse.Namespace) -> Config:
    """Where the secret is sought: in the folder given, else in the folder restored to, where the hub will seek it."""
    url = url_of(args.to)
    folder = folder_of(url)
    data_dir = args.data_dir or (str(folder) if folder is not None else None)
    return config_of(args, storage=url, data_dir=data_dir)


def _check_secret(config: Config, header: Header, *, skip: bool) -> None:
    """A store whose words nobody can read must not look restored. Raises ArchiveError."""
    if skip:
        return
    try:
        found = keyring_of(config).fingerprint
    except InvalidSetting:
        raise ArchiveError(
            f"there is no secret.key in {config.data_dir}; put that of the installation there (fingerprint {header.secret}), "
            "or set HUB_SECRET_KEY, or say --without-secret"
        ) from None
    if found != header.secret:
        raise ArchiveError(
            f"this is another installation's secret: the archive needs {header.secret}, "
            f"{'HUB_SECRET_KEY' if config.secret_key else config.data_dir / 'secret.key'} is {found}"
        )


async def _check_files(names: list[str]) -> None:
    for name in names:
        progress = Progress(f"check {Path(name).name}")
        async for _ in progress.watch(read_file(name)):
            pass
        progress.finish()


def _report(done: Restored, config: Config, progress: Progress) -> None:
    seconds = progress.finish()
    print(f"{host_of(config.storage)}: {done.events:,} events, {progress.bytes / MB:,.1f} MB in {seconds:.1f} s")
    print(f"  position  {positions.encode({n: head for n, head in enumerate(done.heads) if head})}")
    for number, offset in sorted(done.moved.items()):
        print(f"  partition {number} was cut at {offset}, the end of a turn that the position would have parted")
    if done.present:
        print(f"  {done.present:,} of them more were there from the restore that was interrupted")
    if done.erased:
        print(f"  {done.erased:,} keys were erased and stay so")
    if done.attempts:
        print(
            f"  {done.attempts:,} outbound messages may have left since: they are repeated only where the provider knows a repeat"
        )


async def _make_lists(store: Store, config: Config, args: argparse.Namespace) -> None:
    """At once, so that the first start is as quick as any other."""
    if args.without_secret or args.without_lists:
        print("  The first start makes the lists from the journal, before it takes traffic.")
        return
    logs.configure(config.log_level, args.command)
    began = time.monotonic()
    await rebuild(store, keyring_of(config), SystemClock())
    print(f"  lists were made from the journal in {time.monotonic() - began:.1f} s; the store is ready to be served")


async def _import(args: argparse.Namespace) -> int:
    config = config_of(args)
    progress = Progress("import")
    if is_archive(args.source):
        [header] = check_chain([args.source])
        _check_secret(config, header, skip=args.without_secret)
        await _check_files([args.source])
        async with target(config.storage, header.partitions) as store:
            if not args.resume:
                await check_empty(store)
            writer = StoreWriter(store)
            await writer.write(progress.watch(read_file(args.source)))
            _report(await writer.finish(), config, progress)
            await _make_lists(store, config, args)
        return 0
    return await _import_store(args, config, progress)


async def _import_store(args: argparse.Namespace, config: Config, progress: Progress) -> int:
    url = url_of(args.source)
    if url == config.storage:
        raise ArchiveError("the store to fill is the one to move; give --storage or --data-dir of another")
    async with existing(url) as source, target(config.storage, source.partitions) as store:
        if not args.without_secret:
            await _check_keys(source, config)
        if not args.resume:
            await check_empty(store)
        writer = StoreWriter(store)
        await writer.write(progress.watch(read_store(source, secret="", now=SystemClock().now())))
        done = await writer.finish()
        _report(done, config, progress)
        later = sum([await source.journal.head(number) for number in range(source.partitions)]) - sum(done.heads)
        if later:
            raise ArchiveError(f"{later} events came meanwhile; stop the hub, and import again with --resume")
        await _make_lists(store, config, args)
    return 0


async def _check_keys(source: Store, config: Config) -> None:
    """Raises ArchiveError where our secret is not the one that sealed this store."""
    for key in await source.journal.stream_keys("", 1):
        try:
            keyring_of(config).unwrap(key.stream, key.wrapped)
        except Unsealable:
            raise ArchiveError("the store to move was sealed with another secret than ours; see --data-dir") from None
