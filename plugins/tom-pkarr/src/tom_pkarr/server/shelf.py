"""The asyncio shell of the store: requests that come together share one transaction in a thread of their own.

What a client puts is verified there too: that takes longer than all else, and leaves the event loop to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import attrs

from tom_pkarr.core.rules import Conditions, Packet, Verdict, read_put
from tom_pkarr.errors import PutError, StoreBusyError, StoreError
from tom_pkarr.server.store import Kept, PacketStore, PutOrder

T = TypeVar("T")

MAX_WAITING = 4096
"""Requests that wait for the store; more are refused."""
MAX_BATCH = 128
"""Requests in one transaction: verifying so many takes some 20 ms, and a slow disk makes no one wait for thousands."""
_OVERHEAD = 512
"""Bytes that an entry in memory takes beside its payload, about."""


class HotPackets:
    """The packets that were asked for or put most lately, in memory, by the text of their key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packets: OrderedDict[str, Kept] = OrderedDict()
        self._used: set[bytes] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._packets)

    def get(self, z32: str, earliest: float) -> Kept | None:
        """The packet, unless it was last seen before `earliest` (seconds since 1970)."""
        kept = self._packets.get(z32)
        if kept is None:
            return None
        if kept.seen_at < earliest:
            self.drop(z32)
            return None
        self._packets.move_to_end(z32)
        self._used.add(kept.packet.key)
        return kept

    def put(self, z32: str, kept: Kept) -> None:
        """Keep what the store holds now."""
        self.drop(z32)
        self._packets[z32] = kept
        self.bytes += len(kept.packet.payload) + _OVERHEAD
        while self.bytes > self._limit and self._packets:
            self.drop(next(iter(self._packets)))

    def renew(self, z32: str, packet: Packet, seen_at: float) -> None:
        """Count a packet as seen at that time, unless another has taken its place."""
        kept = self._packets.get(z32)
        if kept is not None and kept.packet == packet:
            self._packets[z32] = Kept(packet, seen_at)

    def drop(self, z32: str) -> None:
        """Forget a packet."""
        kept = self._packets.pop(z32, None)
        if kept is not None:
            self.bytes -= len(kept.packet.payload) + _OVERHEAD

    def take_used(self) -> set[bytes]:
        """The keys that were asked for since the last call, for the store to know."""
        used, self._used = self._used, set()
        return used


@attrs.frozen
class Submission:
    """The body of a PUT for the 32 bytes of a key, not verified; else as in `PutOrder`."""

    key: bytes
    z32: str
    body: bytes
    conditions: Conditions
    publishing: bool


Outcome = tuple[Verdict, Kept | None]


@attrs.frozen(eq=False)
class _Put:
    """`used`: keys that were asked for before; `now`: seconds since 1970, as the relay has them."""

    order: PutOrder | Submission
    used: Collection[bytes]
    now: float
    future: asyncio.Future[Outcome]


@attrs.frozen(eq=False)
class _Get:
    key: bytes
    z32: str
    now: float
    future: asyncio.Future[Kept | None]


@attrs.frozen(eq=False)
class _Call:
    """Anything else that the store is to do, by itself."""

    call: Callable[[], Any]
    future: asyncio.Future[Any]


_Job = _Put | _Get | _Call


class Shelf:
    """Reads and writes packets; `open` before, `close` after.

    `max_ahead`: seconds that a timestamp may lie in the future; `wall` gives seconds since 1970.

    What the store says goes into `hot` here and in its order, whether or not somebody still waits for it: the two
    can't come to differ.
    """

    def __init__(self, store: PacketStore, hot: HotPackets, max_ahead: float, wall: Callable[[], float]) -> None:
        self.store = store
        self._max_ahead = max_ahead
        self._hot = hot
        self._wall = wall
        # The thread takes what waits by itself: an executor's futures, and a task that makes the batches, would cost
        # a lone PUT four turns of the event loop more.
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open: dict[asyncio.Future[Any], None] = {}
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Open the store and begin to serve it; raises PkarrServerError."""
        loop = asyncio.get_running_loop()
        # A daemon, since a program that is torn down without `close` is not to hang.
        self._thread = threading.Thread(target=self._serve, args=(loop,), name="pkarr-store", daemon=True)
        self._thread.start()
        try:
            await self._call(self.store.open)
        except BaseException:
            self._end()
            raise

    async def close(self) -> None:
        """Finish what has begun, refuse the rest, and close the store."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()
        for future in list(self._open):
            future.cancel()
        try:
            await self._call(self.store.close)
        finally:
            self._end()

    def _end(self) -> None:
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    # On the event loop

    def _submit(self, job: _Job) -> None:
        self._open[job.future] = None
        self._inbox.put(job)

    def _call(self, call: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._submit(_Call(call, future))
        return future

    def _future(self) -> asyncio.Future[Any]:
        if self._thread is None:
            raise StoreError("the store is closed")
        if len(self._open) >= MAX_WAITING:
            raise StoreBusyError("more requests wait for the store than it can take")
        return asyncio.get_running_loop().create_future()

    async def get(self, key: bytes, z32: str) -> Kept | None:
        """The packet of a key, 32 bytes and its letters; raises StoreError, StoreBusyError."""
        future: asyncio.Future[Kept | None] = self._future()
        self._submit(_Get(key, z32, self._wall(), future))
        return await future

    async def put(self, order: PutOrder | Submission) -> tuple[Verdict, Kept | None]:
        """What became of a packet, and what is held now; raises StoreError, StoreBusyError, PutError for a bad one.

        It is in the store when this returns: a program that crashes then loses nothing, a power cut at most what the
        system had not written yet.
        """
        future: asyncio.Future[Outcome] = self._future()
        # Who was used matters when packets may have to go, which is when there are new ones.
        self._submit(_Put(order, self._hot.take_used(), self._wall(), future))
        return await future

    async def expire(self) -> int:
        """Delete what is past its time; raises StoreError."""
        await self._call(functools.partial(self.store.work, [], [], self._hot.take_used(), self._wall()))
        return await self._call(functools.partial(self.store.expire, self._wall()))

    def _finish(self, jobs: Sequence[_Job], results: Sequence[Any]) -> None:
        """Take what the store said, an exception where it failed."""
        for job, result in zip(jobs, results, strict=True):
            self._open.pop(job.future, None)
            if isinstance(result, Exception):
                if not job.future.done():
                    job.future.set_exception(result)
                continue
            if isinstance(job, _Put) and result[1] is not None:
                self._hot.put(job.order.z32, result[1])
            elif isinstance(job, _Get) and result is not None:
                self._hot.put(job.z32, result)
            if not job.future.done():
                job.future.set_result(result)

    # In the thread

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while jobs := self._next():
            results = self._results(jobs)
            try:
                loop.call_soon_threadsafe(self._finish, jobs, results)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                return

    def _next(self) -> list[_Job]:
        """Wait for something to do, and take what waits with it; nothing at the end."""
        job = self._inbox.get()
        jobs: list[_Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_BATCH or isinstance(job, _Call):
                break
            try:
                job = self._inbox.get_nowait()
            except queue.Empty:
                break
        else:
            if jobs:
                self._inbox.put(None)  # for the next time
        return jobs

    def _results(self, jobs: Sequence[_Job]) -> list[Any]:
        """What becomes of each: an exception where it failed, and of all puts and gets where the store does."""
        puts = [job for job in jobs if isinstance(job, _Put)]
        gets = [job for job in jobs if isinstance(job, _Get)]
        stored: Iterator[object] = iter(())
        held: Iterator[object] = iter(())
        if puts or gets:
            try:
                outcomes, found = self._work_on(puts, gets)
                stored, held = iter(outcomes), iter(found)
            except Exception as exc:
                stored = held = itertools.repeat(exc)
        return [
            next(stored) if isinstance(job, _Put) else next(held) if isinstance(job, _Get) else _called(job)
            for job in jobs
        ]

    def _work_on(
        self, puts: Sequence[_Put], gets: Sequence[_Get]
    ) -> tuple[list[Outcome | PutError], list[Kept | None]]:
        """See `PacketStore.work`. A put that is refused has its reason for an outcome."""
        now = max([put.now for put in puts] + [get.now for get in gets])
        checked = [self._checked(put.order, now) for put in puts]
        used = {key for put in puts for key in put.used}
        orders = [each for each in checked if isinstance(each, PutOrder)]
        stored, found = self.store.work(orders, [get.key for get in gets], used, now)
        kept = iter(stored)
        return [next(kept) if isinstance(each, PutOrder) else each for each in checked], found

    def _checked(self, put: PutOrder | Submission, now: float) -> PutOrder | PutError:
        if isinstance(put, PutOrder):
            return put
        try:
            packet = read_put(put.key, put.body, wall=now, max_ahead=self._max_ahead)
        except PutError as exc:
            return exc
        return PutOrder(packet, put.z32, put.conditions, put.publishing)


def _called(job: _Call) -> Any:
    try:
        return job.call()
    except Exception as exc:
        return exc
