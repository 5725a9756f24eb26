"""The asyncio shell of the store: requests that come together share one transaction in a thread of their own.

What a client puts is verified there too: that takes longer than all else, and leaves the event loop to others.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import attrs

from tom_pkarr.core.rules import Conditions, Packet, Verdict, read_put
from tom_pkarr.errors import PutError, StoreBusyError
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
_Put = PutOrder | Submission


@attrs.define(eq=False)
class _Waiting:
    puts: list[tuple[_Put, asyncio.Future[Outcome]]] = attrs.Factory(list)
    gets: list[tuple[tuple[bytes, str], asyncio.Future[Kept | None]]] = attrs.Factory(list)

    def __len__(self) -> int:
        return len(self.puts) + len(self.gets)


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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pkarr-store")
        self._waiting = _Waiting()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the store and begin to serve it; raises PkarrServerError."""
        try:
            await self._in_thread(self.store.open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._worker = asyncio.create_task(self._work(), name="pkarr store")

    async def close(self) -> None:
        """Finish what has begun, refuse the rest, and close the store."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
            self._worker = None
            for future in _futures(self._waiting.puts, self._waiting.gets):
                future.cancel()
            await self._in_thread(self.store.close)
        self._thread.shutdown(wait=True)

    def _in_thread(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _accept(self) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise StoreBusyError("more requests wait for the store than it can take")
        self._wake.set()

    async def get(self, key: bytes, z32: str) -> Kept | None:
        """The packet of a key, 32 bytes and its letters; raises StoreError, StoreBusyError."""
        self._accept()
        future: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        self._waiting.gets.append(((key, z32), future))
        return await future

    async def put(self, order: PutOrder | Submission) -> tuple[Verdict, Kept | None]:
        """What became of a packet, and what is held now; raises StoreError, StoreBusyError, PutError for a bad one.

        It is in the store when this returns: a program that crashes then loses nothing, a power cut at most what the
        system had not written yet.
        """
        self._accept()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.puts.append((order, future))
        return await future

    async def expire(self) -> int:
        """Delete what is past its time; raises StoreError."""
        await self._in_thread(functools.partial(self.store.work, [], [], self._hot.take_used(), self._wall()))
        return await self._in_thread(functools.partial(self.store.expire, self._wall()))

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while len(self._waiting):
                await self._batch()

    async def _batch(self) -> None:
        puts, gets = self._waiting.puts[:MAX_BATCH], self._waiting.gets[:MAX_BATCH]
        del self._waiting.puts[:MAX_BATCH], self._waiting.gets[:MAX_BATCH]
        # Who was used matters when packets may have to go, which is when there are new ones.
        used = self._hot.take_used() if puts else ()
        keys = [key for (key, _), _ in gets]
        call = functools.partial(self._work_on, [order for order, _ in puts], keys, used, self._wall())
        futures = _futures(puts, gets)
        try:
            outcomes, found = await self._in_thread(call)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as exc:
            for future in futures:
                if not future.done():
                    future.set_exception(exc)
            return
        for (order, put), outcome in zip(puts, outcomes, strict=True):
            if isinstance(outcome, PutError):
                if not put.done():
                    put.set_exception(outcome)
                continue
            if outcome[1] is not None:
                self._hot.put(order.z32, outcome[1])
            if not put.done():
                put.set_result(outcome)
        for ((_, z32), get), kept in zip(gets, found, strict=True):
            if kept is not None:
                self._hot.put(z32, kept)
            if not get.done():
                get.set_result(kept)

    def _work_on(
        self, puts: Sequence[_Put], gets: Sequence[bytes], used: Collection[bytes], now: float
    ) -> tuple[list[Outcome | PutError], list[Kept | None]]:
        """See `PacketStore.work`; runs in the thread. A put that is refused has its reason for an outcome."""
        checked = [self._checked(put, now) for put in puts]
        stored, found = self.store.work([each for each in checked if isinstance(each, PutOrder)], gets, used, now)
        kept = iter(stored)
        return [next(kept) if isinstance(each, PutOrder) else each for each in checked], found

    def _checked(self, put: _Put, now: float) -> PutOrder | PutError:
        if isinstance(put, PutOrder):
            return put
        try:
            packet = read_put(put.key, put.body, wall=now, max_ahead=self._max_ahead)
        except PutError as exc:
            return exc
        return PutOrder(packet, put.z32, put.conditions, put.publishing)


def _futures(
    puts: Sequence[tuple[object, asyncio.Future[Any]]], gets: Sequence[tuple[object, asyncio.Future[Any]]]
) -> list[asyncio.Future[Any]]:
    return [*(future for _, future in puts), *(future for _, future in gets)]
