"""Calls through the DHT: ours are announced where nodes look, and theirs are found by polling (see docs/reference)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tom_connect.abc import Call, Callee, Rendezvous
from tom_connect.addr import SocketAddr
from tom_connect.exceptions import NetworkError
from tom_connect.keys import NodeId
from tom_connect.netreport.interfaces import network_state

from .core import (
    AnnounceOperation,
    DhtCore,
    DhtError,
    Event,
    Family,
    Finished,
    MutableItem,
    PeersNamed,
    Stored,
    mutable_target,
)
from .core.bencode import encode
from .core.rendezvous.callee import Callee as CalleeState
from .core.rendezvous.invitation import SALT, Filtering, Invitation, decode_invitation
from .errors import SupersededError
from .service import DhtService

REPUBLISH: Final = 3600.0
"""Seconds after which the invitation is published again, with another key: nodes may drop items after two hours."""
RETRY: Final = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Seconds after each failure to publish it."""
MAX_QUEUED: Final = 64
RING_AFTER: Final = 2700.0
"""Seconds for which nodes name an announcement: who calls again within them announces another port besides, or it would
not be seen."""
MAX_RUNG: Final = 1024


class DhtRendezvous(Rendezvous):
    """Leaves calls by announcing our address, from the endpoint's own socket, where the callee polls."""

    name = "dht"
    serverless = True

    def __init__(self, service: DhtService) -> None:
        self._service = service
        self._callee = CalleeState(mutable_target(service.ctx.node_id.raw), os.urandom)
        self._key = X25519PrivateKey.generate()
        self._queue: asyncio.Queue[Call | None] = asyncio.Queue(MAX_QUEUED)
        self._moved = asyncio.Event()
        self._changed = asyncio.Event()
        """Something that the invitation says may be otherwise."""
        self._tasks: list[asyncio.Task[None]] = []
        self._called: dict[NodeId, float] = {}

    async def start(self) -> None:
        """Start the node if it does not run yet, and be reachable."""
        await self._service.acquire(self)
        self._service.calls = "not invited yet"
        spawn = self._service.ctx.create_task
        self._tasks = [
            spawn(self._watch(), "polling for calls"),
            spawn(self._publish(), "publishing how to call us"),
        ]

    async def aclose(self) -> None:
        """Be reachable no more; close the node if nobody else uses it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
        await self._service.release(self)

    def network_changed(self) -> None:
        """Be found at the new place: tokens, nodes and external addresses are others there."""
        if self._service.is_running:
            self._service.node.network_changed()

    # Being called

    async def calls(self) -> AsyncIterator[Call]:
        """See `Rendezvous`."""
        while (call := await self._queue.get()) is not None:
            yield call

    async def _watch(self) -> None:
        node = self._service.node
        interval = self._service.config.rendezvous_poll
        while True:
            self._moved.clear()
            mailbox = self._callee.mailbox
            await node.ready()
            operation = node.begin(lambda core, now: core.watch_mailbox(mailbox, interval, now), self._on_event)  # noqa: B023 - it is called at once
            try:
                await self._moved.wait()
            finally:
                node.cancel(operation)

    def _on_event(self, event: Event | None) -> None:
        if not isinstance(event, PeersNamed):
            return
        now = time.monotonic()
        own = [address for family in Family if (address := self._service.node.external_address(family)) is not None]
        for caller in self._callee.named(event.node, event.peers, own, now):
            addrs = tuple(SocketAddr(*address) for address in caller.addrs)
            for address in caller.addrs:
                self._service.exclude(address)
            self._offer(Call(addrs, None, (caller.host,) if caller.attested else ()))
        if self._callee.crowded(event.peers, now):
            self._moved.set()
            self._changed.set()

    def _offer(self, call: Call) -> None:
        if not self._queue.full():
            self._queue.put_nowait(call)

    # How to call us

    def invitation(self) -> Invitation:
        """What we have to say about being called."""
        node = self._service.node
        seen = node.external_address(Family.IPV4)
        differ = seen is not None and seen[1] == 0
        return Invitation(
            mailbox=self._callee.mailbox,
            interval=self._service.config.rendezvous_poll,
            nodes=8,
            key=self._key.public_key().public_bytes_raw(),
            filtering=Filtering.OPEN if seen is not None and _is_ours(seen[0]) else Filtering.FILTERED,
            ports_differ=differ,
            ip=seen[0] if seen is not None and differ else None,
        )

    async def _publish(self) -> None:
        node = self._service.node
        self._service.on_external(self._changed.set)
        await node.ready()
        said: Invitation | None = None
        due, failures = time.monotonic(), 0
        while True:
            # What is said of our NAT is known once enough nodes have told where they see us.
            if node.external_address(Family.IPV4) is not None or node.external_address(Family.IPV6) is not None:
                now = time.monotonic()
                if said is not None and now >= due and not failures:
                    self._key = X25519PrivateKey.generate()
                invitation = self.invitation()
                if now >= due or (invitation != said and not failures):
                    try:
                        await self._put(invitation)
                    except (NetworkError, DhtError) as exc:
                        self._service.ctx.logger.info("how to call us was not published: %s", exc)
                        due = now + RETRY[min(failures, len(RETRY) - 1)]
                        failures += 1
                    else:
                        said, due, failures = invitation, now + REPUBLISH, 0
                        self._service.calls = f"invited, polled every {invitation.interval:g} s"
            self._changed.clear()
            wait = max(0.0, due - time.monotonic()) if said is not None or failures else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _put(self, invitation: Invitation) -> None:
        seq = max(int(self._service.ctx.clock.wall() * 1e6), self._service.last_published(SALT) + 1)
        try:
            await self._put_as(invitation, seq)
        except SupersededError as exc:
            newer = exc.item or await self._service.node.get(self._service.ctx.node_id.raw, SALT)
            if not isinstance(newer, MutableItem):
                raise
            await self._put_as(invitation, newer.seq + 1)

    async def _put_as(self, invitation: Invitation, seq: int) -> None:
        self._service.note_published(seq, SALT)
        encoded = encode(invitation.encode())
        signature = self._service.ctx.signer.sign_mutable_item(SALT, seq, encoded)
        await self._service.node.put(
            MutableItem(self._service.ctx.node_id.raw, encoded, seq, signature, SALT), wait_for="quorum"
        )

    # Calling

    async def call(
        self, node_id: NodeId, sealed: bytes, opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """See `Rendezvous`."""
        await self._service.node.ready()
        target = mutable_target(node_id.raw)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._announce(node_id, target, opened), name="announcing a call")
            group.create_task(self._ask(node_id, target, opened, learned), name="asking how to call")

    async def _announce(self, node_id: NodeId, mailbox: bytes, opened: asyncio.Event) -> None:
        node = self._service.node
        # Meanwhile the nodes and their tokens are gathered, so that announcing takes one packet each.
        looking = node.begin(lambda core, now: core.get_peers(mailbox, now), lambda _event: None)
        try:
            await opened.wait()
        finally:
            node.cancel(looking)
        now = time.monotonic()
        again = now - self._called.pop(node_id, -RING_AFTER) < RING_AFTER
        self._called[node_id] = now
        if len(self._called) > MAX_RUNG:
            del self._called[next(iter(self._called))]
        await self._announce_port(mailbox, None)
        if again:
            # Our address stands there already: only another entry tells that this is a call.
            await self._announce_port(mailbox, 1 + int.from_bytes(os.urandom(2), "big") % 65535)

    async def _announce_port(self, mailbox: bytes, port: int | None) -> None:
        node = self._service.node

        def start(core: DhtCore, now: float) -> AnnounceOperation:
            return core.announce_peer(mailbox, port or node.local_addrs[0].port, now, implied_port=port is None)

        await node.run(start, lambda event: isinstance(event, (Stored, Finished)))

    async def _ask(
        self, node_id: NodeId, target: bytes, opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        mailbox = target
        async for item in self._service.node.get_values(node_id.raw, SALT):
            try:
                invitation = decode_invitation(item.value)
            except DhtError as exc:
                self._service.ctx.logger.debug("an unreadable invitation of %s: %s", node_id.short(), exc)
                continue
            filtered = None if invitation.filtering is Filtering.UNKNOWN else invitation.filtering is Filtering.FILTERED
            learned(Callee(filtered=filtered, ports_differ=invitation.ports_differ))
            if invitation.mailbox != mailbox:
                mailbox = invitation.mailbox
                await opened.wait()
                await self._announce_port(mailbox, None)


def _is_ours(host: str) -> bool:
    """Whether this machine itself has the address at which others see it, so that no NAT stands before it."""
    try:
        return any(address.host == host for address in network_state().addresses)
    except OSError:
        return False


__all__ = ["DhtRendezvous"]
