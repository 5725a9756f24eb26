"""Packets that disco's page says are refused: a callee written from it sends them to an endpoint that dials."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest

from tests.interop.dialing import PATIENCE, dialing
from tests.interop.rendezvous_callee import left
from tests.interop.rendezvous_callee.dht_node import bootstrap
from tests.interop.rendezvous_callee.lab import Ear, ears, giving, invited
from tests.interop.rendezvous_callee.sealed import Peer, Peers
from tests.interop.rendezvous_parts import disco, formats
from tests.interop.rendezvous_parts.disco import KNOCK, Addr, Seal
from tom_connect import SecretKey

pytestmark = pytest.mark.interop


@dataclass
class Ping:
    """A ping that came: from whom, with what, from where."""

    peer: Peer
    tid: bytes
    packet: bytes
    addr: Addr


@dataclass
class Dialed:
    """A node that is dialed at the address that its record names, and answers as the test likes."""

    key: SecretKey = field(default_factory=SecretKey.generate)
    ear: Ear = field(default_factory=Ear)

    def __post_init__(self) -> None:
        self._peers = Peers(self.key.seed(), self.key.node_id.raw)
        self._read = 0
        self._pings: deque[Ping] = deque()
        self.pongs: list[bytes] = []
        """Transaction ids of those that came."""

    def send(self, packet: bytes, addr: Addr) -> None:
        """From the address that the record names."""
        self.ear.wire.send(packet, addr)

    async def ping(self) -> Ping:
        """The next ping."""
        self._open()
        while not self._pings:
            await self.ear.comes()
            self._open()
        return self._pings.popleft()

    async def pong(self, tid: bytes) -> None:
        """Wait for the pong of a ping of ours."""
        self._open()
        while tid not in self.pongs:
            await self.ear.comes()
            self._open()

    def _open(self) -> None:
        """Read what has come."""
        for packet, addr in self.ear.heard[self._read :]:
            read = self._peers.read(packet) if packet[0] in (4, 5) else None
            match read:
                case (peer, message) if message[0] == disco.PING:
                    self._pings.append(Ping(peer, message[1:13], packet, addr))
                case (_, message) if message[0] == disco.PONG:
                    self.pongs.append(message[1:13])
        self._read = len(self.ear.heard)

    def has_quic(self) -> bool:
        """Whether a packet of QUIC has come: it goes to a proven address only."""
        return any(packet[0] >= 0xC0 for packet, _ in self.ear.heard)

    async def quic(self) -> None:
        """Wait for one."""
        while not self.has_quic():
            await self.ear.comes()


@contextlib.asynccontextmanager
async def dialed() -> AsyncIterator[Dialed]:
    """A node that an endpoint of ours is dialing; it is in the record of a DHT of one node."""
    node = Dialed()
    packet = left.dns_packet(node.key.node_id.raw, [node.ear.addr])
    target, put = formats.signed_item(node.key.seed(), packet, int(time.time() * 1e6))
    with contextlib.closing(node.ear.wire), giving({target: put}) as nodes:
        async with dialing(bootstrap(nodes), node.key.node_id.raw), asyncio.timeout(PATIENCE):
            yield node


def flipped(raw: bytes, at: int = -1) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


Wrong: TypeAlias = Callable[[Seal, bytes], bytes]

#: What is no packet at all, made of a message.
WRONG: dict[str, Wrong] = {
    "tampered": lambda seal, message: flipped(seal.seal(message)),
    "check": lambda seal, message: flipped(seal.seal(message), 18),
    "counter": lambda seal, message: flipped(seal.seal(message), 17),
    "version": lambda seal, message: seal.seal(message, version=2),
    "short": lambda seal, message: seal.seal(message[:-1]),
    "long": lambda seal, message: seal.seal(message.ljust(1200, b"\0")),
    "another's": lambda seal, message: Seal(secrets.token_bytes(32), seal.peer).seal(message),
}


@pytest.mark.parametrize("wrong", [*WRONG, "transaction", "reflected"])
async def test_a_pong_is_refused(wrong: str) -> None:
    """A wrong pong proves no path: our QUIC comes only after the right one."""
    async with dialed() as node:
        ping = await node.ping()
        message = disco.pong(ping.tid, ping.addr)
        if wrong == "transaction":
            answer = ping.peer.seal.seal(disco.pong(flipped(ping.tid), ping.addr))
        elif wrong == "reflected":
            answer = ping.packet
        else:
            answer = WRONG[wrong](ping.peer.seal, message)
        node.send(answer, ping.addr)
        ping = await node.ping()
        assert not node.has_quic()
        node.send(ping.peer.seal.seal(disco.pong(ping.tid, ping.addr)), ping.addr)
        await node.quic()


async def test_a_pong_from_elsewhere_is_refused() -> None:
    """It proves nothing of the address that was asked, which may still answer; the other one is asked itself."""
    async with dialed() as node:
        with ears("elsewhere") as heard:
            ping = await node.ping()
            answer = ping.peer.seal.seal(disco.pong(ping.tid, ping.addr))
            heard["elsewhere"].wire.send(answer, ping.addr)
            await heard["elsewhere"].comes()
            assert {packet[0] for packet, _ in heard["elsewhere"].heard} == {4}
            assert not node.has_quic()
            node.send(ping.peer.seal.seal(disco.pong(ping.tid, ping.addr)), ping.addr)
            await node.quic()


@pytest.mark.parametrize("wrong", [*WRONG, "replayed"])
async def test_a_ping_is_refused(wrong: str) -> None:
    """A wrong ping gets no pong, nor does a right one a second."""
    async with dialed() as node:
        ping = await node.ping()
        seal, there = ping.peer.seal, ping.addr
        tid, after = secrets.token_bytes(12), secrets.token_bytes(12)
        if wrong == "replayed":
            packet = seal.seal(disco.ping(tid))
            node.send(packet, there)
        else:
            packet = WRONG[wrong](seal, disco.ping(tid))
        node.send(packet, there)
        node.send(seal.seal(disco.ping(after)), there)
        await node.pong(after)
        assert node.pongs.count(tid) == (1 if wrong == "replayed" else 0)


@pytest.mark.parametrize("wrong", ["check", "stamp", "version", "length", "elsewhere"])
async def test_a_challenge_is_refused(wrong: str) -> None:
    """A cookie is brought if the check is right and the challenge answers a packet that waits; else it is ignored."""
    cookie = secrets.token_bytes(16)
    async with dialed() as node:
        with ears("elsewhere") as heard:
            ping = await node.ping()
            right = disco.challenge(ping.packet, cookie, node.key.node_id.raw)
            packet = {
                "check": flipped(right, 18),
                "stamp": disco.challenge(flipped(ping.packet, 3), cookie, node.key.node_id.raw),
                "version": flipped(right, 1),
                "length": right + b"\0",
                "elsewhere": right,
            }[wrong]
            (heard["elsewhere"].wire if wrong == "elsewhere" else node.ear.wire).send(packet, ping.addr)
            ping = await node.ping()
            assert ping.packet[0] == 4
            node.send(disco.challenge(ping.packet, cookie, node.key.node_id.raw), ping.addr)
            ping = await node.ping()
            assert ping.packet[0] == 5 and ping.packet[58:74] == cookie
            node.send(ping.peer.seal.seal(disco.pong(ping.tid, ping.addr)), ping.addr)
            await node.quic()


async def test_knocks_are_refused() -> None:
    """Who calls pings where a knock came from, if it is one; of strangers that knock, sixteen."""
    wrong = {"short": KNOCK[:-1], "long": KNOCK + b"\0", "version": b"\7\2" + bytes(14)}
    strangers = [f"stranger {number}" for number in range(20)]
    key = SecretKey.generate()
    target = formats.target(key.node_id.raw)
    with ears(*wrong, *strangers) as heard, giving(invited(key.seed(), target)) as nodes:
        async with dialing(bootstrap(nodes), key.node_id.raw), asyncio.timeout(PATIENCE):
            await nodes[0].asked_for(b"announce_peer", target)
            (caller,) = nodes[0].peers[target]
            for name, packet in wrong.items():
                heard[name].wire.send(packet, caller)
            for name in strangers:
                heard[name].wire.send(KNOCK, caller)
            await heard[strangers[15]].comes()
            await heard[strangers[0]].comes()
        assert [name for name, ear in heard.items() if ear.heard] == strangers[:16]
