"""One look-up of a node: every source asked in its turn, everything found as it is found, for all who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import attrs

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.discovery.health import SourceHealth, hedge
from tom_connect.discovery.merging import from_future, merged
from tom_connect.exceptions import NetworkError, TomError
from tom_connect.keys import NodeId
from tom_connect.watch import Watch

MAX_FOUND = 64
"""Answers of all sources together that one look-up takes; a source that goes on and on is stopped there."""


@attrs.define
class SourceOutcome:
    """What became of one source.

    `began`, `seconds`: seconds after the start of the look-up at which it was asked and at which it was done, None
    while that has not been; `first`: when it had its first answer; `stale`: answers left out as others had newer ones;
    `skipped`: why it was not asked; `empty`: it was asked, and knows nothing of the node.
    """

    source: str
    found: int = 0
    failure: str | None = None
    seconds: float | None = None
    began: float | None = None
    first: float | None = None
    stale: int = 0
    skipped: str | None = None
    empty: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing more will come of it."""
        return self.seconds is not None or self.skipped is not None

    def __str__(self) -> str:
        if self.skipped is not None:
            return f"{self.source}: not asked, {self.skipped}"
        after = "still searching" if self.seconds is None else f"after {self.seconds:.1f} s"
        if self.failure is not None:
            return f"{self.source}: {self.failure} ({after})"
        if not self.found:
            older = "only an older record than others have" if self.stale else "nothing found"
            return f"{self.source}: {older} ({after})"
        return f"{self.source}: {self.found} {'address' if self.found == 1 else 'addresses'} found ({after})"


class Lookup:
    """`async with Lookup(...) as lookup: async for found in lookup: ...`; who leaves last cancels what still runs.

    Several may be in it at once: each that iterates gets everything from the beginning. A source whose `stage` is later
    begins after its hedge (see `health.hedge`), or as soon as each earlier one has ended with nothing, is not ready, or
    was silent or out of date the last time. A source that fails is reported through `report(name, exception)` and noted
    in `outcomes`; the others go on. A record older than one that is known already is left out. `skip`: source names
    that are not asked, with the reason; `wall`: seconds since 1970.
    """

    def __init__(
        self,
        node_id: NodeId,
        sources: Sequence[tuple[str, Discovery]],
        *,
        report: Callable[[str, BaseException], None],
        health: Mapping[str, SourceHealth] | None = None,
        skip: Mapping[str, str] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.node_id = node_id
        self.found: list[FoundAddr] = []
        """Everything so far."""
        self.ended = False
        """Whether nothing more will come."""
        self._sources = sorted(sources, key=lambda pair: pair[1].stage)
        self._report = report
        self.outcomes: list[SourceOutcome] = [SourceOutcome(d.name or name) for name, d in self._sources]
        health = health or {}
        self._health = [health.get(outcome.source) or SourceHealth() for outcome in self.outcomes]
        self._skip = skip or {}
        self._wall = wall
        self._newest: _Newest | None = None
        self._users = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._moves = Watch(0)

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._users == 1:
            self._start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0:
            await self.cancel()

    def __aiter__(self) -> AsyncIterator[FoundAddr]:
        return _Reader(self)

    @property
    def users(self) -> int:
        """Those who are in it now."""
        return self._users

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return asyncio.get_running_loop().time() - self._started

    def merged(self) -> FoundAddr | None:
        """What everything so far comes to."""
        return merged(self.found)

    async def cancel(self) -> None:
        """Stop, whoever waits; they get what was found."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._finish()

    def _start(self) -> None:
        self._started = asyncio.get_running_loop().time()
        for index, outcome in enumerate(self.outcomes):
            outcome.skipped = self._skip.get(outcome.source)
            if outcome.skipped is None:
                task = asyncio.create_task(self._ask(index), name=f"discovery by {outcome.source}")
                self._tasks.append(task)
        if not self._tasks:
            self._finish()

    def _finish(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._moves.set(self._moves.value + 1)

    async def moved(self) -> None:
        """Wait until something more was found, a source is done, or the look-up has ended."""
        await self._moves.other_than(self._moves.value)

    async def _ask(self, index: int) -> None:
        name, discovery = self._sources[index]
        outcome, health = self.outcomes[index], self._health[index]
        loop = asyncio.get_running_loop()
        try:
            await self._turn(index)
            outcome.began = self.elapsed
            health.ask(loop.time())
            results = discovery.resolve(self.node_id)
            try:
                async for found in results:
                    if self._take(index, found):
                        break
            finally:
                aclose = getattr(results, "aclose", None)
                if aclose is not None:
                    await aclose()
            if not outcome.found:
                health.had_nothing()
                outcome.empty = not outcome.stale
        except asyncio.CancelledError:
            if self.found and outcome.began is not None and not outcome.found:
                health.outrun(self.elapsed - outcome.began)
            raise
        except NetworkError as exc:
            self._failed(index, str(exc))
        except TomError as exc:
            self._failed(index, str(exc))
            self._report(name, exc)
        except Exception as exc:  # a plugin may raise anything, and the others go on
            self._failed(index, f"{type(exc).__name__}: {exc}")
            self._report(name, exc)
        finally:
            outcome.seconds = self.elapsed
            if all(each.done for each in self.outcomes):
                self._finish()
            else:
                self._wake()

    def _failed(self, index: int, why: str) -> None:
        self.outcomes[index].failure = why
        self._health[index].failed(asyncio.get_running_loop().time())

    async def _turn(self, index: int) -> None:
        """Wait for the source's turn, or until no source before it is worth waiting for."""
        discovery = self._sources[index][1]
        if discovery.stage <= 0:
            return
        earlier = [i for i in range(index) if self._sources[i][1].stage < discovery.stage]
        if not discovery.stage_is_fixed:
            earlier = [i for i in earlier if self._is_ready(i)]
        while True:
            waited = [i for i in earlier if self.outcomes[i].found or not self.outcomes[i].done]
            if not waited:
                return
            healths = [self._health[i] for i in waited]
            due = hedge(discovery.stage, self._health[index], healths, fixed=discovery.stage_is_fixed)
            try:
                async with asyncio.timeout(due - self.elapsed):
                    await self.moved()
            except TimeoutError:
                return

    def _is_ready(self, index: int) -> bool:
        name, discovery = self._sources[index]
        if self._health[index].silent or self._health[index].outdated:
            return False
        try:
            return discovery.ready
        except Exception as exc:  # a plugin may raise anything, and the others go on
            self._report(name, exc)
            return False

    def _take(self, index: int, found: FoundAddr) -> bool:
        """Pass an answer on; True once there have been enough."""
        outcome = self.outcomes[index]
        if not isinstance(found, FoundAddr) or found.addr.node_id != self.node_id:
            raise TypeError("a discovery source must give FoundAddr of the node that was asked for")
        if from_future(found, int(self._wall() * 1e6)):
            raise NetworkError("its record is from the future: a clock is wrong, ours or the node's")
        if found.timestamp_us is not None and not self._is_newest(index, found, found.timestamp_us):
            outcome.stale += 1
            return outcome.stale >= MAX_FOUND
        if outcome.first is None:
            outcome.first = self.elapsed
            began = outcome.began or 0.0
            self._health[index].answered(outcome.first - began, first=not self.found)
        outcome.found += len(found.addr.direct_addrs) + len(found.addr.relay_urls)
        self.found.append(found)
        self._wake()
        return len(self.found) >= MAX_FOUND

    def _is_newest(self, index: int, found: FoundAddr, timestamp_us: int) -> bool:
        """Whether no answer so far was signed later; notes of its source and the other whether they keep up."""
        other, health = self._newest, self._health[index]
        if other is None:
            self._newest = _Newest(index, timestamp_us, found.addr)
            return True
        newer = timestamp_us >= other.timestamp_us
        if index != other.index:
            # The same address signed at another time is no news: each publisher signs for itself.
            moved = found.addr != other.addr
            health.outdated = moved and not newer
            self._health[other.index].outdated = moved and newer
        if newer:
            self._newest = _Newest(index, timestamp_us, found.addr)
        return newer


@attrs.frozen
class _Newest:
    """The newest signed answer so far, and whose it is."""

    index: int
    timestamp_us: int
    addr: NodeAddr


class _Reader(AsyncIterator[FoundAddr]):
    # A class and not an async generator, so that one abandoned in the middle leaves nothing to be closed.

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._next = 0

    async def __anext__(self) -> FoundAddr:
        lookup = self._lookup
        while self._next >= len(lookup.found):
            if lookup.ended:
                raise StopAsyncIteration
            await lookup.moved()
        self._next += 1
        return lookup.found[self._next - 1]
