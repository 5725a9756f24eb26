"""The callee itself: publish, poll, knock, read sealed calls, probe ports where that helps, answer pings."""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from time import monotonic

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.interop.rendezvous_parts import disco, formats, probing
from tests.interop.rendezvous_parts.dht import Krpc, Lookup, Node, QueryError, Reply
from tests.interop.rendezvous_parts.disco import Addr
from tests.interop.rendezvous_parts.wire import Wire

from . import left
from .mailbox import KNOCKS, Mailbox
from .sealed import Peer, Peers, open_call

_INTERVAL = 1.1
_LOOK_AGAIN = (3.0, 15.0, 60.0, 300.0, 900.0)
_TOO_FEW = 4
_HOUR = 3600.0
_PINGS = (0.0, 0.2, 0.6, 1.4, 3.0, 6.2, 11.2)
_ATTESTED_WITHIN = 3.0
_QUIC_1 = b"\0\0\0\1"


@dataclass
class Options:
    """What the command line says."""

    bootstrap: list[Addr]
    bind: Addr = ("0.0.0.0", 0)
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    contact: bytes | None = None
    contacts_only: bool = False
    hidden: bool = False
    """Whether to leave no record, so that a knock is all that tells of us."""


@dataclass
class Met:
    """A caller whose QUIC came over a path that its own pings have proven."""

    node_id: bytes
    addr: Addr
    after: float
    """Seconds since the callee had said how it is to be called."""


@dataclass
class Watched:
    """A mailbox and the nodes that are polled in turn."""

    infohash: bytes
    mailbox: Mailbox
    nodes: list[Node] = field(default_factory=list)
    silent: dict[Addr, int] = field(default_factory=dict)
    read: set[tuple[str, int]] = field(default_factory=set)


class Callee:
    """One callee; `say` gets a line for each thing that happens. `invited` is set once it can be called."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self.node_id = Ed25519PrivateKey.from_private_bytes(options.seed).public_key().public_bytes_raw()
        self.wire = Wire(*options.bind, self._receive)
        self.krpc = Krpc(self.wire)
        self.invited = asyncio.Event()
        self.moved = asyncio.Event()
        """Set once a flooded mailbox has been left."""
        self.met: asyncio.Future[Met] = asyncio.get_running_loop().create_future()
        self._since = monotonic()
        self._record_target = formats.target(self.node_id)
        self._public = Watched(self._record_target, Mailbox(self._is_ours))
        self._private = Watched(secrets.token_bytes(20), Mailbox(self._is_ours))
        self._keys = [X25519PrivateKey.generate()]
        self._seq = 0
        self._peers = Peers(options.seed, self.node_id)
        self._ponged: dict[Addr, bytes] = {}
        self._transactions: dict[bytes, Addr] = {}
        self._proven: set[Addr] = set()
        self._announced: set[tuple[bytes, Addr]] = set()
        self._sealed: asyncio.Queue[tuple[Watched, str, int]] = asyncio.Queue(8)
        self._tasks: set[asyncio.Task[None]] = set()
        self._further: list[Wire] = []

    async def run(self) -> Met:
        """Be reachable until a caller is met."""
        self._start(self._be_called())
        self._start(self._read_sealed_calls())
        try:
            return await self.met
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for wire in [self.wire, *self._further]:
                wire.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.met.done():
            self.met.set_exception(error)

    def _is_ours(self, addr: Addr) -> bool:
        own = self.krpc.own()
        return own is not None and (addr == own or (self.krpc.port_each() and addr[0] == own[0]))

    # What others can find

    def _watched(self) -> list[Watched]:
        if self._options.contact is None:
            return [self._public]
        return [self._private] if self._options.contacts_only else [self._public, self._private]

    def _interval(self) -> float:
        contacts = 0 if self._options.contact is None else 1
        return _INTERVAL * len(self._watched()) * (1 + contacts / 24)

    async def _be_called(self) -> None:
        # Those that answer say at which address they see us.
        await asyncio.gather(*(self._look(watched) for watched in self._watched()))
        for watched in self._watched():
            self._start(self._watch(watched))
        while True:
            await self.publish()
            self._since = monotonic()
            self.invited.set()
            await asyncio.sleep(_HOUR)
            self._keys = [X25519PrivateKey.generate(), self._keys[0]]

    def items(self) -> list[tuple[bytes, left.Put]]:
        """Targets and puts of all that is to be found of us now."""
        own = self.krpc.own()
        if own is None:
            raise LookupError("no node of the DHT says at which address it sees us")
        self._seq = seq = max(int(time.time() * 1e6), self._seq + 1)
        shifts = self.krpc.port_each()
        packet = None if shifts or self._options.hidden else left.dns_packet(self.node_id, [own])
        items = []
        if not self._options.contacts_only:
            if packet is not None:
                items.append(formats.signed_item(self._options.seed, packet, seq))
            said = self.invitation(self._public.infohash)
            items.append(formats.signed_item(self._options.seed, said, seq, formats.SALT))
        if (contact := self._options.contact) is not None:
            for day in left.days(time.time()):
                if packet is not None:
                    there = left.place(self._options.seed, contact, self.node_id, "record", day)
                    items.append(there.item(left.record_content(self._options.seed, packet, seq), seq))
                there = left.place(self._options.seed, contact, self.node_id, "invitation", day)
                items.append(there.item(self.invitation(self._private.infohash), seq))
        return items

    def invitation(self, mailbox: bytes) -> bytes:
        """How we are to be called in a mailbox."""
        own, shifts = self.krpc.own(), self.krpc.port_each()
        assert own is not None
        # Seen by others at the very address that the socket has: no NAT.
        filtered = own != (self._options.bind[0], self.wire.port)
        key = self._keys[0].public_key().public_bytes_raw()
        ip = own[0] if shifts else None
        return left.invitation(formats.Invitation(filtered, shifts, self._interval(), 8, mailbox, key, ip))

    async def publish(self) -> None:
        """Put everything; each item on the nearest nodes that have tokens for it."""
        items = self.items()
        taken = await asyncio.gather(*(self._put(*item) for item in items))
        self._say(f"published: {len(items)} items on {taken} nodes, seen at {self.krpc.seen_as}")

    async def _say_so(self) -> None:
        await self.publish()
        self.moved.set()

    async def _put(self, target: bytes, put: left.Put) -> int:
        nodes = await Lookup(self.krpc, target, b"get", items_only=True).run(self._options.bootstrap)
        return sum(await asyncio.gather(*(self._put_on(node, put) for node in nodes)))

    async def _put_on(self, node: Node, put: left.Put) -> bool:
        if node.token is None:
            return False
        try:
            await self.krpc.query(node.addr, b"put", {**put, b"token": node.token})
        except (TimeoutError, QueryError):
            return False
        return True

    # The mailbox

    async def _watch(self, watched: Watched) -> None:
        self._start(self._look_again(watched))
        turn = 0
        while True:
            if watched.nodes:
                turn = (turn + 1) % len(watched.nodes)
                self._start(self._poll(watched, watched.nodes[turn]))
            await asyncio.sleep(self._interval() * random.uniform(0.9, 1.1))

    async def _look_again(self, watched: Watched) -> None:
        for pause in itertools.chain(_LOOK_AGAIN, itertools.repeat(_LOOK_AGAIN[-1])):
            await asyncio.sleep(pause)
            await self._look(watched)

    async def _look(self, watched: Watched) -> None:
        nodes = await Lookup(self.krpc, watched.infohash, b"get_peers").run(self._options.bootstrap)
        watched.nodes, watched.silent = nodes, {}
        for node in nodes:
            self._heard(watched, node.addr, node.values)
            if node.token is not None and (watched.infohash, node.addr) not in self._announced:
                self._announced.add((watched.infohash, node.addr))
                args: Reply = {b"info_hash": watched.infohash, b"token": node.token, b"port": self.wire.port}
                self._start(self._announce(node, args | {b"implied_port": 1}))

    async def _announce(self, node: Node, args: Reply) -> None:
        try:
            await self.krpc.query(node.addr, b"announce_peer", args)
        except (TimeoutError, QueryError) as error:
            self._say(f"{node.addr} took no announcement: {error!r}")

    async def _poll(self, watched: Watched, node: Node) -> None:
        try:
            reply = await self.krpc.query(node.addr, b"get_peers", {b"info_hash": watched.infohash})
        except (TimeoutError, QueryError):
            watched.silent[node.addr] = watched.silent.get(node.addr, 0) + 1
            if watched.silent[node.addr] == 2 and node in watched.nodes:
                watched.nodes.remove(node)
            return
        watched.silent.pop(node.addr, None)
        self._heard(watched, node.addr, values_of(reply))

    def _heard(self, watched: Watched, node: Addr, values: list[Addr]) -> None:
        now = monotonic()
        new = watched.mailbox.answered(values, now)
        for addr in new:
            self._say(f"call from {addr}")
            self.krpc.spared.add(addr)
        for addr in watched.mailbox.to_knock(new, now):
            self._start(self._knock(addr))
        # Whatever there is room for among new addresses: a list may be full of others.
        for ip in {addr[0] for addr in values}:
            self._look_for_sealed(watched, ip, {port for named, port in values if named == ip})
        if watched.mailbox.flooded(node, values, now):
            watched.infohash = watched.infohash[:12] + secrets.token_bytes(8)
            self._say(f"flooded: on to {watched.infohash.hex()}")
            self._start(self._look(watched))
            self._start(self._say_so())

    async def _knock(self, addr: Addr) -> None:
        began = monotonic()
        for at, ttl in KNOCKS:
            await asyncio.sleep(max(0, began + at - monotonic()))
            self.wire.send(disco.KNOCK, addr, ttl)

    # Sealed calls

    def _look_for_sealed(self, watched: Watched, ip: str, ports: set[int]) -> None:
        raw = IPv4Address(ip).packed
        for port in ports:
            for secret in self._keys:
                key = secret.public_key().public_bytes_raw()
                if formats.second_port(key, raw, port) in ports and (ip, port) not in watched.read:
                    watched.read.add((ip, port))
                    if not self._sealed.full():
                        self._sealed.put_nowait((watched, ip, port))

    async def _read_sealed_calls(self) -> None:
        while True:
            watched, ip, port = await self._sealed.get()
            self._start(self._read_sealed_call(watched, ip, port))
            await asyncio.sleep(1.0)

    async def _read_sealed_call(self, watched: Watched, ip: str, port: int) -> None:
        raw = IPv4Address(ip).packed
        packet = None
        for secret in self._keys:
            seed = formats.item_seed(secret.public_key().public_bytes_raw(), raw, port)
            name = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
            found: list[bytes] = []

            def take(reply: Reply, name: bytes = name, found: list[bytes] = found) -> None:
                item = formats.read_item(reply, name, b"")
                if item is not None:
                    found.append(item[1])

            await Lookup(self.krpc, formats.target(name), b"get", take).run([node.addr for node in watched.nodes])
            packet = next(filter(None, (open_call(secret, raw, port, value) for value in found)), None)
            if packet is not None:
                break
        read = self._peers.read(packet) if packet is not None else None
        if read is None or read[1][0] != disco.CALL_ME_MAYBE:
            self._say(f"no sealed call of {ip} with {port}")
            return
        peer, message = read
        candidates, mapping = disco.read_candidates(message)
        self._say(f"sealed call of {peer.seal.peer.hex()} at {candidates}, mapping {mapping}")
        for addr in candidates:
            self._start(self._ping_for_a_while(peer, addr))
        shifts = self.krpc.port_each()
        if shifts is not (mapping == disco.PORT_EACH):
            await self._probe_ports(watched, peer, ip, candidates if shifts else None)

    async def _probe_ports(self, watched: Watched, peer: Peer, ip: str, opened: list[Addr] | None) -> None:
        """Our part of port probing; `opened`: the caller's candidates if ours is the NAT that shifts ports."""
        there = next((addr for addr in opened or () if addr[0] == ip), None)
        if not await self._attested(watched, ip) or (opened is not None and there is None):
            self._say(f"too few networks name {ip}: no port probing")
        elif there is not None:
            self._further = probing.further_wires(self._options.bind[0], self._receive)
            self._say(f"{len(self._further)} sockets open towards {there}")
            await probing.open_sockets(self._further, there, lambda wire, addr, ttl: self._ping(wire, peer, addr, ttl))
        else:
            self._say(f"probing ports of {ip}")
            await probing.probe(ip, lambda addr: self._ping(self.wire, peer, addr))

    async def _attested(self, watched: Watched, ip: str) -> bool:
        until = monotonic() + _ATTESTED_WITHIN
        while True:
            start = [node.addr for node in watched.nodes]
            if probing.attested(ip, await Lookup(self.krpc, watched.infohash, b"get_peers").run(start)):
                return True
            if monotonic() > until:
                return False

    async def _ping_for_a_while(self, peer: Peer, addr: Addr) -> None:
        began = monotonic()
        for at in _PINGS:
            await asyncio.sleep(max(0, began + at - monotonic()))
            if addr not in self._proven:
                self._ping(self.wire, peer, addr)

    def _ping(self, wire: Wire, peer: Peer, addr: Addr, ttl: int = 64) -> None:
        tid = secrets.token_bytes(12)
        self._transactions[tid] = addr
        wire.send(peer.seal.seal(disco.ping(tid)), addr, ttl)

    # What comes

    def _receive(self, wire: Wire, packet: bytes, addr: Addr) -> None:
        if packet[:1] == b"d":
            self.krpc.receive(packet, addr)
        elif packet[:1] in (b"\x04", b"\x05"):
            read = self._peers.read(packet)
            if read is not None:
                self.on_message(wire, read[0], read[1], packet, addr)
        elif packet[:1] >= b"\xc0" and packet[1:5] == _QUIC_1:
            self._on_quic(addr)

    def on_message(self, wire: Wire, peer: Peer, message: bytes, packet: bytes, addr: Addr) -> None:
        """A message that was sealed in `packet`. Of a stranger: a pong for a ping, and nothing else."""
        kind, tid = message[0], message[1:13]
        if kind == disco.PING:
            self._say(f"ping from {addr}")
            self.answer(wire, peer, tid, packet, addr)
            self._ponged[addr] = peer.seal.peer
        elif kind == disco.PONG and self._transactions.get(tid) == addr:
            self._say(f"pong from {addr}")
            self._proven.add(addr)

    def answer(self, wire: Wire, peer: Peer, tid: bytes, packet: bytes, addr: Addr) -> None:
        """What a ping gets."""
        wire.send(peer.seal.seal(disco.pong(tid, addr)), addr)

    def _on_quic(self, addr: Addr) -> None:
        self._say(f"QUIC from {addr}")
        if addr in self._ponged and not self.met.done():
            self.met.set_result(Met(self._ponged[addr], addr, monotonic() - self._since))


def values_of(reply: Reply) -> list[Addr]:
    """The IPv4 addresses that a reply to `get_peers` names."""
    values = reply.get(b"values")
    if not isinstance(values, list):
        return []
    raw = [value for value in values if isinstance(value, bytes) and len(value) == 6]
    return [(str(IPv4Address(each[:4])), int.from_bytes(each[4:], "big")) for each in raw]
