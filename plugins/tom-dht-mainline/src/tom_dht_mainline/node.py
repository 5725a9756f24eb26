"""The asyncio shell of a DHT node: it pumps the sans-IO core and turns its events into results."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_connect.watch import Watch

from .bootstrap import BootstrapNode, parse_bootstrap
from .core import (
    Address,
    AnnounceOperation,
    Contact,
    DhtConfig,
    DhtCore,
    Event,
    ExternalAddressChanged,
    Family,
    Finished,
    GetOperation,
    ImmutableItem,
    Item,
    MailboxOperation,
    MutableItem,
    Operation,
    PeersFound,
    PutOperation,
    PutOutcome,
    Stored,
    Wanted,
)
from .core.bencode import Bencodable
from .errors import CasMismatchError, DhtClosedError, DhtPutError, DhtUnreachableError, SupersededError
from .joining import Joining
from .results import NodeStats, PingResult, PutResult
from .store import StateStore
from .transport import Datagram, DatagramTransport, UdpTransport
from .values import EventHandler, ValueStream

Op = TypeVar("Op", bound=Operation)
WaitFor = Literal["quorum", "all"]

_SAVE_INTERVAL = 300.0
"""Seconds between two saves of the routing table: what a crash may cost."""
_TIMER_SLACK = 0.001
"""Seconds: deadlines that close share one wake-up."""


class DhtNode:
    """One Mainline DHT node, client and server; `async with DhtNode(...) as node`.

    `transport` carries its datagrams (default: UDP sockets of its own on free ports); `bootstrap` are `HOST:PORT`
    texts or BootstrapNodes, empty for a node that waits for others; `store` keeps its state between runs;
    `is_excluded(address)` names addresses never to be queried; `on_external(address)` is told where others see us;
    `peers` are nodes reached by the same transport, through whom we join where nobody else is known.
    All methods belong to the event loop that started the node. Raises InvalidAddrError for unreadable bootstrap nodes.
    """

    def __init__(
        self,
        transport: DatagramTransport | None = None,
        *,
        config: DhtConfig | None = None,
        bootstrap: Iterable[str | BootstrapNode] = (),
        store: StateStore | None = None,
        rng: random.Random | None = None,
        is_excluded: Callable[[Address], bool] | None = None,
        on_external: Callable[[Address], None] | None = None,
        peers: Watch[tuple[SocketAddr, ...]] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._transport = transport or UdpTransport((SocketAddr("0.0.0.0", 0), SocketAddr("::", 0)))  # noqa: S104 - a DHT node is reachable by design
        self._config = config or DhtConfig()
        self._families = tuple(
            family for family, on in ((Family.IPV4, self._config.ipv4), (Family.IPV6, self._config.ipv6)) if on
        )
        self._bootstrap = parse_bootstrap([str(node) for node in bootstrap])
        self._store = store
        self._rng = rng or random.SystemRandom()
        self._is_excluded = is_excluded
        self._on_external = on_external
        self._peers = peers
        self._logger = logger or logging.getLogger("tom_dht_mainline")
        self._core: DhtCore | None = None
        self._joining: Joining | None = None
        self._watchers: dict[Operation, EventHandler] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._turn: asyncio.Handle | None = None
        self._waiting: list[Iterator[Datagram]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._last_seq = 0
        self.failures = 0
        """Faults of our own that were caught while handling datagrams; 0 unless there is a bug."""

    # Life

    async def start(self) -> None:
        """Bind, load what was saved and begin to join, without waiting for it. Raises BindError."""
        if self._core is not None:
            raise DhtClosedError("the DHT node was started already")
        snapshot = None
        if self._store is not None:
            self._store.open()
            snapshot = self._store.load()
        self._core = DhtCore(
            self._config, rng=self._rng, now=time.monotonic(), snapshot=snapshot, is_excluded=self._is_excluded
        )
        try:
            await self._transport.open(self._on_datagrams)
        except BaseException:
            self._core = None
            if self._store is not None:
                self._store.close()
            raise
        has_saved = snapshot is not None and any(part.nodes for part in snapshot.families.values())
        self._joining = Joining(self, self._bootstrap, has_saved, self._logger)
        self._own(self._joining.run(), "dht-joining")
        if self._peers is not None:
            self._own(self._follow_peers(self._peers, self._joining), "dht-peers")
        if self._store is not None:
            self._own(self._save_regularly(self._store), "dht-saving")

    def _own(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._caught(error)
            if self._joining is not None:
                self._joining.close()

    async def aclose(self) -> None:
        """Save, end every operation with DhtClosedError and let go of the sockets. May be called again."""
        core, self._core = self._core, None
        if self._joining is not None:
            self._joining.close()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is not None:
            self._turn.cancel()
        watchers, self._watchers = self._watchers, {}
        for handler in watchers.values():
            handler(None)
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()
        if self._store is not None:
            if core is not None:
                self._store.save(core.snapshot(time.monotonic()))
            self._store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _follow_peers(self, peers: Watch[tuple[SocketAddr, ...]], joining: Joining) -> None:
        async for addrs in peers:
            addresses = [(addr.host, addr.port) for addr in addrs if "%" not in addr.host]
            self._live_core().set_neighbours(addresses)
            await joining.through_peers(addresses)

    async def _save_regularly(self, store: StateStore) -> None:
        while True:
            await asyncio.sleep(_SAVE_INTERVAL)
            store.save(self._live_core().snapshot(time.monotonic()))

    def _live_core(self) -> DhtCore:
        if self._core is None:
            raise DhtClosedError("the DHT node is not running: use it inside `async with`")
        return self._core

    # Pumping

    def _on_datagrams(self, batch: Iterable[Datagram]) -> None:
        if self._turn is not None:
            self._waiting.append(iter(batch))
        elif self._core is not None and not self._receive(self._core, iter(batch), stop=True):
            self._flush(self._core, time.monotonic())

    def _receive(self, core: DhtCore, batch: Iterator[Datagram], *, stop: bool) -> bool:
        """Hand datagrams to the core; with `stop` the rest waits a turn once somebody was told of something."""
        now = time.monotonic()
        silent = self._joining.silent if self._joining is not None else {}
        for data, addr in batch:
            if addr in silent and self._joining is not None:
                self._joining.heard(addr)
            try:
                core.receive(data, addr, now)
            except Exception as exc:
                self._caught(exc)
            if self._tell(core) and stop:
                self._yield_turn(batch)
                return True
        return False

    def _yield_turn(self, *rest: Iterator[Datagram]) -> None:
        """Let who waits for a value run before what is left: other replies, and the next queries."""
        self._waiting.extend(rest)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self._turn = None
        waiting, self._waiting = self._waiting, []
        if self._core is None:
            return
        for batch in waiting:
            self._receive(self._core, batch, stop=False)
        self._flush(self._core, time.monotonic())

    def _on_timer(self) -> None:
        self._armed_for = math.inf
        core = self._core
        if core is None:
            return
        now = time.monotonic()
        try:
            core.handle_timer(now)
        except Exception as exc:
            self._caught(exc)
        self._pump(now)

    def _caught(self, error: BaseException) -> None:
        """A bug of ours must not stop the endpoint that we live in: count it, say it once."""
        self.failures += 1
        if self.failures == 1:
            self._logger.error("the DHT failed; further failures are only counted", exc_info=error)

    def _pump(self, now: float) -> None:
        """Do what the core asks for after each call."""
        core = self._live_core()
        if self._tell(core):
            self._yield_turn()
        elif self._turn is None:
            self._flush(core, now)

    def _tell(self, core: DhtCore) -> bool:
        """Hand out what has happened; whether anybody was told."""
        told = False
        for event in core.events():
            told = self._dispatch(event) or told
        return told

    def _flush(self, core: DhtCore, now: float) -> None:
        out = core.datagrams_to_send()
        if out:
            self._transport.send(out)
        due = core.next_timer()
        # A timer that is armed too early fires once for nothing; that costs less than to re-arm it for each packet.
        if due is not None and due < self._armed_for - _TIMER_SLACK:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_for = due
            self._timer = asyncio.get_running_loop().call_later(max(due - now, _TIMER_SLACK), self._on_timer)

    def _dispatch(self, event: Event) -> bool:
        if isinstance(event, ExternalAddressChanged):
            if self._on_external is not None:
                self._on_external(event.address)
            return False
        operation: Operation | None = getattr(event, "operation", None)
        if operation is None:
            return False
        handler = self._watchers.get(operation)
        if isinstance(event, Finished):
            self._watchers.pop(operation, None)
        if handler is not None:
            handler(event)
        return handler is not None

    def begin(self, start: Callable[[DhtCore, float], Op], on_event: EventHandler) -> Op:
        """Start an operation on the core; its events go to `on_event`, None if the node closes before its end."""
        core = self._live_core()
        now = time.monotonic()
        operation = start(core, now)
        self._watchers[operation] = on_event
        self._pump(now)
        return operation

    def cancel(self, operation: Operation) -> None:
        """End an operation early; nothing more is heard of it."""
        if self._watchers.pop(operation, None) is not None and self._core is not None:
            now = time.monotonic()
            self._core.cancel(operation, now)
            self._pump(now)

    async def run(
        self, start: Callable[[DhtCore, float], Op], enough: Callable[[Event], bool] = lambda event: False
    ) -> Op:
        """Start an operation and wait for its end, or for an event that is `enough`; cancelling it cancels both."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_event(event: Event | None) -> None:
            if done.done():
                return
            if event is None:
                done.set_exception(DhtClosedError("the DHT node was closed during the operation"))
            elif isinstance(event, Finished) or enough(event):
                done.set_result(None)

        operation = self.begin(start, on_event)
        try:
            await done
        except asyncio.CancelledError:
            self.cancel(operation)
            raise
        return operation

    # Joining

    async def bootstrap(self, nodes: Iterable[str] = ()) -> int:
        """Wait until the node has joined, or has found that it can't; `nodes` (`HOST:PORT`) are joined through too.

        Returns how many nodes the routing table holds. Raises InvalidAddrError for unreadable nodes.
        """
        self._live_core()
        assert self._joining is not None
        await self._joining.join(parse_bootstrap(nodes))
        return self.table_size()

    async def ready(self) -> None:
        """Wait until there is anybody to ask."""
        self._live_core()
        assert self._joining is not None
        await self._joining.ready()
        self._live_core()

    def unreachable(self, operation: Operation) -> DhtUnreachableError:
        """The error for an operation that had no reply: who was asked, and what became of the bootstrap nodes."""
        assert self._joining is not None
        asked = f"{operation.queries_sent} queries had no reply" if operation.queries_sent else "no node is known"
        return DhtUnreachableError(f"no DHT node answered: {asked}; {self._joining.report()}")

    def network_changed(self) -> None:
        """Say that the host has moved to another network: external addresses and RTTs are learned anew."""
        core = self._live_core()
        now = time.monotonic()
        core.network_changed(now)
        self._pump(now)

    # Items (BEP 44)

    async def get(self, public_key: bytes, salt: bytes = b"", *, min_seq: int = 0) -> MutableItem | None:
        """The item of a key with the highest `seq` that the closest nodes hold, None if they hold none.

        `public_key`: 32 bytes; `salt`: 0 to 64 bytes. Raises DhtUnreachableError if no node answered, DhtUsageError.
        """
        await self.ready()
        operation = await self.run(lambda core, now: core.get_mutable(public_key, now, salt=salt, min_seq=min_seq))
        if operation.item is None and not operation.replies:
            raise self.unreachable(operation)
        return operation.item if isinstance(operation.item, MutableItem) else None

    async def get_values(
        self, public_key: bytes, salt: bytes = b"", *, min_seq: int = 0, wanted: Wanted | None = None
    ) -> AsyncGenerator[MutableItem]:
        """The items of a key as they arrive: the first valid one at once, then those with a higher `seq`.

        `wanted`: whether an item counts, where others may hold the key as well.
        Closing the iterator ends the work. Raises DhtUnreachableError if no node answered, DhtUsageError.
        """
        async with await self.values() as stream:
            operation = stream.add(public_key, salt, min_seq=min_seq, wanted=wanted)
            async for item in stream:
                yield item
            if not operation.replies:
                raise self.unreachable(operation)

    async def values(self) -> ValueStream:
        """A stream to which gets can be added, made when there is anybody to ask."""
        await self.ready()
        return ValueStream(self)

    def start_get(
        self, public_key: bytes, salt: bytes, min_seq: int, on_event: EventHandler, wanted: Wanted | None = None
    ) -> GetOperation:
        """Start a get whose events go to `on_event`."""
        return self.begin(
            lambda core, now: core.get_mutable(public_key, now, salt=salt, min_seq=min_seq, wanted=wanted), on_event
        )

    async def get_immutable(self, target: bytes) -> ImmutableItem | None:
        """The item whose SHA-1 is `target` (20 bytes), None if the closest nodes don't hold it.

        Raises DhtUnreachableError if no node answered, DhtUsageError.
        """
        await self.ready()
        operation = await self.run(lambda core, now: core.get_immutable(target, now))
        if operation.item is None and not operation.replies:
            raise self.unreachable(operation)
        return operation.item if isinstance(operation.item, ImmutableItem) else None

    async def put(self, item: Item, *, cas: int | None = None, wait_for: WaitFor = "quorum") -> PutResult:
        """Store an item on the nodes closest to its target.

        Returns when a quorum has stored it while the rest goes on, or with `wait_for="all"` when that is done too.
        Raises SupersededError, CasMismatchError, DhtUnreachableError or DhtPutError if no node stored it, and ItemError
        if its signature is wrong.
        """
        await self.ready()

        def enough(event: Event) -> bool:
            return wait_for == "quorum" and isinstance(event, Stored)

        operation = await self.run(lambda core, now: core.put(item, now, cas=cas), enough)
        if operation.finished and operation.outcome is not PutOutcome.STORED:
            raise self._put_error(operation)
        seq = item.seq if isinstance(item, MutableItem) else None
        return PutResult(item.target, operation.acknowledged, seq)

    def _put_error(self, operation: PutOperation) -> Exception:
        if operation.outcome is PutOutcome.SUPERSEDED:
            return SupersededError(operation.newer_seq, operation.newer_item)
        if operation.outcome is PutOutcome.CAS_MISMATCH:
            return CasMismatchError(f"most nodes don't hold sequence number {operation.cas}; get it and try again")
        if not operation.replies:
            return self.unreachable(operation)
        codes = ", ".join(f"error {code} from {count}" for code, count in sorted(operation.error_codes.items()))
        return DhtPutError(f"no DHT node stored the item ({codes or 'none of those that answered takes items'})")

    async def put_mutable(
        self,
        key: SecretKey,
        value: Bencodable,
        *,
        seq: int | None = None,
        salt: bytes = b"",
        cas: int | None = None,
        wait_for: WaitFor = "quorum",
    ) -> PutResult:
        """Sign a value (bytes up to 996, or any bencodable value up to 1000 bencoded) and store it; see `put`.

        Without `seq` the time in microseconds is taken, raised where needed above the last one of this node.
        """
        if seq is None:
            seq = max(time.time_ns() // 1000, self._last_seq + 1)
        self._last_seq = max(self._last_seq, seq)
        return await self.put(MutableItem.sign(key.private_key, value, seq, salt), cas=cas, wait_for=wait_for)

    async def put_immutable(self, value: Bencodable, *, wait_for: WaitFor = "quorum") -> PutResult:
        """Store a value under its own hash, which the result gives as `target`; see `put`."""
        return await self.put(ImmutableItem.create(value), wait_for=wait_for)

    # Peers (BEP 5)

    async def get_peers(self, info_hash: bytes) -> AsyncGenerator[Address]:
        """Peers announced for an infohash (20 bytes) as they are found; unauthenticated, so cap what you send them.

        Closing the iterator ends the work. Raises DhtUnreachableError if no node answered, DhtUsageError.
        """
        await self.ready()
        queue: asyncio.Queue[tuple[Address, ...] | None] = asyncio.Queue()

        def on_event(event: Event | None) -> None:
            if event is None or isinstance(event, Finished):
                queue.put_nowait(None)
            elif isinstance(event, PeersFound):
                queue.put_nowait(event.peers)

        operation = self.begin(lambda core, now: core.get_peers(info_hash, now), on_event)
        try:
            while (peers := await queue.get()) is not None:
                for peer in peers:
                    yield peer
        finally:
            self.cancel(operation)
        self._live_core()
        if not operation.replies:
            raise self.unreachable(operation)

    async def announce_peer(self, info_hash: bytes, port: int | None = None) -> int:
        """Announce ourselves for an infohash (20 bytes); returns how many nodes took it, after a quorum.

        Without `port` nodes store the port that they see us at. Raises DhtUnreachableError or DhtPutError.
        """
        operation = await self.announced(info_hash, port)
        if operation.acknowledged:
            return operation.acknowledged
        if not operation.replies:
            raise self.unreachable(operation)
        raise DhtPutError("no DHT node took the announcement")

    async def announced(self, info_hash: bytes, port: int | None = None) -> AnnounceOperation:
        """Announce ourselves as `announce_peer` does; the operation, which tells what was found on the way."""
        await self.ready()

        def start(core: DhtCore, now: float) -> AnnounceOperation:
            seen_at = self._transport.local_addrs[0].port  # a fallback for nodes that don't know implied_port
            return core.announce_peer(info_hash, port or seen_at, now, implied_port=port is None)

        return await self.run(start, lambda event: isinstance(event, Stored))

    def poll_all(self, watch: MailboxOperation | None) -> None:
        """Ask all nodes of a mailbox now, besides the polls in turn."""
        if watch is not None and not watch.finished:
            core = self._live_core()
            now = time.monotonic()
            core.poll_all(watch, now)
            self._pump(now)

    # Nodes

    async def ping(self, address: Address) -> PingResult:
        """Ask the node at `(ip, port)` for its id. Raises DhtUnreachableError if it is silent, DhtUsageError."""
        operation = await self.run(lambda core, now: core.ping(address, now))
        if operation.node_id is None or operation.rtt is None:
            raise DhtUnreachableError(f"no DHT node answers at {SocketAddr(*address)}")
        return PingResult(address, operation.node_id, operation.rtt)

    async def find_node(self, target: bytes) -> tuple[Contact, ...]:
        """The nodes closest to an id (20 bytes) that answered, nearest first. Raises DhtUnreachableError."""
        await self.ready()
        operation = await self.run(lambda core, now: core.find_node(target, now))
        if not operation.replies:
            raise self.unreachable(operation)
        return operation.closest

    # State

    @property
    def local_addrs(self) -> tuple[SocketAddr, ...]:
        """Where the node's sockets are bound, one a family; hosts may be wildcards."""
        return tuple(self._transport.local_addrs)

    @property
    def pending(self) -> int:
        """Operations under way, the node's own join included."""
        return len(self._watchers)

    def external_address(self, family: Family) -> Address | None:
        """Where others see the node in a family, port 0 if they see differing ports; None if that is not known."""
        return self._live_core().external_address(family) if family in self._families else None

    def has_asked(self, address: Address) -> bool:
        """Whether the node has ever sent to an address."""
        return self._live_core().has_asked(address)

    @property
    def is_serving(self) -> bool:
        """Whether the node answers queries."""
        return self._live_core().serving

    def node_id(self, family: Family = Family.IPV4) -> bytes:
        """Our 20-byte id in one family's DHT."""
        return self._live_core().node_id(family)

    def table_size(self) -> int:
        """Good nodes in the routing tables of both families."""
        core = self._live_core()
        return sum(core.table_size(family) for family in self._families)

    def knows_nodes(self) -> bool:
        """Whether any node in the routing tables is good: `table_size() > 0`, but quicker."""
        return self._live_core().knows_nodes()

    def stats(self) -> NodeStats:
        """Where the node stands."""
        core = self._live_core()
        assert self._joining is not None
        counters = core.counters
        external = {family.value: core.external_address(family) for family in self._families}
        return NodeStats(
            node_ids={family.value: core.node_id(family) for family in self._families},
            table={family.value: core.table_size(family) for family in self._families},
            dht_size={family.value: core.estimated_dht_size(family) for family in self._families},
            external={family: address for family, address in external.items() if address is not None},
            serving=core.serving,
            received=counters.received,
            sent=counters.sent,
            received_bytes=counters.received_bytes,
            sent_bytes=counters.sent_bytes,
            queries_in=dict(counters.queries_in),
            queries_out=dict(counters.queries_out),
            timeouts=counters.timeouts,
            dropped=dict(counters.dropped),
            lost_here=self._transport.dropped,
            failures=self.failures,
            bootstrap=self._joining.outcomes(),
        )
