"""One look-up of a node: every source asked in its turn, everything found as it is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

import attrs

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.exceptions import NetworkError, TomError
from tom_connect.keys import NodeId

MAX_FOUND = 64
"""Answers of all sources together that one look-up takes; a source that goes on and on is stopped there."""


@attrs.define
class SourceOutcome:
    """What became of one source. `seconds`: how long it took, None while it is still at it."""

    source: str
    found: int = 0
    failure: str | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        after = "still searching" if self.seconds is None else f"after {self.seconds:.1f} s"
        if self.failure is not None:
            return f"{self.source}: {self.failure} ({after})"
        if not self.found:
            return f"{self.source}: nothing found ({after})"
        return f"{self.source}: {self.found} {'address' if self.found == 1 else 'addresses'} found ({after})"


class Lookup:
    """`async with Lookup(...) as lookup: async for found in lookup: ...`; leaving the block cancels what still runs.

    A source whose `stage` is later begins that many seconds after the start, or as soon as all earlier ones have ended
    with nothing. A source that fails is reported through `report(name, exception)` and noted in `outcomes`; the others
    go on. Newer records of a source that come late are given too, older ones are left out.
    """

    def __init__(
        self,
        node_id: NodeId,
        sources: Sequence[tuple[str, Discovery]],
        *,
        report: Callable[[str, BaseException], None],
    ) -> None:
        self._node_id = node_id
        self._sources = sorted(sources, key=lambda pair: pair[1].stage)
        self._report = report
        self.outcomes: list[SourceOutcome] = [SourceOutcome(d.name or name) for name, d in self._sources]
        self._found: asyncio.Queue[FoundAddr | None] = asyncio.Queue()
        self._total = 0
        self._newest: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: list[asyncio.Event] = [asyncio.Event() for _ in self._sources]

    async def __aenter__(self) -> Self:
        self._started = asyncio.get_running_loop().time()
        for index in range(len(self._sources)):
            task = asyncio.create_task(self._ask(index), name=f"discovery by {self.outcomes[index].source}")
            self._tasks.append(task)
        if not self._tasks:
            self._found.put_nowait(None)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[FoundAddr]:
        return self

    async def __anext__(self) -> FoundAddr:
        found = await self._found.get()
        if found is None:
            self._found.put_nowait(None)
            raise StopAsyncIteration
        return found

    async def _ask(self, index: int) -> None:
        name, discovery = self._sources[index]
        outcome = self.outcomes[index]
        loop = asyncio.get_running_loop()
        try:
            await self._turn(index)
            results = discovery.resolve(self._node_id)
            try:
                async for found in results:
                    if self._take(outcome, found):
                        break
            finally:
                aclose = getattr(results, "aclose", None)
                if aclose is not None:
                    await aclose()
        except NetworkError as exc:
            outcome.failure = str(exc)
        except TomError as exc:
            outcome.failure = str(exc)
            self._report(name, exc)
        except Exception as exc:  # a plugin may raise anything, and the others go on
            outcome.failure = f"{type(exc).__name__}: {exc}"
            self._report(name, exc)
        finally:
            outcome.seconds = loop.time() - self._started
            self._ended[index].set()
            if all(event.is_set() for event in self._ended):
                self._found.put_nowait(None)

    async def _turn(self, index: int) -> None:
        """Wait for the source's stage, or until every source before it has ended without finding anything."""
        delay = self._sources[index][1].stage
        if delay <= 0:
            return
        try:
            async with asyncio.timeout(delay):
                for event in self._ended[:index]:
                    await event.wait()
                if any(outcome.found for outcome in self.outcomes[:index]):
                    await asyncio.Event().wait()
        except TimeoutError:
            pass

    def _take(self, outcome: SourceOutcome, found: FoundAddr) -> bool:
        """Pass an answer on; True once there have been enough."""
        if not isinstance(found, FoundAddr) or found.addr.node_id != self._node_id:
            raise TypeError("a discovery source must give FoundAddr of the node that was asked for")
        newest = self._newest.get(outcome.source)
        if found.timestamp_us is not None:
            if newest is not None and found.timestamp_us < newest:
                return False
            self._newest[outcome.source] = found.timestamp_us
        outcome.found += len(found.addr.direct_addrs) + len(found.addr.relay_urls)
        self._found.put_nowait(found)
        self._total += 1
        return self._total >= MAX_FOUND
