"""The child that loads a Pkarr relay over HTTP: `python -m benchmarks.pkarr.load_process COUNT`, so many packets.

Its client only writes requests that were made beforehand and looks for the end of an answer: aiohttp's own would take
as much time as the relay that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.interop.peers.lines import serve
from tom_connect.addr import NodeAddr
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import bep44_signable, build_dns_packet
from tom_dht_mainline.core.bencode import decode, encode


@attrs.frozen
class Packet:
    """A node's packet: 32-byte key, its z-base-32 letters, and what a relay carries."""

    key: bytes
    z32: str
    payload: bytes


def make(count: int) -> list[Packet]:
    """Packets of as many nodes, each with a relay and two addresses, 253 bytes."""
    pattern_key = SecretKey.generate()
    addr = NodeAddr(pattern_key.node_id, ("https://relay.example/",), ("203.0.113.7:4433", "[2001:db8::7]:4433"))
    pattern, letters = build_dns_packet(addr), pattern_key.node_id.z32().encode()
    packets = []
    for _ in range(count):
        key = Ed25519PrivateKey.generate()
        raw = key.public_key().public_bytes_raw()
        z32 = NodeId(raw).z32()
        value = pattern.replace(letters, z32.encode())
        timestamp = time.time_ns() // 1000
        signature = key.sign(bep44_signable(b"", timestamp, b"%d:%b" % (len(value), value)))
        packets.append(Packet(raw, z32, signature + timestamp.to_bytes(8, "big") + value))
    return packets


class Link(asyncio.Protocol):
    """One kept connection with one request at a time."""

    def __init__(self) -> None:
        self._answer = bytearray()
        self._done: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._answer += data
        if self._done is not None and not self._done.done() and _is_whole(self._answer):
            self._done.set_result(int(self._answer[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request that waits."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("the relay hung up"))

    async def ask(self, request: bytes) -> int:
        """Send a request and return the status of its answer, once that is whole."""
        self._answer.clear()
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._done


def _is_whole(answer: bytearray) -> bool:
    """Whether an answer is there to its end."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = bytes(answer[:end]).lower()
    at = head.find(b"content-length:")
    if at >= 0:
        size = int(head[at + 15 :].partition(b"\r\n")[0])
        return len(answer) >= end + 4 + size
    return b"chunked" not in head or answer.endswith(b"0\r\n\r\n")


class DhtFiller(asyncio.DatagramProtocol):
    """Puts items at one DHT node: a token for our address, then as many puts as the node bears at a time."""

    def __init__(self) -> None:
        self._replies: dict[bytes, asyncio.Future[dict[bytes, Any]]] = {}
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take a reply; the node's own queries are left unanswered."""
        message = decode(data)
        if isinstance(message, dict):
            waiting = self._replies.pop(cast(bytes, message.get(b"t")), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(cast(dict[bytes, Any], message))

    async def _ask(self, query: bytes, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        number = os.urandom(4)
        message = encode({b"t": number, b"y": b"q", b"q": query, b"a": {b"id": bytes(20), **arguments}})
        for _ in range(20):
            reply = self._replies[number] = asyncio.get_running_loop().create_future()
            self.transport.sendto(message)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(reply, 1.0)
        raise TimeoutError("the DHT node does not answer")

    async def fill(self, packets: Sequence[Packet]) -> None:
        """Put every packet."""
        left = list(packets)
        target = hashlib.sha1(left[0].key, usedforsecurity=False).digest()
        token = (await self._ask(b"get", {b"target": target}))[b"r"][b"token"]

        async def drive() -> None:
            while left:
                packet = left.pop()
                seq, value = int.from_bytes(packet.payload[64:72], "big"), packet.payload[72:]
                item = {b"k": packet.key, b"sig": packet.payload[:64], b"seq": seq, b"v": value, b"token": token}
                reply = await self._ask(b"put", item)
                if reply[b"y"] != b"r":
                    raise RuntimeError(f"the DHT node refuses: {reply}")

        await asyncio.gather(*(drive() for _ in range(32)))


@attrs.define(eq=False)
class Load:
    """The commands. `links` are those to the relay that was named last."""

    packets: list[Packet]
    links: list[Link] = attrs.field(factory=list)

    async def connect(self, host: str, port: int, count: int) -> dict[str, Any]:
        """Open that many connections to a relay, instead of those that there are."""
        for link in self.links:
            link.transport.abort()
        loop = asyncio.get_running_loop()
        self.links = [(await loop.create_connection(Link, host, port))[1] for _ in range(count)]
        return {}

    async def key(self, number: int) -> dict[str, Any]:
        """Return the key of a packet."""
        return {"key": self.packets[number].key.hex()}

    async def fill_dht(self, host: str, port: int, count: int) -> dict[str, Any]:
        """Have a DHT node hold the first packets, by KRPC."""
        loop = asyncio.get_running_loop()
        _, filler = await loop.create_datagram_endpoint(DhtFiller, remote_addr=(host, port))
        try:
            await filler.fill(self.packets[:count])
        finally:
            filler.transport.close()
        return {}

    async def put(self, first: int, count: int, at_once: int, seconds: float = 1e9) -> dict[str, Any]:
        """Put packets over so many connections, for at most `seconds`; returns seconds, requests, refused."""
        return await self._run([_put(packet) for packet in self.packets[first : first + count]], at_once, seconds)

    async def get(self, count: int, requests: int) -> dict[str, Any]:
        """Get packets by chance among the first `count`."""
        rng = random.Random(count)
        work = [_get(self.packets[rng.randrange(count)]) for _ in range(requests)]
        return await self._run(work, len(self.links))

    async def latency(self, count: int, requests: int) -> dict[str, Any]:
        """Get packets one after the other; returns the seconds that each took."""
        rng = random.Random(count + 1)
        taken = []
        for _ in range(requests):
            request = _get(self.packets[rng.randrange(count)])
            start = time.perf_counter()
            await self.links[0].ask(request)
            taken.append(time.perf_counter() - start)
        return {"taken": taken}

    async def _run(self, work: list[bytes], at_once: int, seconds: float = 1e9) -> dict[str, Any]:
        total, refused = len(work), 0
        start = time.perf_counter()

        async def drive(link: Link) -> None:
            nonlocal refused
            while work and time.perf_counter() - start < seconds:
                refused += await link.ask(work.pop()) >= 300

        await asyncio.gather(*map(drive, self.links[:at_once]))
        return {"seconds": time.perf_counter() - start, "requests": total - len(work), "refused": refused}


def _put(packet: Packet) -> bytes:
    head = f"PUT /{packet.z32} HTTP/1.1\r\nHost: relay\r\nContent-Length: {len(packet.payload)}\r\n\r\n"
    return head.encode() + packet.payload


def _get(packet: Packet) -> bytes:
    return f"GET /{packet.z32} HTTP/1.1\r\nHost: relay\r\n\r\n".encode()


async def main(count: int) -> None:
    """Make the packets, then load until stdin ends."""
    load = Load(make(count))
    names = ("connect", "key", "fill_dht", "put", "get", "latency")
    await serve({name: getattr(load, name) for name in names})
    for link in load.links:
        link.transport.abort()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
