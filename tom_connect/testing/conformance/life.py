"""What holds for every object that a hook returns: how it comes, goes, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from tom_connect.abc import PluginObject
from tom_connect.plugins.host import CLOSE_TIMEOUT, START_TIMEOUT
from tom_connect.testing.conformance import rules
from tom_connect.testing.conformance.measuring import MAX_BLOCK, TRIES, Stopwatch, unblocked
from tom_connect.testing.conformance.rules import ConformanceError, Rule
from tom_connect.testing.footprint import Footprint
from tom_connect.testing.plugincontext import LentContext

O = TypeVar("O", bound=PluginObject)  # noqa: E741 - the object that a hook returned
T = TypeVar("T")

Make = Callable[[LentContext], O | Iterable[O] | None]

_HANGS: Final = 10.0
_TURNS: Final = (0, 1, 2, 5, 20)
"""Turns of the loop after which what runs is cancelled: before it began, and at its first waits."""


class Trial(Generic[O]):
    """One implementation under check; `async with`, then run it as often as needed."""

    settle = 10.0
    """Seconds that what was closed or cancelled gets to be gone: the other end of a socket may be slower than ours."""

    def __init__(self, kind: type[O], make: Make[O], timeout: float) -> None:
        self.timeout = timeout
        self._kind = kind
        self._make = make
        self._makings: list[float] = []
        self._closings: list[float] = []
        self._unhandled: list[str] = []
        self._gone: list[LentContext] = []

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._handler = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._note)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        gc.collect()
        self._loop.set_exception_handler(self._handler)
        if exc is None and self._unhandled:
            raise ConformanceError(rules.NOTHING_UNHANDLED, self._unhandled[0])

    def was_prompt(self) -> None:
        """ConformanceError if the factory, or aclose(), took too long each time.

        The best counts: a first one imports modules, another is hit by a machine that has other things to do.
        """
        if min(self._makings) > MAX_BLOCK:
            raise ConformanceError(rules.FACTORY_PROMPT, f"the factory took {min(self._makings):.1f} s at best")
        if min(self._closings) > CLOSE_TIMEOUT:
            raise ConformanceError(rules.CLOSES_SOON, f"aclose() took {min(self._closings):.1f} s at best")

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        origin = context.get("task") or context.get("future") or context.get("handle") or ""
        self._unhandled.append(f"{context['message']} {exc!r} {origin!r}".strip())

    def made(self, ctx: LentContext) -> O:
        """A new object; ConformanceError if it is none."""
        if not isinstance(ctx, LentContext):
            raise TypeError(f"context() must give what plugin_context makes, not a {type(ctx).__name__}")
        stopwatch = Stopwatch()
        returned: object = asked(rules.KIND, "the factory", lambda: self._make(ctx))
        self._makings.append(stopwatch.elapsed())
        if not isinstance(returned, self._kind):
            if asyncio.iscoroutine(returned):
                returned.close()  # else Python warns that it was never awaited
            objects = list(returned) if isinstance(returned, list | tuple) else []
            if len(objects) != 1 or not isinstance(objects[0], self._kind):
                seen = f"the factory returned {returned!r}; expected one {self._kind.__name__}"
                raise ConformanceError(rules.KIND, seen)
            returned = objects[0]
        if not isinstance(returned.name, str):
            raise ConformanceError(rules.NAME, f"name is {returned.name!r}")
        return returned

    @contextlib.asynccontextmanager
    async def running(
        self, *contexts: LentContext, made: Callable[[O, LentContext], None] = lambda obj, ctx: None
    ) -> AsyncIterator[tuple[O, ...]]:
        """A new object for each context, started, and closed as an endpoint does it; nothing may be left then.

        `made` is called with each object before it is started.
        """
        footprint = Footprint()
        pairs: list[tuple[O, LentContext]] = []
        try:
            for ctx in contexts:
                pairs.append((self.made(ctx), ctx))
                made(*pairs[-1])
            for obj, _ in pairs:
                await self._start(obj)
            yield tuple(obj for obj, _ in pairs)
        except BaseException:
            for obj, ctx in pairs:
                with contextlib.suppress(ConformanceError):
                    await self.close(obj, ctx)
            raise
        for obj, ctx in pairs:
            await self.close(obj, ctx)
        for ctx in contexts:
            await self.nothing_left(footprint, ctx)

    async def _start(self, obj: O) -> None:
        try:
            await within(rules.STARTS, START_TIMEOUT, obj.start(), "start()")
        except ConformanceError:
            raise
        except Exception as exc:
            raise ConformanceError(rules.STARTS, f"start() raised {exc!r}") from exc

    async def close(self, obj: O, ctx: LentContext, *, failed: bool = False) -> None:
        """Close an object as an endpoint does, once: tasks first, but of one that did not start they come last."""
        if ctx in self._gone:
            return
        self._gone.append(ctx)
        if not failed:
            await ctx.end_tasks()
        began = time.monotonic()
        try:
            await within(rules.CLOSES_SOON, _HANGS, obj.aclose(), "aclose()")
        except ConformanceError:
            raise
        except Exception as exc:
            raise ConformanceError(rules.CLOSES, f"aclose() raised {exc!r}") from exc
        finally:
            await ctx.end_tasks()
        self._closings.append(time.monotonic() - began)

    async def nothing_left(self, footprint: Footprint, ctx: LentContext) -> None:
        """ConformanceError if a task runs, a socket is open or something failed unseen."""
        left = await footprint.left(sockets=True, within=self.settle)
        if left:
            rule = rules.LEAVES_NO_TASK if left[0].startswith("task") else rules.LEAVES_NO_SOCKET
            raise ConformanceError(rule, ", ".join(left))
        self.nothing_failed(ctx)

    def nothing_failed(self, ctx: LentContext) -> None:
        """ConformanceError if something failed that nobody has seen."""
        gc.collect(1)  # the loop is told of a failed task when the task goes: the young ones are enough for each life
        if self._unhandled:
            raise ConformanceError(rules.NOTHING_UNHANDLED, self._unhandled[0])
        if ctx.failures:
            raise ConformanceError(rules.NOTHING_UNHANDLED, f"a task raised {ctx.failures[0]!r}") from ctx.failures[0]

    async def cancelled(self, rule: Rule, what: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Cancel `work()` at several moments; it must end soon and by the cancellation."""
        for turns in _TURNS:
            for _ in range(TRIES):
                outcome = await self._cancel_after(turns, work)
                if outcome is None:
                    break
            else:
                raise ConformanceError(rule, f"{what}, cancelled after {turns} turns of the loop, {outcome}")

    async def _cancel_after(self, turns: int, work: Callable[[], Coroutine[Any, Any, object]]) -> str | None:
        """What is wrong with how `work()` ended, None if nothing is."""
        task = asyncio.ensure_future(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            await task
            return None
        task.cancel()
        await asyncio.wait({task}, timeout=self.settle)
        if not task.done():
            task.cancel()
            return f"went on for {self.settle:g} s"
        if task.cancelled():
            return None
        return "went on to its end" if task.exception() is None else f"raised {task.exception()!r}"


async def within(rule: Rule, seconds: float, work: Coroutine[Any, Any, T], what: str) -> T:
    """The result of `work`; ConformanceError if it is not there in time."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await work
    except TimeoutError as exc:
        if not scope.expired():
            raise
        raise ConformanceError(rule, f"{what} was not done after {seconds:g} s") from exc


def asked(rule: Rule, what: str, call: Callable[[], T]) -> T:
    """The result of `call()`; ConformanceError if it raises."""
    try:
        return call()
    except Exception as exc:
        raise ConformanceError(rule, f"{what} raised {exc!r}") from exc


async def check_life(trial: Trial[O], context: Callable[[], LentContext]) -> None:
    """Objects that are never started, that are cancelled while they start, and that are closed at once."""
    ctx = context()
    footprint = Footprint()
    obj = trial.made(ctx)
    await trial.close(obj, ctx, failed=True)
    await trial.nothing_left(footprint, ctx)

    for turns in (1, 3):
        ctx = context()
        obj = trial.made(ctx)
        starting = asyncio.ensure_future(obj.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=trial.settle)
            if not starting.done():
                raise ConformanceError(rules.CANCELS, f"start() went on for {trial.settle:g} s after it was cancelled")
        if not starting.cancelled() and starting.exception() is not None:
            raise ConformanceError(rules.STARTS, f"start() raised {starting.exception()!r}")
        await trial.close(obj, ctx, failed=True)
        await trial.nothing_left(footprint, ctx)

    async def one_life() -> None:
        ctx = context()
        async with trial.running(ctx):
            pass

    trial.was_prompt()
    await unblocked(rules.NO_BLOCKING, "start() and aclose()", one_life)


async def check_failed_start(trial: Trial[O], ctx: LentContext, rule: Rule, expected: type[Exception]) -> O | None:
    """Start an object whose source can't be had; the object if it started, None if that failed as it may."""
    footprint = Footprint()
    obj = trial.made(ctx)
    try:
        await within(rules.STARTS, START_TIMEOUT, obj.start(), "start()")
    except ConformanceError:
        raise
    except expected as exc:
        require_reason(rule, "start()", exc)
    except Exception as exc:
        raise ConformanceError(rule, f"start() raised {exc!r}; expected {expected.__name__}") from exc
    else:
        return obj
    await trial.close(obj, ctx, failed=True)
    await trial.nothing_left(footprint, ctx)
    return None


def require_reason(rule: Rule, what: str, exc: Exception) -> None:
    """ConformanceError if an error says nothing."""
    if not str(exc).strip():
        raise ConformanceError(rule, f"{what} raised {type(exc).__name__} without a word")
