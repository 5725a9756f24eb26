"""The child that floods: announcements in a mailbox, packets at a port."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from benchmarks.dht.krpc import Address, decode, encode
from tests.interop.peers.lines import serve
from tom_dht_mainline.core import mutable_target
from tom_dht_mainline.core.rendezvous.invitation import SALT, decode_invitation

PORT: Final = 6881
TICK: Final = 0.01
"""Seconds between two volleys."""
ASK_AGAIN: Final = 1.0
"""Seconds after which a token that did not come is asked for again."""
FOLLOW_EVERY: Final = 3.0
"""Seconds after which the victim's invitation is read again, to follow its mailbox."""
KNOCK: Final = b"\x07\x01" + bytes(14)


@attrs.define(eq=False)
class Source:
    """One of the attacker's addresses, with the tokens that nodes have given it."""

    host: str
    sock: socket.socket
    tokens: dict[tuple[Address, bytes], bytes] = attrs.field(factory=dict)
    asked: dict[bytes, tuple[Address, bytes]] = attrs.field(factory=dict)

    @classmethod
    def open(cls, host: str) -> Source:
        """Open its socket."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((host, PORT))
        return cls(host, sock)

    def send(self, data: bytes, address: Address) -> bool:
        """Send a packet; whether it left."""
        try:
            self.sock.sendto(data, address)
        except OSError:
            return False
        return True

    def query(self, address: Address, method: bytes, arguments: dict[bytes, Any], tid: bytes = b"flod") -> bool:
        """Send a query."""
        body = {b"id": random.randbytes(20), **arguments}
        return self.send(encode({b"t": tid, b"y": b"q", b"q": method, b"a": body}), address)

    def ask_tokens(self, nodes: Sequence[Address], target: bytes) -> None:
        """Ask those nodes whose token is not known."""
        for node in nodes:
            if (node, target) not in self.tokens:
                tid = os.urandom(4)
                self.asked[tid] = (node, target)
                self.query(node, b"get_peers", {b"info_hash": target}, tid)

    def read(self, on_reply: Callable[[dict[bytes, Any]], None]) -> None:
        """Take what has come."""
        with contextlib.suppress(OSError):
            for _ in range(64):
                data, address = self.sock.recvfrom(2048)
                with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
                    reply = decode(data)
                    asked = self.asked.pop(reply[b"t"], None)
                    if asked is not None and asked[0] == address:
                        self.tokens[asked] = reply[b"r"][b"token"]
                    on_reply(reply[b"r"])


@attrs.define(eq=False)
class Flood:
    """What runs now, and how many packets it has sent."""

    sources: list[Source] = attrs.field(factory=list)
    sent: int = 0
    began: float = 0.0
    mailboxes: list[bytes] = attrs.field(factory=list)
    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list)
    _key: bytes = b""
    chooser: random.Random = attrs.field(factory=random.Random)

    def _open(self, hosts: list[str]) -> None:
        loop = asyncio.get_running_loop()
        self.began, self.sent = time.monotonic(), 0
        for host in hosts:
            source = Source.open(host)
            self.sources.append(source)
            loop.add_reader(source.sock, source.read, self._heard)

    async def announce(
        self, hosts: list[str], nodes: list[list[Any]], infohash: str, rate: float, most: int | None, follow: str | None
    ) -> dict[str, Any]:
        """Announce random ports under an infohash: `rate` packets a second, `most` in all.

        `follow`: the key whose invitation is read again and again, so that a mailbox that moves is flooded too.
        """
        self._open(hosts)
        self.mailboxes = [bytes.fromhex(infohash)]
        addresses = [(host, port) for host, port in nodes]
        tasks = [self._ask_tokens(addresses), self._volleys(self._announcements(addresses), rate, most)]
        if follow is not None:
            self._key = bytes.fromhex(follow)
            tasks.append(self._follow(addresses))
        self._tasks = [asyncio.create_task(task) for task in tasks]
        return {}

    async def _ask_tokens(self, nodes: list[Address]) -> None:
        while True:
            for mailbox in list(self.mailboxes):
                for source in self.sources:
                    source.ask_tokens(nodes, mailbox)
                    await asyncio.sleep(0)
            await asyncio.sleep(ASK_AGAIN)

    def _announcements(self, nodes: list[Address]) -> Iterator[bool]:
        for number in itertools.count():
            source = self.sources[number % len(self.sources)]
            node = nodes[number // len(self.sources) % len(nodes)]
            mailbox = self.mailboxes[number % len(self.mailboxes)]
            token = source.tokens.get((node, mailbox))
            if token is None:
                yield False
                continue
            port = self.chooser.randrange(1024, 65536)
            yield source.query(node, b"announce_peer", {b"info_hash": mailbox, b"port": port, b"token": token})

    async def _volleys(self, packets: Iterator[bool], rate: float, most: int | None) -> None:
        """Send what is due, every hundredth of a second; a volley that is late is not made up for."""
        due = time.monotonic()
        while most is None or self.sent < most:
            self.sent += sum(next(packets) for _ in range(max(1, round(rate * TICK))))
            due = max(due + TICK, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _follow(self, nodes: list[Address]) -> None:
        target = mutable_target(self._key, SALT)
        while True:
            await asyncio.sleep(FOLLOW_EVERY)
            for node in nodes:
                self.sources[0].query(node, b"get", {b"target": target, b"seq": 0})

    def _heard(self, reply: dict[bytes, Any]) -> None:
        if self._key and reply.get(b"k") == self._key:
            mailbox = decode_invitation(reply[b"v"]).mailbox
            if mailbox not in self.mailboxes:
                # The old one is left alone: it is full.
                self.mailboxes = [mailbox]

    async def packets(self, hosts: list[str], address: list[Any], rate: float) -> dict[str, Any]:
        """Send knocks, disco packets that don't open, and DHT queries to one address."""
        self._open(hosts)
        target = (address[0], address[1])
        self._tasks = [asyncio.create_task(self._volleys(self._garbage(target), rate, None))]
        return {}

    def _garbage(self, target: Address) -> Iterator[bool]:
        for number in itertools.count():
            source = self.sources[number % len(self.sources)]
            if number % 3 == 0:
                yield source.send(KNOCK, target)
            elif number % 3 == 1:
                yield source.send(b"\x04\x01" + self.chooser.randbytes(120), target)
            else:
                yield source.query(target, b"find_node", {b"target": self.chooser.randbytes(20)})

    async def rate(self) -> dict[str, Any]:
        """Say how many packets have gone out, how many a second, and what is flooded now."""
        seconds = max(time.monotonic() - self.began, 0.001)
        return {"sent": self.sent, "rate": self.sent / seconds, "mailboxes": [each.hex() for each in self.mailboxes]}

    async def stop(self) -> dict[str, Any]:
        """End the flood."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for source in self.sources:
            asyncio.get_running_loop().remove_reader(source.sock)
            source.sock.close()
        self._tasks.clear()
        self.sources.clear()
        return {}


async def main() -> None:
    """Answer until standard input ends."""
    flood = Flood()
    names = ("announce", "packets", "rate", "stop")
    try:
        await serve({name: getattr(flood, name) for name in names})
    finally:
        await flood.stop()


if __name__ == "__main__":
    asyncio.run(main())
