"""The call itself: look up, open, announce, understand knocks, say more where needed, ping until the first pong."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from time import monotonic

from tests.interop.rendezvous_parts import disco, formats, probing
from tests.interop.rendezvous_parts.dht import Krpc, Lookup, Node, QueryError, Reply
from tests.interop.rendezvous_parts.disco import Addr, Seal
from tests.interop.rendezvous_parts.formats import Invitation
from tests.interop.rendezvous_parts.wire import Wire

_PAUSES = ((3.0, 0.5), (10.0, 1.0), (30.0, 2.0), (90.0, 6.0))
_STRANGERS = 16
_AGAIN = 20.0
_PATIENCE, _PATIENCE_UNINVITED = 4.0, 0.8


@dataclass
class Options:
    """What the command line says."""

    callee: bytes
    bootstrap: list[Addr]
    bind: Addr = ("0.0.0.0", 0)
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    announce: bool = True
    blind: bool = False
    """Whether to forget the record's addresses, as if it had none."""
    sealed: bool | None = None
    """Whether to leave a sealed call; None: if exactly one of the two NATs shifts ports."""


class Caller:
    """One call of one node; `say` gets a line for each thing that happens."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._seal = Seal(options.seed, options.callee)
        self._wire = Wire(*options.bind, self._receive)
        self._krpc = Krpc(self._wire)
        self._began = monotonic()
        self._record = Lookup(self._krpc, formats.target(options.callee), b"get", self._on_record)
        self._invited = Lookup(self._krpc, formats.target(options.callee, formats.SALT), b"get", self._on_invitation)
        self._record_seq = self._invitation_seq = -1
        self._named: set[Addr] = set()
        self._invitation: Invitation | None = None
        self._have_addresses = asyncio.Event()
        self._opened = asyncio.Event()
        self._full = asyncio.Event()
        self._announced: set[tuple[bytes, Addr]] = set()
        self._pinged: dict[Addr, asyncio.Task[None]] = {}
        self._strangers: set[Addr] = set()
        self._transactions: dict[bytes, tuple[Addr, bytes]] = {}
        self._cookies: dict[Addr, bytes] = {}
        self._proven: asyncio.Future[Addr] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._further: list[Wire] = []

    async def run(self, patience: float) -> tuple[Addr, float]:
        """The address that proved the callee, and the seconds it took; TimeoutError after `patience` seconds."""
        self._start(self._call())
        try:
            async with asyncio.timeout(patience):
                return await self._proven, monotonic() - self._began
        finally:
            tasks = [*self._tasks, *self._pinged.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for wire in [self._wire, *self._further]:
                wire.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._proven.done():
            self._proven.set_exception(error)

    async def _call(self) -> None:
        lookups = asyncio.gather(self._record.run(self._options.bootstrap), self._invited.run(self._options.bootstrap))
        if self._options.announce:
            self._start(self._when_addresses_are_known())
        nodes, _ = await lookups
        invited = "invited" if self._invitation is not None else "not invited"
        self._say(f"looked up: {len(nodes)} nodes, {len(self._named)} addresses, {invited}")
        if not self._named and self._invitation is None:
            raise LookupError("the DHT holds neither a record nor an invitation of this node")
        self._have_addresses.set()
        mailbox = self._invitation.mailbox if self._invitation is not None else self._record.target
        again = False
        while True:
            began = monotonic()
            await self._leave_a_call(mailbox, nodes, again=again)
            await asyncio.sleep(max(0, began + _AGAIN - monotonic()))
            again = True

    async def _leave_a_call(self, mailbox: bytes, nodes: list[Node], *, again: bool) -> None:
        if self._options.announce:
            await self._opened.wait()
            if mailbox != self._record.target:
                self._announce(mailbox, await self._mailbox_nodes(mailbox, nodes))
            if again:
                # Our address stands there already; only another entry tells of another call.
                await self._announce_port(mailbox, nodes, 1 + secrets.randbelow(65535))
        invitation = self._invitation
        if invitation is None:
            return
        probing_helps = self._krpc.port_each() is not invitation.port_each
        if self._options.sealed or (self._options.sealed is None and probing_helps):
            await self._leave_sealed_call(invitation, nodes)
            if probing_helps:
                await self._probe_ports(invitation, nodes)

    # What the look-ups find

    def _on_record(self, reply: Reply) -> None:
        item = formats.read_item(reply, self._options.callee, b"")
        if item is not None and item[0] > self._record_seq:
            self._record_seq = item[0]
            if not self._options.blind:
                self._named.update(formats.record_addresses(item[1]))
            self._say(f"record: {sorted(self._named)}")
            self._have_addresses.set()
        if self._opened.is_set():
            for addr in self._named:
                self._ping_again_and_again(addr)
            self._announce(self._record.target, self._record.nearest())

    def _on_invitation(self, reply: Reply) -> None:
        item = formats.read_item(reply, self._options.callee, formats.SALT)
        if item is None or item[0] <= self._invitation_seq:
            return
        self._invitation_seq = item[0]
        self._invitation = formats.read_invitation(item[1])
        self._say(f"invitation: {self._invitation}")
        if self._invitation.filtered is False:
            self._full.set()

    # Opening, announcing, pinging

    async def _when_addresses_are_known(self) -> None:
        await self._have_addresses.wait()
        for addr in self._named:
            self._ping_again_and_again(addr)
        # The first pings must have left before anybody can learn of the call: the look-up's next answer announces.
        await asyncio.sleep(0)
        self._opened.set()
        self._announce(self._record.target, self._record.nearest())
        opened = monotonic()
        while not self._full.is_set():
            left = opened + (_PATIENCE_UNINVITED if self._invitation is None else _PATIENCE) - monotonic()
            if left <= 0:
                self._full.set()
            await asyncio.sleep(min(0.1, max(0, left)))

    def _announce(self, infohash: bytes, nodes: list[Node], port: int | None = None) -> None:
        for node in nodes:
            if node.token is not None and (infohash, node.addr) not in self._announced:
                self._announced.add((infohash, node.addr))
                self._start(self._announce_on(node, infohash, node.token, port))

    async def _announce_on(self, node: Node, infohash: bytes, token: bytes, port: int | None) -> None:
        args: Reply = {b"info_hash": infohash, b"token": token, b"port": port or self._wire.port}
        if port is None:
            args[b"implied_port"] = 1
        try:
            await self._krpc.query(node.addr, b"announce_peer", args)
            self._say(f"announced on {node.addr}" + (f" port {port}" if port else ""))
        except (TimeoutError, QueryError) as error:
            self._say(f"{node.addr} took no announcement: {error!r}")

    async def _mailbox_nodes(self, mailbox: bytes, nodes: list[Node]) -> list[Node]:
        """The nodes that take announcements in the mailbox: those of the record, asked for tokens if it is another."""
        if mailbox == self._record.target:
            return nodes
        return await Lookup(self._krpc, mailbox, b"get_peers").run([node.addr for node in nodes])

    async def _announce_port(self, mailbox: bytes, nodes: list[Node], port: int) -> None:
        for node in await self._mailbox_nodes(mailbox, nodes):
            if node.token is not None:
                await self._announce_on(node, mailbox, node.token, port)

    def _ping_again_and_again(self, addr: Addr) -> None:
        if addr not in self._pinged:
            self._pinged[addr] = asyncio.create_task(self._ping_loop(addr))

    async def _ping_loop(self, addr: Addr) -> None:
        began = monotonic()
        while (age := monotonic() - began) < _PAUSES[-1][0]:
            full = self._full.is_set() or self._krpc.port_each() or addr in self._strangers
            self._ping(self._wire, addr, 64 if full else 2)
            pause = next(pause for until, pause in _PAUSES if age < until)
            if full:
                await asyncio.sleep(pause)
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._full.wait()
            except TimeoutError:
                pass

    def _ping(self, wire: Wire, addr: Addr, ttl: int = 64) -> None:
        tid = secrets.token_bytes(12)
        packet = self._seal.seal(disco.ping(tid), self._cookies.get(addr, b""))
        self._transactions[tid] = (addr, packet[2:18])
        wire.send(packet, addr, ttl)

    # The sealed call

    async def _leave_sealed_call(self, invitation: Invitation, nodes: list[Node]) -> None:
        own = self._krpc.own()
        if own is None:
            self._say("no node says at which address it sees us: no sealed call")
            return
        # The callee opens towards our mapped address, so that must be named; where ports shift there is none.
        candidates, mapping = ([], disco.PORT_EACH) if self._krpc.port_each() else ([own], disco.ONE_PORT)
        packet = self._seal.seal(disco.call_me_maybe(candidates, mapping))
        call = formats.make_call(invitation.key, IPv4Address(own[0]).packed, packet)
        stored = 0
        for node in await Lookup(self._krpc, call.target, b"get").run([node.addr for node in nodes]):
            if node.token is None:
                continue
            try:
                await self._krpc.query(node.addr, b"put", {**call.put, b"token": node.token, b"target": call.target})
                stored += 1
            except (TimeoutError, QueryError) as error:
                self._say(f"{node.addr} did not take the sealed call: {error!r}")
        self._say(f"sealed call on {stored} nodes, ports {call.p} and {call.q}")
        for port in (call.p, call.q):
            await self._announce_port(invitation.mailbox, nodes, port)

    async def _probe_ports(self, invitation: Invitation, nodes: list[Node]) -> None:
        ours = self._krpc.port_each()
        ips = {addr[0] for addr in self._named} if ours else {invitation.ip} - {None}
        named = await Lookup(self._krpc, invitation.mailbox, b"get_peers").run([node.addr for node in nodes])
        for ip in ips:
            if ip is None or not probing.attested(ip, named):
                self._say(f"too few networks name {ip}: no port probing")
            elif ours:
                there = next(addr for addr in self._named if addr[0] == ip)
                for wire in self._further:
                    wire.close()
                self._further = probing.further_wires(self._options.bind[0], self._receive)
                self._say(f"{len(self._further)} sockets open towards {there}")
                await probing.open_sockets(self._further, there, self._ping)
                return
            else:
                self._say(f"probing ports of {ip}")
                await probing.probe(ip, lambda addr: self._ping(self._wire, addr))
                return

    # What comes

    def _receive(self, wire: Wire, packet: bytes, addr: Addr) -> None:
        if packet[:1] == b"d":
            self._krpc.receive(packet, addr)
        elif packet[:16] == disco.KNOCK:
            self._on_knock(addr)
        elif packet[:1] == b"\x06":
            self._on_challenge(wire, packet, addr)
        elif packet[:1] in (b"\x04", b"\x05"):
            self._on_message(wire, self._seal.open(packet), addr)

    def _on_knock(self, addr: Addr) -> None:
        self._say(f"knock from {addr}")
        if addr in self._named:
            self._full.set()
        else:
            self._ping_stranger(addr)

    def _ping_stranger(self, addr: Addr) -> None:
        if addr in self._strangers or len(self._strangers) < _STRANGERS:
            self._strangers.add(addr)
            self._ping_again_and_again(addr)

    def _on_challenge(self, wire: Wire, packet: bytes, addr: Addr) -> None:
        read = self._seal.cookie_of(packet)
        if read is not None and (addr, read[0]) in self._transactions.values():
            self._say(f"challenge from {addr}")
            self._cookies[addr] = read[1]
            self._ping(wire, addr)

    def _on_message(self, wire: Wire, message: bytes | None, addr: Addr) -> None:
        if message is None or len(message) < 32:
            return
        kind, tid = message[0], message[1:13]
        if kind == disco.PING:
            self._say(f"ping from {addr}")
            wire.send(self._seal.seal(disco.pong(tid, addr)), addr)
            if wire is not self._wire:
                self._ping(wire, addr)
            elif addr not in self._named:
                self._ping_stranger(addr)
            elif addr not in self._pinged:
                self._ping_again_and_again(addr)
            self._full.set()
        elif kind == disco.PONG and not self._proven.done() and self._transactions.get(tid, (None,))[0] == addr:
            self._proven.set_result(addr)
