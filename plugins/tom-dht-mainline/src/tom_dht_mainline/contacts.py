"""The contacts of one endpoint: what is left for them alone, and what they have left for us."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import attrs

from tom_connect.abc import PluginContext
from tom_connect.exceptions import NetworkError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord

from .config import DhtConfig
from .core import DhtError, MutableItem
from .core.rendezvous.contacts import PURPOSE, ROOM, Kind, Place, day_of, days_of, place
from .errors import DhtPutError, SupersededError
from .node import DhtNode

PRICE = 24
"""Contacts whose publication costs as many packets as the polls themselves: those are fewer in that proportion."""
AT_ONCE = 4
"""Places that are written at the same time."""
_MAX_SEQ = 2**63 - 1


class Contacts:
    """Those whom the configuration names. Each names us too: it finds us, and we find it, at places of the pair's."""

    def __init__(self, ctx: PluginContext, config: DhtConfig, node: DhtNode) -> None:
        self._ctx = ctx
        self._node = node
        self.ids: tuple[NodeId, ...] = tuple(each for each in config.contact_ids if each != ctx.node_id)
        self.only = config.contacts_only
        """Whether nobody but them is told anything."""
        self._shared: dict[NodeId, bytes] = {}
        self._seq = 0

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self.ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def slower(self) -> float:
        """How many times longer each place is left alone between two polls, so that no more packets are sent."""
        mailboxes = 2 if self.ids and not self.only else 1
        return mailboxes * (1 + len(self.ids) / PRICE)

    def _place(self, contact: NodeId, kind: Kind, owner: NodeId, day: int) -> Place:
        shared = self._shared.get(contact)
        if shared is None:
            shared = self._shared[contact] = self._ctx.signer.shared_secret(contact, PURPOSE)
        return place(shared, kind, owner.raw, day)

    def theirs(self, contact: NodeId, kind: Kind) -> Place:
        """Where a contact has left something for us."""
        return self._place(contact, kind, contact, day_of(self._ctx.clock.wall()))

    async def put(self, kind: Kind, content: bytes) -> int:
        """Leave something for all of them; on how many nodes that is which has the fewest.

        Raises DhtPutError if none of them can find it.
        """
        days = days_of(self._ctx.clock.wall())
        places = [self._place(contact, kind, self._ctx.node_id, day) for contact in self.ids for day in days]
        turns = asyncio.Semaphore(AT_ONCE)
        outcomes = await asyncio.gather(*(self._put(each, content, turns) for each in places), return_exceptions=True)
        stored = [self._stored(each) for each in outcomes]
        if not any(stored):
            raise DhtPutError("nothing could be left for any contact; the log says what became of each")
        return min(stored)

    def _stored(self, outcome: int | BaseException) -> int:
        if isinstance(outcome, (NetworkError, DhtError)):
            # One of them may have locked its own place: that is no matter of the others.
            self._ctx.logger.info("a contact may not find us: %s", outcome)
            return 0
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _put(self, where: Place, content: bytes, turns: asyncio.Semaphore) -> int:
        async with turns:
            try:
                return (await self._node.put(where.item(content, self._next_seq(), os.urandom(12)))).acknowledged
            except SupersededError as exc:
                # Our own clock was ahead once, or the contact wants to be left alone: the place is as much its own.
                newer = exc.item or await self._node.get(where.public_key)
                if not isinstance(newer, MutableItem) or newer.seq >= _MAX_SEQ:
                    raise
                return (await self._node.put(where.item(content, newer.seq + 1, os.urandom(12)))).acknowledged

    def _next_seq(self) -> int:
        self._seq = max(int(self._ctx.clock.wall() * 1e6), self._seq + 1)
        return self._seq

    async def publish(self, record: SignedRecord) -> int:
        """Leave our record for them; see `put`."""
        return await self.put(Kind.RECORD, fitting(record, self._ctx.signer.sign_record).relay_payload())


def fitting(record: SignedRecord, sign: Callable[..., SignedRecord]) -> SignedRecord:
    """A record that can be sealed: where it is too long, what counts least is left out, as records have it."""
    addr = record.addr
    while len(record.relay_payload()) > ROOM:
        if len(addr.relay_urls) > 1:
            addr = attrs.evolve(addr, relay_urls=addr.relay_urls[:-1])
        elif addr.direct_addrs:
            addr = attrs.evolve(addr, direct_addrs=addr.direct_addrs[:-1])
        else:
            break
        record = sign(addr, record.timestamp_us)
    return record
