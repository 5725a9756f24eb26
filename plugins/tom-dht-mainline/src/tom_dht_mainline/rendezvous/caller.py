"""Calling: announces our address where the callee polls, and leaves a sealed call where that says too little."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tom_connect.abc import Callee
from tom_connect.keys import NodeId
from tom_dht_mainline.core import DhtError, Event, Family, mutable_target
from tom_dht_mainline.core.rendezvous.call import draw_nonce, item_of, seal_call
from tom_dht_mainline.core.rendezvous.callee import ATTESTED_BY
from tom_dht_mainline.core.rendezvous.contacts import Kind, Place
from tom_dht_mainline.core.rendezvous.invitation import SALT, Filtering, Invitation, decode_invitation
from tom_dht_mainline.errors import DhtPutError, DhtUnreachableError
from tom_dht_mainline.service import DhtService

RING_AFTER: Final = 2700.0
"""Seconds for which nodes name an announcement: who calls again within them announces another port besides, or it would
not be seen."""
MAX_RUNG: Final = 1024
READ_AGAIN: Final = (3.0, 3.0, 4.0, 5.0)
"""Seconds after which the invitation is read again while nothing has answered: the mailbox may have been flooded before
the call was found there, and be another one now."""
SEEN_WITHIN: Final = 15.0
"""Seconds in which a node that has just started learns where others see it, without which no sealed call is left."""
KNOWN_FOR: Final = 60.0
"""Seconds for which what a node says of being called is not asked for again."""


class Caller:
    """Our side as a caller."""

    def __init__(self, service: DhtService) -> None:
        self._service = service
        self._seen_anew = asyncio.Event()
        service.on_external(self._seen_anew.set)
        self._called: dict[NodeId, float] = {}
        self._invitations: dict[NodeId, tuple[Invitation, float]] = {}
        """What nodes said last of being called, and when that was found out."""

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """Leave a call, and more of it where a NAT shifts ports. See `Rendezvous.call` for the arguments.

        Raises DhtPutError if no DHT node took it, DhtClosedError.
        """
        await self._service.node.ready()
        if node_id in self._service.contacts and await self._call_contact(node_id, words, opened, learned):
            return
        target = mutable_target(node_id.raw)
        announcing = asyncio.create_task(self._announce(node_id, target, opened), name="announcing a call")
        try:
            invitation = await self._ask(node_id, target, opened, learned)
            await announcing
            if invitation is not None:
                await self._follow(node_id, invitation, words, opened, learned)
        except DhtError as exc:
            raise DhtPutError(f"the call was not left: {exc}") from exc
        finally:
            await _end(announcing)

    async def _call_contact(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> bool:
        """Leave a call where nobody else looks; whether the contact has said where.

        Nothing is announced before: the place under its node id would show to others who calls whom. Raises DhtPutError
        also if it has said nothing, where we tell contacts alone.
        """
        contacts = self._service.contacts
        try:
            place = contacts.theirs(node_id, Kind.INVITATION)
            invitation = await self._ask(node_id, b"", opened, learned, place)
            if invitation is not None:
                await self._follow(node_id, invitation, words, opened, learned, place)
        except DhtError as exc:
            raise DhtPutError(f"the call was not left: {exc}") from exc
        if invitation is None and contacts.only:
            raise DhtPutError(f"{node_id.short()} has left nothing for us; does it name our node id in dht.contacts?")
        return invitation is not None

    async def _follow(
        self,
        node_id: NodeId,
        invitation: Invitation,
        words: Callable[[], bytes],
        opened: asyncio.Event,
        learned: Callable[[Callee], None],
        place: Place | None = None,
    ) -> None:
        """Say more where that is needed, and call again where the node moves to. Who is answered cancels this."""
        saying = asyncio.create_task(self._say_more(invitation, words, learned), name="saying more")
        try:
            for pause in READ_AGAIN:
                await asyncio.sleep(pause)
                newer = await self._ask(node_id, invitation.mailbox, opened, learned, place)
                if newer is not None and (newer.mailbox, newer.key) != (invitation.mailbox, invitation.key):
                    invitation = newer
                    await _end(saying)
                    saying = asyncio.create_task(self._say_more(invitation, words, learned), name="saying more")
            await saying
        finally:
            await _end(saying)

    async def say(self, node_id: NodeId, sealed: bytes) -> None:
        """Leave a sealed call for a node that has been called. Raises DhtPutError, DhtClosedError."""
        await self._service.node.ready()
        try:
            invitation, seen = await self._latest(node_id), self._seen()
            if invitation is None or seen is None:
                raise DhtPutError("nothing more can be said: how to call the node, or our own address, is not known")
            await self._leave_sealed(invitation, seen[0], sealed)
        except DhtError as exc:
            raise DhtPutError(f"what the call says was not left: {exc}") from exc

    async def _latest(self, node_id: NodeId) -> Invitation | None:
        """What a node said last of being called, asked for again if that is old."""
        invitation, found_at = self._invitations.get(node_id, (None, 0.0))
        if invitation is not None and time.monotonic() - found_at <= KNOWN_FOR:
            return invitation
        contacts, opened = self._service.contacts, asyncio.Event()
        opened.set()
        if node_id in contacts:
            place = contacts.theirs(node_id, Kind.INVITATION)
            invitation = await self._ask(node_id, b"", opened, _nothing_new, place)
            if invitation is not None or contacts.only:
                return invitation
        return await self._ask(node_id, mutable_target(node_id.raw), opened, _nothing_new)

    def _seen(self) -> tuple[str, int] | None:
        return self._service.node.external_address(Family.IPV4)

    async def _seen_soon(self) -> tuple[str, int] | None:
        try:
            async with asyncio.timeout(SEEN_WITHIN):
                while (seen := self._seen()) is None:
                    self._seen_anew.clear()
                    await self._seen_anew.wait()
        except TimeoutError:
            return None
        return seen

    async def _announce(self, node_id: NodeId, mailbox: bytes, opened: asyncio.Event) -> None:
        node = self._service.node
        # The look-up of the record, which is under way, gathers the tokens, so that announcing takes a packet a node.
        await opened.wait()
        now = time.monotonic()
        again = now - self._called.pop(node_id, -RING_AFTER) < RING_AFTER
        self._called[node_id] = now
        if len(self._called) > MAX_RUNG:
            del self._called[next(iter(self._called))]
        announced = await node.announced(mailbox)
        if not announced.acknowledged:
            raise DhtPutError("no DHT node took the call")
        if again:
            # Our address stands there already: only another entry tells that this is a call.
            await node.announced(mailbox, 1 + int.from_bytes(os.urandom(2), "big") % 65535)

    async def _ask(
        self,
        node_id: NodeId,
        target: bytes,
        opened: asyncio.Event,
        learned: Callable[[Callee], None],
        place: Place | None = None,
    ) -> Invitation | None:
        """Find out how the node is to be called; the last that it said. `target`: the mailbox that is announced in.

        `place`: where a contact has said it to us alone.
        """
        invitation = None
        node = self._service.node
        stream = node.get_values(node_id.raw, SALT) if place is None else node.get_values(place.public_key)
        while True:
            try:
                item = await anext(stream)
            except (StopAsyncIteration, DhtUnreachableError):
                # Nodes that hold no items take announcements all the same.
                return invitation
            try:
                invitation = decode_invitation(item.value if place is None else place.open(item.value))
            except DhtError as exc:
                self._service.ctx.logger.debug("an unreadable invitation of %s: %s", node_id.short(), exc)
                continue
            self._invitations[node_id] = (invitation, time.monotonic())
            if len(self._invitations) > MAX_RUNG:
                del self._invitations[next(iter(self._invitations))]
            filtered = None if invitation.filtering is Filtering.UNKNOWN else invitation.filtering is Filtering.FILTERED
            learned(Callee(filtered=filtered, ports_differ=invitation.ports_differ))
            if invitation.mailbox != target:
                target = invitation.mailbox
                if place is not None:
                    await self._announce(node_id, target, opened)
                    continue
                await opened.wait()
                await self._service.node.announced(target)

    async def _leave_sealed(
        self, invitation: Invitation, ip: str, sealed: bytes, read_soon: Callable[[], None] | None = None
    ) -> None:
        """Leave a sealed call; `read_soon` is called when the callee is about to find it."""
        node = self._service.node
        nonce = draw_nonce(invitation.key, ip, os.urandom(4))
        value = seal_call(nonce, invitation.key, sealed, X25519PrivateKey.generate())
        await node.put(item_of(nonce, invitation.key, value))
        await node.announced(invitation.mailbox, nonce.port)
        if read_soon is not None:
            read_soon()
        await node.announced(invitation.mailbox, nonce.check)

    async def _say_more(
        self, invitation: Invitation, words: Callable[[], bytes], learned: Callable[[Callee], None]
    ) -> None:
        """Where one of the NATs, not both, shifts ports, an address says too little: leave the sealed call too."""
        node, seen = self._service.node, await self._seen_soon()
        if seen is None or (seen[1] == 0) is invitation.ports_differ:
            return
        looking = node.begin(lambda core, now: core.get_peers(invitation.mailbox, now), _ignore)
        told: set[str] = set()

        def tell() -> None:
            attested = {ip for ip, networks in looking.named_by.items() if len(networks) >= ATTESTED_BY} - told
            if invitation.ports_differ:
                # Others that call it are attested there too.
                attested &= {invitation.ip or ""}
            told.update(attested)
            learned(Callee(ports_differ=invitation.ports_differ, attested=tuple(attested), told=True))

        def read_soon() -> None:
            # The callee probes as soon as a node has named both ports to it; if it is we who open sockets, they must be
            # open by then.
            if not invitation.ports_differ:
                tell()

        try:
            await self._leave_sealed(invitation, seen[0], words(), read_soon)
        finally:
            node.cancel(looking)
        tell()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _nothing_new(callee: Callee) -> None:
    """The call has told it already."""


def _ignore(event: Event | None) -> None:
    """What the look-up has found is read from it at its end."""


__all__ = ["Caller"]
