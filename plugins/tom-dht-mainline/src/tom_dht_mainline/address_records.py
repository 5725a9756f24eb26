"""Address records in the DHT: finding those of others, publishing ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from tom_connect.abc import Discovery, FoundAddr, Publisher, PublishReport
from tom_connect.exceptions import DiscoveryError, NetworkError, RecordError
from tom_connect.keys import NodeId
from tom_connect.record import LEGACY_SALT, LegacyItem, SignedRecord

from .core import DhtError, GetOperation, MutableItem
from .core.bencode import encode
from .core.rendezvous.contacts import Kind, Place
from .errors import SupersededError
from .service import DhtService

MAX_AGE = 24 * 3600.0
"""Seconds: an older record says nothing any more of where a node is."""
MAX_AHEAD = 2 * 3600.0
"""Seconds that a record's timestamp may lie in the future, for wrong clocks; it prolongs a replay by as much."""
LEGACY_DELAY = 0.3
"""Seconds by which the look-up of the legacy item comes later: the record is mostly there by then."""
COLD = 16
"""Nodes in the table with which a look-up or put may start far from its target and end there: it is done again once
more are known."""
_MAX_SEQ = 2**63 - 1


class DhtDiscovery(Discovery):
    """Finds a node's address record: the first valid one at once, newer ones as they come."""

    name = "dht"
    serverless = True

    def __init__(self, service: DhtService) -> None:
        self._service = service

    async def start(self) -> None:
        """Start the node if it does not run yet."""
        await self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the node if nobody else uses it."""
        await self._service.release(self)

    @property
    def ready(self) -> bool:
        """Whether we have joined the DHT: a look-up before that takes as long as joining does, or finds nobody."""
        return self._service.is_running and self._service.node.knows_nodes()

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Addresses from the node's signed record, and from the legacy item of older programs.

        Raises DiscoveryError if no DHT node answered, or if all that they hold is out of date or unreadable.
        """
        node, contacts = self._service.node, self._service.contacts
        place = contacts.theirs(node_id, Kind.RECORD) if node_id in contacts else None
        # Whoever tells contacts alone where it is does not show either whom of them it looks for.
        hidden = place is not None and contacts.only
        newest = -1
        refused: list[str] = []
        known = node.table_size()
        async with await node.values() as stream:

            def look() -> GetOperation:
                if place is not None:
                    operation = stream.add(place.public_key)
                return operation if hidden else stream.add(node_id.raw)

            record = look()
            wants_legacy = self._service.config.read_legacy_item and not hidden
            legacy_due = time.monotonic() + LEGACY_DELAY if wants_legacy else None
            while True:
                try:
                    async with asyncio.timeout(None if legacy_due is None else legacy_due - time.monotonic()):
                        item = await anext(stream)
                except (TimeoutError, StopAsyncIteration):
                    if legacy_due is None:
                        if newest >= 0 or not await self._knows_more(known):
                            break
                        known = COLD
                        record = look()
                        continue
                    legacy_due = None
                    stream.add(node_id.raw, LEGACY_SALT)
                    continue
                try:
                    found = self._read(node_id, item, place)
                except RecordError as exc:
                    refused.append(str(exc))
                    continue
                assert found.timestamp_us is not None
                if found.timestamp_us > newest:
                    newest = found.timestamp_us
                    for addr in found.addr.direct_addrs:
                        self._service.exclude((addr.host, addr.port))
                    yield found
            if newest < 0 and refused:
                raise DiscoveryError(f"the DHT holds no usable record: {refused[-1]}")
            if newest < 0 and hidden and record.replies:
                raise DiscoveryError("it has left nothing for us; does it name our node id among its contacts?")
            if newest < 0 and not any(operation.replies for operation in stream.operations):
                raise DiscoveryError(str(node.unreachable(record)))

    async def _knows_more(self, known: int) -> bool:
        """Whether a look-up that began with few nodes has more to begin with now, once the node has joined."""
        if known >= COLD:
            return False
        await self._service.node.bootstrap()
        return self._service.node.table_size() > known

    def _read(self, node_id: NodeId, item: MutableItem, place: Place | None) -> FoundAddr:
        """Raises RecordError for what is unreadable, too old or too far in the future."""
        value = item.value
        if not isinstance(value, bytes):
            raise RecordError("its value is not a byte string")
        now = self._service.ctx.clock.wall()
        if item.salt:
            legacy = LegacyItem.from_json(node_id, value)
            if legacy.is_stale(now):
                raise RecordError(f"the legacy item is {_age(now, legacy.timestamp_ms / 1e3)}")
            return FoundAddr(legacy.addr, self.name, legacy.timestamp_ms * 1000)
        if place is not None and item.public_key != node_id.raw:
            try:
                record = SignedRecord.from_relay_payload(node_id, place.open(value))
            except DhtError as exc:
                raise RecordError(str(exc)) from None
        else:
            record = SignedRecord(node_id, item.signature, item.seq, value)
        if not -MAX_AHEAD <= now - record.timestamp_us / 1e6 <= MAX_AGE:
            raise RecordError(f"the record is {_age(now, record.timestamp_us / 1e6)}")
        return FoundAddr(record.addr, self.name, record.timestamp_us, record)


def _age(now: float, then: float) -> str:
    hours = (now - then) / 3600
    return f"{hours:.1f} h old" if hours >= 0 else f"dated {-hours:.1f} h ahead of this machine's clock"


class DhtPublisher(Publisher):
    """Stores our address record on the nodes closest to its target, and the legacy item if that is configured.

    DHT nodes drop items after 2 h (BEP 44), so it is published hourly.
    """

    name = "dht"
    serverless = True
    republish_after = 3600.0

    def __init__(self, service: DhtService) -> None:
        self._service = service

    async def start(self) -> None:
        """Start the node if it does not run yet."""
        await self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the node if nobody else uses it."""
        await self._service.release(self)

    async def publish(self, record: SignedRecord) -> PublishReport:
        """Returns when a quorum has stored the record; the rest goes on behind.

        A timestamp that is not above every one published before is raised, and the record signed again.
        Raises DhtUnreachableError or DhtPutError.
        """
        contacts = self._service.contacts
        if contacts.only:
            record = self._risen(record, self._service.last_published() + 1)
            stored = await contacts.publish(record) if contacts else 0
            return PublishReport(self.name, stored, enough=stored >= self._service.config.quorum)
        stored = await self._publish_record(record)
        if contacts:
            try:
                await contacts.publish(record)
            except (NetworkError, DhtError) as exc:
                self._service.ctx.logger.warning("our address was not left for contacts: %s", exc)
        if self._service.config.write_legacy_item:
            try:
                await self._publish_legacy(record)
            except (NetworkError, DhtError) as exc:
                self._service.ctx.logger.warning("the legacy item was not published: %s", exc)
        return PublishReport(self.name, stored, enough=stored >= self._service.config.quorum)

    async def _publish_record(self, record: SignedRecord) -> int:
        try:
            return await self._put(record, self._service.last_published() + 1)
        except SupersededError as exc:
            # Our own clock ran ahead once, or another program of ours has the same key.
            newer = exc.item or await self._service.node.get(record.node_id.raw)
            if not isinstance(newer, MutableItem) or newer.seq >= _MAX_SEQ:
                raise
            return await self._put(record, newer.seq + 1)

    def _risen(self, record: SignedRecord, lowest: int) -> SignedRecord:
        if record.timestamp_us < lowest:
            record = self._service.ctx.signer.sign_record(record.addr, lowest)
        # Noted before it is sent: whatever becomes of this attempt, the next one must be above.
        self._service.note_published(record.timestamp_us)
        return record

    async def _put(self, record: SignedRecord, lowest: int) -> int:
        record = self._risen(record, lowest)
        item = MutableItem(
            public_key=record.node_id.raw,
            encoded=encode(record.dns_packet),
            seq=record.timestamp_us,
            signature=record.signature,
        )
        node = self._service.node
        known = node.table_size()
        stored = (await node.put(item)).acknowledged
        if stored < self._service.config.quorum:
            await node.bootstrap()
            if node.table_size() > known:
                stored = max(stored, (await node.put(item)).acknowledged)
        return stored

    async def _publish_legacy(self, record: SignedRecord) -> None:
        seq = max(record.timestamp_us // 1000, self._service.last_published(LEGACY_SALT) + 1)
        self._service.note_published(seq, LEGACY_SALT)
        encoded = encode(LegacyItem(record.addr, seq).to_json())
        signature = self._service.ctx.signer.sign_mutable_item(LEGACY_SALT, seq, encoded)
        await self._service.node.put(MutableItem(record.node_id.raw, encoded, seq, signature, LEGACY_SALT))
