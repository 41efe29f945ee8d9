"""What became of every message: the hub's own journal, through REST, against what the load was told and shown."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from typing import Any

import httpx
import msgspec

from bench.words import find
from tests.faults.load import TENANTS, Load
from tests.faults.writers import ReplyWriter, Writer

PAGE = 200
READ_MAX_AT_ONCE = 8
READ_RETRY_S = 0.2
READ_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 30.0
SETTLE_POLL_S = 0.25


class Evidence(msgspec.Struct):
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    uncertain: int = 0
    """Replies of which the hub says itself that the provider may or may not have them."""
    problems: list[str] = []

    def compare(self, where: str, acked: dict[int, int], found: dict[int, list[int]]) -> None:
        """Each writer's messages 0 … acked-1 must be there once, in that order. One more may be: its answer got lost."""
        for writer, count in acked.items():
            there = found.get(writer, [])
            missing = set(range(count)) - set(there)
            doubled = len(there) - len(set(there))
            first_seen = list(dict.fromkeys(there))
            reordered = sum(a > b for a, b in itertools.pairwise(first_seen))
            self.lost += len(missing)
            self.doubled += doubled
            self.reordered += reordered
            if missing or doubled or reordered:
                text = f"{where}, writer {writer}: {len(missing)} lost, {doubled} doubled, {reordered} reordered"
                self.problems.append(f"{text}; missing {sorted(missing)[:5]}" if missing else text)


class Journal(msgspec.Struct):
    """What the REST API shows: each writer's messages by seq, gaps in seq, the status of each reply."""

    found: dict[int, list[int]] = {}
    statuses: dict[tuple[int, int], str] = {}
    gaps: list[str] = []


async def gather(load: Load, urls: list[str]) -> Evidence:
    """The load has finished writing; wait for what is still on its way, then compare."""
    evidence = Evidence()
    acked = {writer.number: writer.acked for writer in load.writers}
    evidence.acknowledged = sum(acked.values())
    journal = await _settled_journal(load, urls)
    evidence.compare("journal", acked, journal.found)
    evidence.reordered += len(journal.gaps)
    evidence.problems += journal.gaps
    await _followers_caught_up(load)
    for follower in load.followers:
        mine = load.of_tenant(follower.name.partition("/")[0])
        evidence.compare(f"agent {follower.name}", {w.number: w.acked for w in mine}, follower.seen)
        evidence.reordered += follower.misplaced
        if follower.resyncs:
            evidence.problems.append(f"agent {follower.name} was told {follower.resyncs} times to load anew")
    _compare_provider(load, journal, evidence)
    return evidence


def _compare_provider(load: Load, journal: Journal, evidence: Evidence) -> None:
    """Each reply reached the provider at most once, in order; one that did not is known as uncertain."""
    uncertain = Counter(writer for (writer, _), status in journal.statuses.items() if status == "uncertain")
    evidence.uncertain = sum(uncertain.values())
    for writer in _replying(load.writers):
        received = load.provider.received.get(writer.number, [])
        unsure = {n for n in range(writer.acked) if journal.statuses.get((writer.number, n)) == "uncertain"}
        # Where nobody knows, both are right; everything else must have arrived.
        wanted = [n for n in range(writer.acked) if n not in unsure]
        there = [n for n in received if n not in unsure]
        renumbered = {n: at for at, n in enumerate(wanted)}
        evidence.compare(
            "provider",
            {writer.number: len(wanted)},
            {writer.number: [renumbered.get(n, len(wanted)) for n in there]},
        )


def _replying(writers: list[Writer]) -> list[Writer]:
    return [writer for writer in writers if isinstance(writer, ReplyWriter)]


async def _settled_journal(load: Load, urls: list[str]) -> Journal:
    """Once no reply is on its way any more, or it has been long enough to say that it is stuck."""
    give_up = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        journal = await _read(load, await _answering(urls))
        if not any(status == "queued" for status in journal.statuses.values()) or time.monotonic() > give_up:
            return journal
        await asyncio.sleep(SETTLE_POLL_S)


async def _followers_caught_up(load: Load) -> None:
    give_up = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < give_up:
        for follower in load.followers:
            mine = load.of_tenant(follower.name.partition("/")[0])
            if any(len(set(follower.seen.get(writer.number, ()))) < writer.acked for writer in mine):
                break
        else:
            break
        await asyncio.sleep(SETTLE_POLL_S)
    await asyncio.sleep(SETTLE_POLL_S)  # anything shown twice would come now


# --- reading the hub --------------------------------------------------------------------------------------------------


async def _answering(urls: list[str]) -> str:
    """A gateway that is there."""
    async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(READ_TIMEOUT_S, connect=1)) as http:
        for url in urls:
            with contextlib.suppress(httpx.TransportError):
                await http.get(f"{url}/healthz")
                return url
    raise AssertionError(f"no gateway answers at {', '.join(urls)}")


async def _read(load: Load, url: str) -> Journal:
    journal = Journal()
    for tenant in TENANTS:
        headers = {"X-API-Key": f"{tenant}-key"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=READ_TIMEOUT_S) as http:
            slots = asyncio.Semaphore(READ_MAX_AT_ONCE)
            cursor: str | None = None
            while True:
                page = await _get(http, "/v1/conversations", {"limit": PAGE, **({"cursor": cursor} if cursor else {})})
                ids = [item["id"] for item in page["items"]]
                await asyncio.gather(*(_read_conversation(http, slots, load.mark, id, journal) for id in ids))
                cursor = page["next_cursor"]
                if cursor is None:
                    break
    return journal


async def _read_conversation(
    http: httpx.AsyncClient, slots: asyncio.Semaphore, mark: str, id: str, journal: Journal
) -> None:
    seq = 0
    async with slots:
        while True:
            page = await _get(http, f"/v1/conversations/{id}/messages", {"after": seq, "limit": PAGE})
            for message in page["items"]:
                if message["seq"] != seq + 1:
                    journal.gaps.append(f"conversation {id}: seq {message['seq']} follows {seq}")
                seq = message["seq"]
                _note(journal, message, mark)
            if len(page["items"]) < PAGE:
                return


def _note(journal: Journal, message: dict[str, Any], mark: str) -> None:
    marked = find(message["text"] or "", mark)
    if marked is None:
        return
    journal.found.setdefault(marked[0], []).append(marked[1])
    if message["kind"] == "outbound":
        journal.statuses[marked] = message["status"]


async def _get(http: httpx.AsyncClient, path: str, query: dict[str, Any]) -> Any:
    give_up = time.monotonic() + READ_TIMEOUT_S
    while True:
        try:
            answer = await http.get(path, params=query)
            if answer.status_code < 429:
                answer.raise_for_status()
                return answer.json()
        except httpx.TransportError:
            pass
        if time.monotonic() > give_up:
            raise AssertionError(f"GET {path} was not answered in {READ_TIMEOUT_S} s")
        await asyncio.sleep(READ_RETRY_S)
