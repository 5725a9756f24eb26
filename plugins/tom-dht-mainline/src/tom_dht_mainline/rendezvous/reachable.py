"""Being reachable: says how to call us, polls for calls, and reads what is sealed."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tom_connect.abc import Call
from tom_connect.addr import SocketAddr
from tom_connect.exceptions import NetworkError
from tom_dht_mainline.core import (
    DhtError,
    DhtUsageError,
    Event,
    Family,
    ItemError,
    MailboxOperation,
    MutableItem,
    PeersNamed,
    mutable_target,
)
from tom_dht_mainline.core.bencode import encode
from tom_dht_mainline.core.rendezvous.call import Nonce, nonces, open_call
from tom_dht_mainline.core.rendezvous.callee import Callee
from tom_dht_mainline.core.rendezvous.invitation import SALT, Filtering, Invitation
from tom_dht_mainline.errors import SupersededError
from tom_dht_mainline.service import DhtService

REPUBLISH: Final = 3600.0
"""Seconds after which the invitation is published again, with another key: nodes may drop items after two hours."""
RETRY: Final = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Seconds after each failure to publish it."""
ANNOUNCE_AGAIN: Final = 2400.0
"""Seconds between announcements of our own in the mailbox, by which nodes attest our IP to callers."""
NODES: Final = 8
BUSY_FOR: Final = 10.0
"""Seconds until polling is tried again where the node had no room for it."""
MAX_NONCES: Final = 8
"""Sealed calls that wait to be fetched; each costs a look-up."""
FETCH_EVERY: Final = 1.0
"""Seconds between two of them at least."""
FETCH_WITHIN: Final = 6.0
ATTEST_WITHIN: Final = 3.0
"""Seconds that a sealed call waits for other nodes to say that its IP called."""
MAX_READ: Final = 1024


class Reachable:
    """Our side as a callee; `calls` gets what is found. Each coroutine of it runs until cancelled."""

    def __init__(self, service: DhtService, calls: asyncio.Queue[Call | None], callee: Callee | None = None) -> None:
        self._service = service
        self._calls = calls
        self._callee = callee or Callee(mutable_target(service.ctx.node_id.raw), os.urandom)
        self._keys = [X25519PrivateKey.generate()]
        """The key that we publish, and the one before."""
        self._nonces: asyncio.Queue[tuple[Nonce, X25519PrivateKey]] = asyncio.Queue(MAX_NONCES)
        self._read: OrderedDict[Nonce, None] = OrderedDict()
        self._moved = asyncio.Event()
        self._changed = asyncio.Event()
        """Something that the invitation says may be otherwise."""
        self._named = asyncio.Event()
        self._watch: MailboxOperation | None = None
        service.calls = "not invited yet"

    def network_changed(self) -> None:
        """The network is another one: say so, and be called there."""

    def _offer(self, call: Call) -> None:
        if not self._calls.full():
            self._calls.put_nowait(call)

    # Polling

    async def watch(self) -> None:
        """Poll the mailbox, wherever it is."""
        while True:
            await self._service.node.ready()
            self._moved.clear()
            try:
                await self._watch_one(self._callee.mailbox)
            except DhtUsageError as exc:
                # As many operations as there may be are under way.
                self._service.ctx.logger.info("calls are not looked for now: %s", exc)
                await asyncio.sleep(BUSY_FOR)

    async def _watch_one(self, mailbox: bytes) -> None:
        """Poll one mailbox and be announced in it, until it is another one."""
        node, interval = self._service.node, self._service.poll_interval
        self._watch = watch = node.begin(lambda core, now: core.watch_mailbox(mailbox, interval, now), self._heard)
        try:
            while not self._moved.is_set():
                await node.announced(mailbox)
                try:
                    async with asyncio.timeout(ANNOUNCE_AGAIN):
                        await self._moved.wait()
                except TimeoutError:
                    pass
        finally:
            self._watch = None
            node.cancel(watch)

    def _heard(self, event: Event | None) -> None:
        if not isinstance(event, PeersNamed):
            return
        now = time.monotonic()
        own = [address for family in Family if (address := self._service.node.external_address(family)) is not None]
        for caller in self._callee.named(event.node, event.peers, own, now):
            for address in caller.addrs:
                self._service.exclude(address)
            addrs = tuple(SocketAddr(*address) for address in caller.addrs)
            self._offer(Call(addrs, None, (caller.host,) if caller.attested else ()))
        self._look_for_nonces(event)
        self._named.set()
        if self._callee.crowded(event.node, event.peers, now):
            self._moved.set()
            self._changed.set()

    def _look_for_nonces(self, event: PeersNamed) -> None:
        for host, ports in self._callee.ports(event.peers).items():
            for key in self._keys:
                for nonce in nonces(key.public_key().public_bytes_raw(), host, ports):
                    if nonce in self._read or self._nonces.full():
                        continue
                    self._read[nonce] = None
                    if len(self._read) > MAX_READ:
                        self._read.popitem(last=False)
                    self._nonces.put_nowait((nonce, key))
                    # Who calls must be attested by several nodes; asking them in turn would take too long.
                    self._service.node.poll_all(self._watch)

    async def read(self) -> None:
        """Fetch sealed calls and open them."""
        while True:
            nonce, key = await self._nonces.get()
            began = time.monotonic()
            try:
                async with asyncio.timeout(FETCH_WITHIN):
                    content = await self._fetch(nonce, key)
            except (TimeoutError, NetworkError, DhtError) as exc:
                self._service.ctx.logger.debug("a call of %s was not read: %s", nonce.ip, exc)
                content = None
            if content is not None:
                self._offer(Call((), content, (nonce.ip,) if await self._attested(nonce.ip) else ()))
            await asyncio.sleep(max(0.0, began + FETCH_EVERY - time.monotonic()))

    async def _fetch(self, nonce: Nonce, key: X25519PrivateKey) -> bytes | None:
        """What a sealed call says, None where there is none that opens: others may have put something there too."""
        public = nonce.signing_key(key.public_key().public_bytes_raw()).public_key().public_bytes_raw()

        content: bytes | None = None

        def opens(item: MutableItem) -> bool:
            nonlocal content
            try:
                content = open_call(nonce, key, item.value)
            except ItemError as exc:
                self._service.ctx.logger.debug("a call of %s is refused: %s", nonce.ip, exc)
                return False
            return True

        async for _ in self._service.node.get_values(public, wanted=opens):
            break
        return content

    async def _attested(self, ip: str) -> bool:
        try:
            async with asyncio.timeout(ATTEST_WITHIN):
                while not self._callee.is_attested(ip):
                    self._named.clear()
                    await self._named.wait()
        except TimeoutError:
            return False
        return True

    # How to call us

    def invitation(self) -> Invitation:
        """What we have to say about being called."""
        seen = self._service.node.external_address(Family.IPV4)
        differ = seen is not None and seen[1] == 0
        return Invitation(
            mailbox=self._callee.mailbox,
            interval=self._service.poll_interval,
            nodes=NODES,
            key=self._keys[0].public_key().public_bytes_raw(),
            filtering=Filtering.OPEN if seen is not None and _is_ours(seen[0]) else Filtering.FILTERED,
            ports_differ=differ,
            ip=seen[0] if seen is not None and differ else None,
        )

    async def publish(self) -> None:
        """Keep our invitation in the DHT."""
        node = self._service.node
        self._service.on_external(self._changed.set)
        await node.ready()
        said: Invitation | None = None
        due, failures = time.monotonic(), 0
        while True:
            # What is said of our NAT is known once enough nodes have told where they see us.
            if any(node.external_address(family) is not None for family in Family):
                now = time.monotonic()
                if said is not None and now >= due and not failures:
                    self._keys = [X25519PrivateKey.generate(), self._keys[0]]
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
            wait = max(0.0, due - time.monotonic()) if said is not None or failures else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def _put(self, invitation: Invitation) -> None:
        seq = max(int(self._service.ctx.clock.wall() * 1e6), self._service.last_published(SALT) + 1)
        try:
            await self._put_as(invitation, seq)
        except SupersededError as exc:
            # Our own clock ran ahead once, or another program of ours has the same key.
            newer = exc.item or await self._service.node.get(self._service.ctx.node_id.raw, SALT)
            if not isinstance(newer, MutableItem):
                raise
            await self._put_as(invitation, newer.seq + 1)

    async def _put_as(self, invitation: Invitation, seq: int) -> None:
        self._service.note_published(seq, SALT)
        encoded = encode(invitation.encode())
        signature = self._service.ctx.signer.sign_mutable_item(SALT, seq, encoded)
        await self._service.node.put(MutableItem(self._service.ctx.node_id.raw, encoded, seq, signature, SALT))


def _is_ours(host: str) -> bool:
    """Whether this machine itself has the address at which others see it, so that no NAT stands before it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
