"""Virtual time, and processes in it.

The loop never waits: where nothing is ready it jumps to the next timer. Whatever is started in the context
of a `Process` can be stopped (SIGSTOP) or killed (SIGKILL) between any two of its steps; a killed process never
runs another line, not even a `finally`.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tests.simulation.network import Network

T = TypeVar("T")
PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
EPOCH_MS = 1_764_000_000_000


class Deadlock(Exception):
    """Nothing is ready and no timer is set: the simulated world would stand still for ever."""


class Spinning(Exception):
    """Far too many steps without time passing: somebody is in a busy loop."""


STEPS_MAX_AT_ONE_INSTANT = 20_000


class _Selector:
    """Stands in for the operating system: waiting is a jump in time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.steps = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self._loop.now_s += timeout
            self.steps = 0
        self.steps += 1
        if self.steps > STEPS_MAX_AT_ONE_INSTANT:
            raise Spinning(f"at {self._loop.now_s:.3f}s")
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-7
        self.network: Network | None = None

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        assert self.network is not None
        return self.network.listen(protocol_factory)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        assert self.network is not None
        return await self.network.connect(protocol_factory, port)

    def calm_down(self) -> None:
        """Whoever was spinning has been stopped."""
        self._selector.steps = 0

    def time(self) -> float:
        return self.now_s

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        context = options.get("context")
        process = PROCESS.get() if context is None else context.get(PROCESS)
        task = super().create_task(coro, **options)
        if process is not None:
            process.tasks.add(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        if process.dead:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon(process.step, callback, args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, process.step, callback, args, context=context)


class VirtualClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return EPOCH_MS + int(self._loop.now_s * 1000)


class ProcessDied(Exception):
    """The called process was killed before it answered: what it did is unknown."""


class Process:
    """One simulated operating-system process. `role` is what it is called in every life, such as `shard-1`."""

    def __init__(self, name: str, loop: VirtualLoop, role: str = "") -> None:
        self.name = name
        self.role = role or name
        self.dead = False
        self._paused = False
        self._loop = loop
        self._stopped: list[tuple[contextvars.Context, Any, Any]] = []
        self._replies: dict[asyncio.Future[Any], None] = {}
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._corpses: list[asyncio.Task[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def step(self, callback: Any, args: Any) -> None:
        if self.dead:
            return
        if self._paused:
            self._stopped.append((contextvars.copy_context(), callback, args))
            return
        callback(*args)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._loop.create_task(coroutine, context=self.context)

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` in this process and bring its outcome back into the caller's."""
        if self.dead:
            raise ProcessDied(self.name)
        reply: asyncio.Future[T] = self._loop.create_future()
        self._replies[reply] = None
        self.spawn(self._serve(work, reply))
        try:
            return await reply
        finally:
            self._replies.pop(reply, None)

    async def _serve(self, work: Callable[[], Coroutine[Any, Any, T]], reply: asyncio.Future[T]) -> None:
        try:
            outcome = await work()
        except Exception as error:
            if not reply.done():
                reply.set_exception(error)
        else:
            if not reply.done():
                reply.set_result(outcome)

    def kill(self) -> None:
        self.dead = True
        # Held until the end: a coroutine that is collected runs its `finally`, which a killed process would not.
        self._corpses = [task for task in self.tasks if not task.done()]
        self._stopped.clear()
        for reply in list(self._replies):
            if not reply.done():
                reply.set_exception(ProcessDied(self.name))
        if self._loop.network is not None:
            self._loop.network.died(self)

    def bury(self) -> None:
        """The run is over: let go of what was still under way, quietly."""
        if not self.dead:
            self.kill()
        for task in self._corpses:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.context.copy().run(task.get_coro().close)  # type: ignore[union-attr]
        self._corpses.clear()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            stopped, self._stopped = self._stopped, []
            for context, callback, args in stopped:
                self._loop.call_soon(callback, *args, context=context)

    @property
    def paused(self) -> bool:
        return self._paused


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, such as those of the memory store."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("it waited")
