"""One run: a world, a load, one fault, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback

import msgspec
import uvloop

from tests.faults.catalogue import Fault
from tests.faults.evidence import gather
from tests.faults.load import Load
from tests.faults.service import Normal, full_from
from tests.faults.world import World, running_world

BASELINE_S = 4.0
STEADY_S = 4.0
RECOVER_TIMEOUT_S = 90.0
LOOK_EVERY_S = 0.25


class Outcome(msgspec.Struct, kw_only=True):
    """A row of the table, and what explains it. Times in seconds, memory in bytes."""

    fault: str
    home: str
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    uncertain: int = 0
    full_service_s: float | None = None
    """None: not within the time a run waits."""
    longest_wait_s: float = 0.0
    longest_wait_for: str = ""
    long_waits: list[str] = []
    peak_bytes: int = 0
    normal_rate: float = 0.0
    normal_p95_s: float = 0.0
    timeline: list[int] = []
    """Messages acknowledged in each second from the fault on."""
    refusals: dict[str, int] = {}
    problems: list[str] = []
    log: str = ""
    """The end of the hub's log, where something was wrong."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.reordered or self.problems) and self.full_service_s is not None


def run(fault: Fault, home: str) -> Outcome:
    """Never raises for what the hub did: that is in `problems`."""
    outcome = Outcome(fault=fault.key, home=home)
    try:
        with running_world(home, fault.needs) as world:
            try:
                uvloop.run(_under_load(world, fault, outcome))
            finally:
                outcome.peak_bytes = world.peak_bytes
                if not outcome.clean:
                    outcome.log = world.hub.log()[-6000:]
    except Exception as error:
        outcome.problems.append(f"{type(error).__name__}: {error}"[:2000] or traceback.format_exc()[-2000:])
    return outcome


async def _under_load(world: World, fault: Fault, outcome: Outcome) -> None:
    load = Load(world.urls, patience_s=fault.patience_s)
    await load.provider.open(world.provider_port, world.host)
    weighing = asyncio.get_running_loop().create_task(_weigh(world))
    try:
        await load.start()
        began = time.monotonic()
        await asyncio.sleep(BASELINE_S)
        normal = Normal(load.record.acks, began, time.monotonic())
        outcome.normal_rate, outcome.normal_p95_s = normal.rate, normal.p95_s
        struck = time.monotonic()
        await fault.strike(world)
        counted_from = time.monotonic() if fault.outage else struck
        outcome.full_service_s = await _recovered(load, normal, world.healed_at or counted_from)
        if world.healed_at is not None and outcome.full_service_s is not None:
            while_it_lasted = full_from(load.record.acks, normal, struck, world.healed_at)
            took_s = world.healed_at - struck if while_it_lasted is None else while_it_lasted
            outcome.full_service_s = max(took_s, outcome.full_service_s)
        seconds = range(int(time.monotonic() - struck) + 1)
        outcome.timeline = [sum(struck + n <= ack.at < struck + n + 1 for ack in load.record.acks) for n in seconds]
        late = await load.finish()
        if late:
            outcome.problems.append(f"{late} writers never got their last message acknowledged")
        await _compare(world, load, outcome)
    finally:
        weighing.cancel()
        _tell_record(load, fault, outcome)
        await load.close()


async def _weigh(world: World) -> None:
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(world.weigh)
        await asyncio.sleep(LOOK_EVERY_S)


async def _recovered(load: Load, normal: Normal, since: float) -> float | None:
    """Watch until service has been full for a while."""
    watched_from = time.monotonic()
    while (now := time.monotonic()) - watched_from < RECOVER_TIMEOUT_S:
        full = full_from(load.record.acks, normal, since, now)
        if full is not None and now - max(since + full, watched_from) >= STEADY_S:
            return full
        await asyncio.sleep(LOOK_EVERY_S)
    return None


async def _compare(world: World, load: Load, outcome: Outcome) -> None:
    evidence = await gather(load, world.urls)
    for name in ("acknowledged", "lost", "doubled", "reordered", "uncertain"):
        setattr(outcome, name, getattr(evidence, name))
    outcome.problems += evidence.problems[:20]


def _tell_record(load: Load, fault: Fault, outcome: Outcome) -> None:
    record = load.record
    outcome.longest_wait_s, outcome.longest_wait_for = record.longest_wait_s, record.longest_wait_for
    outcome.long_waits = record.long_waits
    outcome.refusals = dict(record.refusals)
    if fault.felt_as and fault.felt_as not in record.refusals:
        outcome.problems.append(f"nobody was refused with {fault.felt_as!r}: the fault was not felt")
    for code, count in record.errors.items():
        outcome.problems.append(f"{count} callers were told {code!r}, which says not to try again")
