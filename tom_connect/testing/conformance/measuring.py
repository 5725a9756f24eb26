"""How long the event loop stood still, how long a call took, and how much memory it kept.

A machine that has no time for this process is not the code's fault: where the kernel tells how long this thread had to
wait for a processor (Linux), that is taken off. Of several tries the best counts.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from tom_connect.testing.conformance.rules import ConformanceError, Rule

T = TypeVar("T")

MAX_BLOCK: Final = 0.1
"""Seconds that the loop may stand still: what asyncio's debug mode calls slow, the RTT across an ocean."""
TRIES: Final = 3
"""Tries of which the best counts: a first one imports modules, another is hit by the machine."""
_TICK: Final = 0.005
_SCHEDSTAT: Final = "/proc/thread-self/schedstat"


def _waited_for_processor() -> float:
    """Seconds that this thread was ready and did not run; 0 where the kernel does not tell."""
    try:
        with open(_SCHEDSTAT, "rb") as file:  # noqa: PTH123 - twice a tick: speed
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Stopwatch:
    """The time since it was made, less that in which this thread had no processor."""

    def __init__(self) -> None:
        self._began, self._waited = time.perf_counter(), _waited_for_processor()

    def elapsed(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._began - (_waited_for_processor() - self._waited)


class LoopWatch:
    """`async with LoopWatch() as watch: ...` measures the longest time in which the loop called nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._arm()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._handle.cancel()
        self._look()

    def _arm(self) -> None:
        self._stopwatch = Stopwatch()
        self._handle = self._loop.call_later(_TICK, self._ticked)

    def _look(self) -> None:
        self.longest = max(self.longest, self._stopwatch.elapsed() - _TICK)

    def _ticked(self) -> None:
        self._look()
        self._arm()


async def unblocked(rule: Rule, what: str, work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work()`; ConformanceError if the loop stands still in each of several tries."""
    stood: list[float] = []
    for _ in range(TRIES):
        async with LoopWatch() as watch:
            result = await work()
        if watch.longest <= MAX_BLOCK:
            return result
        stood.append(watch.longest)
    raise ConformanceError(rule, f"{what}: the loop stood still for {min(stood) * 1e3:.0f} ms in each of {TRIES} tries")


def prompt(rule: Rule, what: str, call: Callable[[], T], *, limit: float = MAX_BLOCK) -> T:
    """The result of `call()`; ConformanceError if it takes more than `limit` seconds in each of several tries."""
    took: list[float] = []
    for _ in range(TRIES):
        stopwatch = Stopwatch()
        result = call()
        took.append(stopwatch.elapsed())
        if took[-1] <= limit:
            return result
    raise ConformanceError(rule, f"{what} took {min(took) * 1e3:.2g} ms in each of {TRIES} tries")


class Calls:
    """Calls of one kind that can't be repeated for a better measurement: what they take typically is what counts."""

    def __init__(self) -> None:
        self._took: list[float] = []

    def timed(self, call: Callable[[], T]) -> T:
        """The result of `call()`."""
        stopwatch = Stopwatch()
        try:
            return call()
        finally:
            self._took.append(stopwatch.elapsed())

    def require_prompt(self, rule: Rule, what: str, limit: float) -> None:
        """ConformanceError if half of the calls took more than `limit` seconds."""
        typical = statistics.median(self._took) if self._took else 0.0
        if typical > limit:
            raise ConformanceError(rule, f"{what} took {typical * 1e3:.3g} ms, the median of {len(self._took)} calls")


def kept_bytes(call: Callable[[], object]) -> int:
    """Bytes of Python objects that are there after `call()` and were not before."""
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        call()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        if not traced:
            tracemalloc.stop()
