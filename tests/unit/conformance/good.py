"""Implementations of every contract that keep it, in memory; mutants of them break one rule each."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from tom_connect.abc import (
    DatagramProtocol,
    Discovery,
    FoundAddr,
    PluginContext,
    ProbeServer,
    Publisher,
    PublishReport,
    RelayInfo,
    RelayTransport,
)
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import DiscoveryError, NetworkError, RecordError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_connect.watch import Watch

RELAY = RelayUrl.parse("mem://127.0.0.1:1/")
DEAD = RelayUrl.parse("mem://127.0.0.1:2/")


class Store:
    """A place where packets are kept under node ids."""

    def __init__(self) -> None:
        self.packets: dict[NodeId, bytes] = {}

    async def publish(self, record: SignedRecord) -> None:
        self.packets[record.node_id] = record.to_bytes()

    async def forge(self, node_id: NodeId, packet: bytes) -> None:
        self.packets[node_id] = packet

    async def find(self, node_id: NodeId) -> SignedRecord | None:
        packet = self.packets.get(node_id)
        return None if packet is None else SignedRecord.from_bytes(packet)


class GoodDiscovery(Discovery):
    """Finds what a store holds, in two turns of the loop, by a task of its own."""

    name = "store"

    def __init__(self, store: Store | None, ctx: PluginContext) -> None:
        self.store = store
        self.ctx = ctx
        self.running = False

    async def start(self) -> None:
        await asyncio.sleep(0)
        self.running = True

    async def aclose(self) -> None:
        self.running = False

    async def fetch(self, node_id: NodeId) -> bytes | None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        if self.store is None:
            raise DiscoveryError("there is no store")
        return self.store.packets.get(node_id)

    def read(self, node_id: NodeId, packet: bytes) -> SignedRecord:
        record = SignedRecord.from_bytes(packet)
        if record.node_id != node_id:
            raise RecordError("another node's record")
        return record

    def found(self, record: SignedRecord) -> FoundAddr:
        return FoundAddr(record.addr, self.name, record.timestamp_us)

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        task = asyncio.create_task(self.fetch(node_id), name="fetching")
        try:
            packet = await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, DiscoveryError):
                await task
        if packet is not None:
            try:
                record = self.read(node_id, packet)
            except RecordError as exc:
                raise DiscoveryError(f"the store holds no valid record: {exc}") from exc
            yield self.found(record)


class GoodPublisher(Publisher):
    """Puts records into a store."""

    name = "store"

    def __init__(self, store: Store | None, ctx: PluginContext) -> None:
        self.store = store
        self.ctx = ctx

    async def publish(self, record: SignedRecord) -> PublishReport:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        if self.store is None:
            raise NetworkError("there is no store")
        held = await self.store.find(record.node_id)
        if held is not None and held.timestamp_us > record.timestamp_us:
            raise NetworkError("the store holds a newer record")
        await self.store.publish(record)
        return PublishReport(self.name, 1)


class Hub:
    """A relay in memory; nodes by relay and id."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, GoodRelays] = {}
        self.shared: GoodRelays | None = None


class GoodRelays(RelayTransport):
    """Joins a hub and passes datagrams on by the turns of the loop."""

    name = "hub"
    schemes = frozenset({"mem"})
    queue_size = 512

    def __init__(self, hub: Hub, ctx: PluginContext) -> None:
        self.hub = hub
        self.ctx = ctx
        self.home: Watch[RelayUrl | None] = Watch(None)
        self.standby: Watch[RelayUrl | None] = Watch(None)
        self.queue: deque[tuple[NodeId, bytes, int]] = deque()
        self.joined: dict[RelayUrl, bool] = {}
        self.receive: Callable[[RelayUrl, NodeId, Sequence[bytes], int], None] = lambda *arrived: None
        self.woken = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.closed = False

    async def start(self) -> None:
        self.task = asyncio.create_task(self.work(), name="relaying")
        for url in self.ctx.relay_urls:
            self.join(url, trusted=True)

    async def aclose(self) -> None:
        self.closed = True
        self.hub.nodes.pop(self.ctx.node_id, None)
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None
        self.home.close()

    def join(self, url: RelayUrl, *, trusted: bool) -> None:
        if url.scheme == "mem" and self.task is not None and (trusted or self.ctx.allow_local):
            self.joined[url] = url == RELAY
            if url == RELAY:
                self.hub.nodes[self.ctx.node_id] = self
                asyncio.get_running_loop().call_soon(self.joined_now, url)

    def joined_now(self, url: RelayUrl) -> None:
        if url in self.ctx.relay_urls:
            self.home.set(url)
        self.woken.set()

    async def work(self) -> None:
        while True:
            await self.woken.wait()
            self.woken.clear()
            while self.queue and self.joined.get(RELAY):
                to, data, ecn = self.queue.popleft()
                if (node := self.hub.nodes.get(to)) is not None:
                    self.deliver(node, data, ecn)

    def deliver(self, node: GoodRelays, data: bytes, ecn: int) -> None:
        node.receive(RELAY, self.ctx.node_id, [data], ecn)

    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        if self.task is None or relay.scheme != "mem":
            return False
        if relay not in self.joined:
            self.join(relay, trusted=False)
        room = self.queue_size - len(self.queue)
        self.queue.extend((node_id, data, ecn) for data in datagrams[:room])
        self.woken.set()
        return len(datagrams) <= room

    def set_receiver(self, receive: Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]) -> None:
        self.receive = receive

    def home_relay(self) -> Watch[RelayUrl | None]:
        return self.home

    def standby_relay(self) -> Watch[RelayUrl | None]:
        return self.standby

    def open(self, relay: RelayUrl, *, trusted: bool) -> None:
        self.join(relay, trusted=trusted)

    def relays(self) -> Sequence[RelayInfo]:
        return [
            RelayInfo(
                url,
                "configured" if url in self.ctx.relay_urls else "found",
                connected,
                home=url == self.home.value,
            )
            for url, connected in self.joined.items()
        ]

    def probes(self) -> Sequence[ProbeServer]:
        return [ProbeServer(RELAY, "127.0.0.1")]


class GoodProtocol(DatagramProtocol):
    """Answers what begins with `tomtest?` by what begins with `tomtest!`, in turns of its own."""

    name = "echo"
    queue_size = 512

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.queue: deque[tuple[bytes, SocketAddr]] = deque()
        self.turn: asyncio.Handle | None = None
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def aclose(self) -> None:
        self.running = False
        self.queue.clear()
        if self.turn is not None:
            self.turn.cancel()

    def claims(self, head: bytes) -> bool:
        return head[:7] == b"tomtest"

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        if not self.running:
            return
        self.queue.extend(datagrams[: self.queue_size - len(self.queue)])
        if self.turn is None:
            self.turn = asyncio.get_running_loop().call_soon(self.take)

    def take(self) -> None:
        self.turn = None
        while self.queue:
            self.handle(*self.queue.popleft())

    def handle(self, data: bytes, source: SocketAddr) -> None:
        if data[:8] == b"tomtest?" and len(data) <= 100:
            self.ctx.socket.send(b"tomtest!" + data[8:], source)


CLAIMED = (b"tomtest?hello", b"tomtest!hello")
