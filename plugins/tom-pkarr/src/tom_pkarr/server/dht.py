"""The Mainline DHT behind a relay: what the relay misses is looked for there, what it takes is published there.

tom-dht-mainline is used if it is installed, by its public names alone, and imported only then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tom_connect.exceptions import NetworkError, RecordError, TomError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_pkarr.core.freshness import check_ahead
from tom_pkarr.core.rules import Packet
from tom_pkarr.errors import PkarrServerError
from tom_pkarr.server.config import PkarrServerConfig
from tom_pkarr.server.store import Kept

if TYPE_CHECKING:
    from tom_dht_mainline import DhtNode, ImmutableItem, MutableItem

    Item = MutableItem | ImmutableItem

logger = logging.getLogger("tom_connect.plugin.pkarr-server")

MAX_LOOKUPS = 64
"""Look-ups at once: each sends some 30 packets."""
MAX_PUBLISHING = 1024
"""Packets that wait to be published; the oldest goes when there are more, and comes again with its owner's next PUT."""
WORKERS = 8
"""Packets that are being published at once."""
PUBLISH_TIMEOUT = 30.0
"""Seconds after which publishing one packet is given up."""
MISSES = 10_000
"""Keys of which it is known that the DHT holds nothing."""
MISS_TTL = 30.0
"""Seconds for which that is believed: who asks for a node that is just starting asks again soon."""


class LookupsBusyError(TomError):
    """More look-ups are running than may."""


class DhtBehind:
    """A DHT node, its look-ups shared by key, and a queue of what is to be published, the newest of each key."""

    def __init__(self, config: PkarrServerConfig, bootstrap: Sequence[str] | None) -> None:
        """Raises ImportError without tom-dht-mainline. `bootstrap`: in place of its own first nodes."""
        from tom_dht_mainline import DEFAULT_BOOTSTRAP, DhtNode, UdpTransport

        self._config = config
        self.node: DhtNode = DhtNode(
            UdpTransport(config.dht_addrs),
            bootstrap=config.bootstrap or bootstrap or DEFAULT_BOOTSTRAP,
            logger=logger,
        )
        self._lookups: dict[bytes, asyncio.Task[Kept | None]] = {}
        self._misses: OrderedDict[bytes, float] = OrderedDict()
        self._queue: OrderedDict[bytes, SignedRecord] = OrderedDict()
        self._active: set[bytes] = set()
        self._wake = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self.lookups = {"found": 0, "missed": 0, "failed": 0, "refused": 0}
        self.published = {"stored": 0, "superseded": 0, "failed": 0, "dropped": 0}

    async def start(self, found: Callable[[SignedRecord], Awaitable[Kept | None]]) -> None:
        """Start the node, without waiting until it has joined. Raises PkarrServerError.

        `found` keeps a record that the DHT turns out to hold; it returns what is kept then.
        """
        self._found = found
        try:
            await self.node.start()
        except (TomError, OSError) as exc:
            raise PkarrServerError(f"the DHT node can't start: {exc}") from None
        self._workers = [asyncio.create_task(self._work(), name="pkarr to dht") for _ in range(WORKERS)]

    async def close(self) -> None:
        """End look-ups and publishing, and close the node."""
        tasks = [*self._workers, *self._lookups.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.node.aclose()

    # Looking up

    async def lookup(self, node_id: NodeId, now: float, at_least: int = 0) -> Kept | None:
        """What is kept once the DHT has shown its first valid record of `at_least` that timestamp; None if it has none.

        Waits `lookup_timeout` at most, while the look-up goes on for who asks next. Raises LookupsBusyError.
        """
        missed = self._misses.get(node_id.raw)
        if missed is not None and now - missed < MISS_TTL:
            return None
        task = self._lookups.get(node_id.raw)
        if task is None:
            if len(self._lookups) >= MAX_LOOKUPS:
                self.lookups["refused"] += 1
                raise LookupsBusyError("more look-ups in the DHT are running than may")
            task = asyncio.create_task(self._look(node_id, now, at_least), name="pkarr from dht")
            self._lookups[node_id.raw] = task
            task.add_done_callback(lambda _: self._lookups.pop(node_id.raw, None))
        await asyncio.wait([task], timeout=self._config.lookup_timeout)
        return task.result() if task.done() and not task.cancelled() else None

    async def _look(self, node_id: NodeId, now: float, at_least: int) -> Kept | None:
        try:
            async with contextlib.aclosing(self.node.get_values(node_id.raw)) as items:
                async for item in items:
                    record = _record(node_id, item)
                    if record is not None and record.timestamp_us >= at_least:
                        self.lookups["found"] += 1
                        return await self._found(record)
        except (TomError, OSError) as exc:
            self.lookups["failed"] += 1
            logger.debug("looking for %r in the DHT failed: %s", node_id, exc)
            return None
        self.lookups["missed"] += 1
        self._misses[node_id.raw] = now
        self._misses.move_to_end(node_id.raw)
        while len(self._misses) > MISSES:
            self._misses.popitem(last=False)
        return None

    # Publishing

    def is_publishing(self, key: bytes) -> bool:
        """Whether a packet of this key is on its way."""
        return key in self._active or key in self._queue

    def publish(self, record: SignedRecord) -> None:
        """Queue a record; it replaces an older one of its key that still waits."""
        self._misses.pop(record.node_id.raw, None)
        self._queue[record.node_id.raw] = record
        if len(self._queue) > MAX_PUBLISHING:
            self._queue.popitem(last=False)
            self.published["dropped"] += 1
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Records that wait to be published."""
        return len(self._queue)

    async def _work(self) -> None:
        while True:
            key = next((key for key in self._queue if key not in self._active), None)
            if key is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            record = self._queue.pop(key)
            self._active.add(key)
            try:
                await self._publish(record)
            finally:
                self._active.discard(key)
                self._wake.set()  # a newer one of the same key may wait

    async def _publish(self, record: SignedRecord) -> None:
        from tom_dht_mainline import MutableItem, SupersededError

        item = MutableItem.create(record.node_id.raw, record.dns_packet, record.timestamp_us, record.signature)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self.node.put(item)
            self.published["stored"] += 1
        except SupersededError as exc:
            self.published["superseded"] += 1
            newer = _record(record.node_id, exc.item)
            if newer is not None:
                await self._found(newer)
        except (NetworkError, TomError, TimeoutError, OSError) as exc:
            self.published["failed"] += 1
            logger.info("publishing %r in the DHT failed: %s", record.node_id, exc or "no answer in time")
        except Exception:  # one packet must not end the worker
            self.published["failed"] += 1
            logger.exception("publishing in the DHT failed")


def _record(node_id: NodeId, item: Item | None) -> SignedRecord | None:
    """The record in a DHT item; None for what is none."""
    from tom_dht_mainline import MutableItem

    if not isinstance(item, MutableItem) or item.salt or not isinstance(item.value, bytes):
        return None
    try:
        return SignedRecord(node_id, item.signature, item.seq, item.value)
    except RecordError:
        return None


def is_usable(record: SignedRecord, wall: float, max_ahead: float) -> bool:
    """Whether a record from the DHT may be kept by the rules for what is put."""
    try:
        Packet.of(record)
        check_ahead(record.timestamp_us, wall, max_ahead)
    except RecordError:
        return False
    return True
