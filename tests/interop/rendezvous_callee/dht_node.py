"""A node of the DHT that stores and answers whatever it is told to, lies too, and remembers what it was asked."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Self

from tests.interop.rendezvous_parts import bencode, formats
from tests.interop.rendezvous_parts.disco import Addr
from tests.interop.rendezvous_parts.wire import Wire

_TARGET = {b"find_node": b"target", b"get": b"target", b"get_peers": b"info_hash", b"announce_peer": b"info_hash"}


@dataclass
class DhtNode:
    """One node; `items` are what it gives for a target, checked by nobody."""

    host: str
    items: dict[bytes, dict[bytes, bencode.Value]] = field(default_factory=dict)
    neighbours: list["DhtNode"] = field(default_factory=list)
    before: list["DhtNode"] = field(default_factory=list)
    """Those that give what they have for a target first."""
    gave: defaultdict[bytes, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """For each target, what is set once it has given that."""
    asked: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Method and target of each query."""
    peers: dict[bytes, set[Addr]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node_id = secrets.token_bytes(20)
        self._any = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        self._wire = Wire(self.host, 0, self._receive)
        self.addr: Addr = (self.host, self._wire.port)

    @classmethod
    def in_order(cls, *items: Mapping[bytes, dict[bytes, bencode.Value]]) -> list[Self]:
        """Nodes that know one another, each on a loopback address of its own, and that give these items one by one."""
        nodes = [cls(f"127.83.{number + 1}.1", dict(each)) for number, each in enumerate(items)]
        for number, node in enumerate(nodes):
            node.neighbours = [other for other in nodes if other is not node]
            node.before = nodes[:number]
        return nodes

    async def asked_for(self, method: bytes, target: bytes, times: int = 1) -> None:
        """Wait until this has been asked so many times."""
        while self.asked.count((method, target)) < times:
            self._any.clear()
            await self._any.wait()

    def close(self) -> None:
        """Leave the DHT."""
        for task in self._waiting:
            task.cancel()
        self._wire.close()

    def _receive(self, wire: Wire, packet: bytes, addr: Addr) -> None:
        try:
            message = bencode.decode(packet)
        except ValueError:
            return
        match message:
            case {b"t": bytes(tid), b"y": b"q", b"q": bytes(method), b"a": dict(args)}:
                target = args.get(_TARGET.get(method, b""), b"")
                assert isinstance(target, bytes)
                self.asked.append((method, target))
                self._any.set()
                reply = self._reply(method, target, args, addr)
                body: bencode.Value = {b"t": tid, b"y": b"r", b"ip": _compact(addr), b"r": reply}
                if method == b"get" and target in self.items:
                    task = asyncio.create_task(self._give(target, bencode.encode(body), addr))
                    self._waiting.add(task)
                    task.add_done_callback(self._waiting.discard)
                else:
                    wire.send(bencode.encode(body), addr)

    def _reply(
        self, method: bytes, target: bytes, args: dict[bytes, bencode.Value], addr: Addr
    ) -> dict[bytes, bencode.Value]:
        reply: dict[bytes, bencode.Value] = {b"id": self.node_id}
        if method in (b"find_node", b"get", b"get_peers"):
            reply[b"nodes"] = b"".join(node.node_id + _compact(node.addr) for node in self.neighbours)
        if method in (b"get", b"get_peers"):
            reply[b"token"] = b"tokn"
        if method == b"get":
            reply.update(self.items.get(target, {}))
        if method == b"get_peers" and target in self.peers:
            reply[b"values"] = [_compact(peer) for peer in self.peers[target]]
        if method == b"announce_peer":
            port = addr[1] if args.get(b"implied_port") else args.get(b"port")
            assert isinstance(port, int)
            self.peers.setdefault(target, set()).add((addr[0], port))
        if method == b"put":
            self._keep(args)
        return reply

    def _keep(self, args: dict[bytes, bencode.Value]) -> None:
        match args:
            case {b"k": bytes(key)}:
                salt = args.get(b"salt", b"")
                assert isinstance(salt, bytes)
                kept = (b"k", b"seq", b"sig", b"v")
                self.items[formats.target(key, salt)] = {name: args[name] for name in kept if name in args}

    async def _give(self, target: bytes, reply: bytes, addr: Addr) -> None:
        for node in self.before:
            if target in node.items:
                await node.gave[target].wait()
        self._wire.send(reply, addr)
        self.gave[target].set()


def bootstrap(nodes: Sequence[DhtNode]) -> list[str]:
    """The nodes' addresses as text."""
    return [f"{host}:{port}" for host, port in (node.addr for node in nodes)]


def _compact(addr: Addr) -> bytes:
    return IPv4Address(addr[0]).packed + addr[1].to_bytes(2, "big")
