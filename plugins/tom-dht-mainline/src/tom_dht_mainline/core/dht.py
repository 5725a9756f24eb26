"""The facade: one Mainline DHT node, client and server, IPv4 and IPv6, without any I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TypeVar

from .address import Address, Family, family_of, is_usable, pack_address
from .config import DhtConfig
from .context import Context, FamilyState
from .counters import Counters
from .errors import BencodeError, DhtUsageError, ItemError, KrpcError
from .events import Event
from .items import MAX_ENCODED_VALUE, MAX_SALT, MAX_SEQ, Item, MutableItem, mutable_target
from .krpc import Message, parse
from .limits import Limits
from .nodeid import random_id
from .operations import (
    AnnounceOperation,
    FindNodeOperation,
    GetOperation,
    MailboxOperation,
    Operation,
    PeersOperation,
    PingOperation,
    PutOperation,
    Wanted,
)
from .ping import PingRun
from .rendezvous.mailbox import MailboxWatch
from .searches import FindSearch, GetSearch, PeersSearch, Search
from .server import Server
from .snapshot import MAX_SAVED_NODES, FamilySnapshot, Snapshot
from .stores import AnnounceSearch, PutSearch
from .upkeep import Upkeep

_K = TypeVar("_K")
_S = TypeVar("_S", bound=Search)


class DhtCore:
    """A sans-IO DHT node: datagrams and `now` (monotonic seconds) in, datagrams and events out.

    After every call that takes `now`, the shell sends `datagrams_to_send()`, handles `events()` and re-arms its one
    timer for `next_timer()`. `receive` and `handle_timer` never raise. `now` must never go backwards.
    """

    def __init__(
        self,
        config: DhtConfig | None = None,
        *,
        rng: random.Random,
        now: float,
        snapshot: Snapshot | None = None,
        is_excluded: Callable[[Address], bool] | None = None,
    ) -> None:
        """A node that knows nobody but the nodes of `snapshot`.

        `rng` must be unpredictable in production (`random.SystemRandom()`): transaction ids and tokens come from it.
        `is_excluded(addr)` names addresses never to be queried, such as the peers that are being punched.
        """
        config = config or DhtConfig()
        enabled = [f for f, on in ((Family.IPV4, config.ipv4), (Family.IPV6, config.ipv6)) if on]
        saved = snapshot.families if snapshot is not None else {}
        ids = {family: saved[family].node_id if family in saved else random_id(rng) for family in enabled}
        self._context = Context(config, rng, ids, is_excluded or (lambda address: False))
        self._limits = Limits(config, self._context.counters, self._context.trusted)
        self._server = Server(self._context, now)
        self._upkeep = Upkeep(self._context, now)
        self._gets: dict[tuple[bytes, bool], GetSearch] = {}
        self._peer_searches: dict[bytes, PeersSearch] = {}
        for family in enabled:
            if family in saved:
                state = self._context.families[family]
                state.external.address = saved[family].external
                for node_id, ip, port in saved[family].nodes:
                    state.table.restore(node_id, (ip, port), node_id + pack_address((ip, port)))

    # Pumping

    def receive(self, data: bytes, addr: Address, now: float) -> None:
        """Take a datagram from `addr`; anything malformed is dropped and counted."""
        context, counters = self._context, self._context.counters
        counters.received += 1
        counters.received_bytes += len(data)
        if len(data) > context.config.max_incoming:
            counters.dropped["too-large"] += 1
            return
        if data[:1] != b"d" or data[-1:] != b"e":
            counters.dropped["not-krpc"] += 1
            return
        state = context.families.get(family_of(addr[0]))
        try:
            ip = pack_address(addr)
        except (OSError, OverflowError, ValueError):
            state = None
        if state is None or addr[1] == 0:
            counters.dropped["bad-source"] += 1
            return
        # Sorted out before decoding: what floods us is either queries, or replies that nobody asked for.
        if b"1:y1:q" in data:
            if not self._limits.admit_query(addr[0], now):
                return
            if not self._upkeep.serving and addr not in context.neighbours and not context.rpc.expects(addr):
                self._upkeep.note_query(addr)
                counters.dropped["client-mode"] += 1
                return
        elif not context.rpc.expects(addr):
            counters.dropped["unsolicited"] += 1
            context.heard_too_late(addr)
            return
        try:
            message = parse(data)
        except BencodeError:
            counters.dropped["bencode"] += 1
            return
        except KrpcError:
            counters.dropped["not-krpc"] += 1
            return
        if message.kind == "q":
            self._on_query(message, state, addr, ip, now)
        else:
            self._on_answer(message, state, addr, ip, now)

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`; calling early or late is harmless."""
        self._context.timers.run(now)

    def next_timer(self) -> float | None:
        """When `handle_timer` is next needed, None if never."""
        return self._context.timers.next()

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """The datagrams to send now, in order; each is returned once."""
        outgoing, self._context.outgoing = self._context.outgoing, []
        return outgoing

    def events(self) -> list[Event]:
        """What happened since the last call, in order; each event is returned once."""
        events, self._context.events = self._context.events, []
        return events

    # Joining

    def bootstrap(
        self, addresses: Iterable[Address], now: float, *, through: Iterable[Address] = ()
    ) -> FindNodeOperation:
        """Join through addresses of unknown id, all asked at once, retransmitting; finishes when our id is looked up.

        May be called again with further addresses (names that resolve late) or after a network change. The addresses
        are kept, at most 64, as first hops for lookups while the table is nearly empty. Operations may be started
        before it has finished: they go to the same addresses. Without any address or saved node it finishes at once.
        `through`: addresses that are asked now and not kept, as those of nodes that we happen to be connected to.
        """
        usable = [addr for addr in addresses if is_usable(addr)]
        for family, state in self._context.families.items():
            state.add_bootstrap(addr for addr in usable if family_of(addr[0]) is family)
        search = self._upkeep.start_join(now, [addr for addr in through if is_usable(addr)])
        operation = FindNodeOperation(target=search.target, started_at=now)
        self._run(search, operation, now)
        for state in self._context.families.values():
            # Operations that began before these addresses were known can use them.
            for lookup in list(state.lookups):
                if lookup.is_starving:
                    lookup.add_seeds(state.bootstrap, now)
        return operation

    def set_neighbours(self, addresses: Iterable[Address]) -> None:
        """Say which nodes we are connected to otherwise: they may ask us for nodes even while we are a client.

        They are let in by our NAT, as strangers are not, so their queries don't count as signs of being reachable.
        """
        self._context.neighbours = frozenset(addresses)

    def network_changed(self, now: float) -> None:
        """Forget external addresses and RTTs, and refresh the table: the host has moved to another network."""
        context = self._context
        context.rtts.clear()
        context.targets.clear()
        context.forget_silences()
        for state in context.families.values():
            state.external.clear()
            state.table.mark_all_stale()
        self._upkeep.forget_reachability(now)
        for run in list(context.running.values()):
            if isinstance(run, MailboxWatch):
                run.look_again(now)
        search = self._upkeep.start_join(now)
        search.start(now)

    # Operations; each raises DhtUsageError for arguments that the DHT can't carry

    def ping(self, addr: Address, now: float) -> PingOperation:
        """Ask one node for its id."""
        state = self._context.families.get(family_of(addr[0]))
        if state is None or not is_usable(addr):
            raise DhtUsageError(f"{addr[0]} port {addr[1]} can't be pinged: no host, or its family is switched off")
        self._check_room()
        operation = PingOperation(target=b"", started_at=now, address=addr)
        run = PingRun(self._context, operation)
        self._context.running[operation] = run
        run.start(state, now)
        return operation

    def find_node(self, target: bytes, now: float) -> FindNodeOperation:
        """Find the nodes closest to a 20-byte id."""
        _check_id(target, "target")
        self._check_room()
        operation = FindNodeOperation(target=target, started_at=now)
        self._run(FindSearch(self._context, target, self._context.config.k), operation, now)
        return operation

    def get_mutable(
        self, public_key: bytes, now: float, *, salt: bytes = b"", min_seq: int = 0, wanted: Wanted | None = None
    ) -> GetOperation:
        """Find a key's mutable item (BEP 44): events `ValueFound` for the first valid one, and for each higher `seq`.

        Items with `seq` below `min_seq` are ignored, and those that are not `wanted`: where several hold the key, what
        one of them puts must not hide what another has put. Concurrent gets of one target share a lookup.
        """
        if len(public_key) != 32:
            raise DhtUsageError(f"a public key has 32 bytes, not {len(public_key)}")
        if len(salt) > MAX_SALT:
            raise DhtUsageError(f"the salt has {len(salt)} bytes; at most {MAX_SALT} are allowed")
        if not 0 <= min_seq <= MAX_SEQ:
            raise DhtUsageError("the sequence number must lie in 0..2**63-1")
        operation = GetOperation(
            target=mutable_target(public_key, salt),
            started_at=now,
            public_key=public_key,
            salt=salt,
            min_seq=min_seq,
            wanted=wanted,
        )
        return self._get(operation, now)

    def get_immutable(self, target: bytes, now: float) -> GetOperation:
        """Find an immutable item by its 20-byte hash; finishes as soon as it is found."""
        _check_id(target, "target")
        return self._get(GetOperation(target=target, started_at=now), now)

    def put(self, item: Item, now: float, *, cas: int | None = None) -> PutOperation:
        """Store an item on the nodes closest to its target: event `Stored` at the quorum, `Finished` after repairs.

        `cas` (mutable items): store only where the stored sequence number equals it. Putting an unchanged item again
        renews it. The signature of a mutable item is checked here: `ItemError` if it is wrong.
        """
        if isinstance(item, MutableItem):
            item.check_shape()
            if not self._context.verifier.check(item):
                raise ItemError("the item's signature does not fit its key, salt, sequence number and value")
        elif cas is not None:
            raise DhtUsageError("only mutable items have a sequence number to compare with (cas)")
        elif len(item.encoded) > MAX_ENCODED_VALUE:
            raise ItemError(f"the value takes {len(item.encoded)} bytes; at most {MAX_ENCODED_VALUE} are stored")
        self._check_room()
        operation = PutOperation(target=item.target, started_at=now, item=item, cas=cas)
        search = PutSearch(self._context, operation)
        self._context.running[operation] = search
        getting = self._gets.get((operation.target, isinstance(item, MutableItem)))
        if getting is not None and not getting.finished:
            # The get under way finds nodes and tokens for this put too.
            getting.at_end.append(search.start_unless_finished)
            getting.keep_going = True
        else:
            search.start(now)
        return operation

    def get_peers(self, info_hash: bytes, now: float) -> PeersOperation:
        """Find peers announced for a 20-byte infohash: `PeersFound` as they come."""
        _check_id(info_hash, "infohash")
        self._check_room()
        operation = PeersOperation(target=info_hash, started_at=now)
        search = self._peer_searches.get(info_hash)
        fresh = search is None or search.finished
        if search is None or search.finished:
            search = PeersSearch(self._context, info_hash, self._context.config.get_width)
            self._share(self._peer_searches, info_hash, search)
        self._context.running[operation] = search
        search.join(operation, now)
        if fresh:
            search.start(now)
        return operation

    def announce_peer(self, info_hash: bytes, port: int, now: float, *, implied_port: bool = True) -> AnnounceOperation:
        """Announce ourselves for an infohash; with `implied_port` nodes store the port that they see us at."""
        _check_id(info_hash, "infohash")
        if not 0 < port < 65536:
            raise DhtUsageError(f"{port} is no UDP port")
        self._check_room()
        operation = AnnounceOperation(target=info_hash, started_at=now, port=port, implied_port=implied_port)
        search = AnnounceSearch(self._context, operation)
        self._context.running[operation] = search
        search.start(now)
        return operation

    def watch_mailbox(self, info_hash: bytes, interval: float, now: float) -> MailboxOperation:
        """Poll for peers announced under an infohash until cancelled, one node every `interval` seconds in turn."""
        _check_id(info_hash, "infohash")
        if not interval > 0:
            raise DhtUsageError("the seconds between two polls must be above 0")
        self._check_room()
        operation = MailboxOperation(target=info_hash, started_at=now, interval=interval)
        watch = MailboxWatch(self._context, operation)
        self._context.running[operation] = watch
        watch.start(now)
        return operation

    def poll_all(self, operation: MailboxOperation, now: float) -> None:
        """Ask all nodes of a mailbox now, besides the polls in turn."""
        watch = self._context.running.get(operation)
        if isinstance(watch, MailboxWatch):
            watch.poll_all(now)

    def has_asked(self, address: Address) -> bool:
        """Whether we have ever sent to an address (the last 8192 are remembered)."""
        return self._context.rpc.contacted(address)

    def cancel(self, operation: Operation, now: float) -> None:
        """End an operation early; it finishes with what it has, a shared lookup goes on for its other sharers."""
        if operation.finished:
            return
        operation.cancelled = True
        run = self._context.running.get(operation)
        if run is not None:
            run.leave(operation, now)

    # State

    @property
    def counters(self) -> Counters:
        """What was sent, received and dropped."""
        return self._context.counters

    @property
    def serving(self) -> bool:
        """Whether queries are answered and `ro` is left out."""
        return self._upkeep.serving

    def node_id(self, family: Family = Family.IPV4) -> bytes:
        """Our 20-byte id in one family's DHT."""
        return self._state(family).table.own_id

    def external_address(self, family: Family = Family.IPV4) -> Address | None:
        """Where nodes from separate searches see us; port 0 if they see differing ports (an address-dependent NAT)."""
        return self._state(family).external.address

    def table_size(self, family: Family = Family.IPV4) -> int:
        """Nodes in the routing table that answered us and are not bad."""
        return self._state(family).table.alive

    def knows_nodes(self) -> bool:
        """Whether any family's routing table holds a node that answered us and is not bad."""
        return any(state.table.has_alive for state in self._context.families.values())

    def estimated_dht_size(self, family: Family = Family.IPV4) -> int:
        """How many nodes the DHT has, judged by how close the closest ones to random targets are; 0 if unknown."""
        return self._state(family).size.nodes()

    def snapshot(self, now: float) -> Snapshot:
        """Node ids, external addresses and good nodes, to be saved and given to the next constructor."""
        parts = {}
        for family, state in self._context.families.items():
            nodes = sorted(state.table.nodes(), key=lambda node: (node.failures, -node.last_reply))
            parts[family] = FamilySnapshot(
                node_id=state.table.own_id,
                external=state.external.address,
                nodes=tuple((node.node_id, *node.address) for node in nodes[:MAX_SAVED_NODES]),
            )
        return Snapshot(parts)

    # Inside

    def _on_query(self, message: Message, state: FamilyState, addr: Address, ip: bytes, now: float) -> None:
        context = self._context
        own = context.rpc.is_own(message.tid, addr)
        if not own and addr not in context.neighbours:
            self._upkeep.note_query(addr)
            if not self._upkeep.serving:
                context.counters.dropped["client-mode"] += 1
                return
        elif not own and not self._upkeep.serving and message.method not in (b"ping", b"find_node"):
            context.counters.dropped["client-mode"] += 1
            return
        reply = self._server.answer(message, state, addr, ip, now)
        if self._limits.admit_reply(addr[0], len(reply), now):
            context.send(reply, addr)
        if not own and not message.read_only and not state.table.queried_us(message.node_id, addr, now):
            state.table.heard_of(message.node_id, addr, message.node_id + ip)

    def _on_answer(self, message: Message, state: FamilyState, addr: Address, ip: bytes, now: float) -> None:
        context = self._context
        query = context.rpc.match(message, addr, now)
        if query is None:
            context.heard_too_late(addr)
            return
        context.heard_from(addr, now)
        if message.kind == "e":
            query.handler.on_error(query, message, now)
            return
        fresh = False
        node_id = message.node_id
        if not message.read_only and (query.node_id is None or query.node_id == node_id):
            fresh = state.table.responded(node_id, addr, node_id + ip, now)
        seen = message.ip
        if seen is not None and family_of(seen[0]) is state.family and is_usable(seen):
            self._upkeep.vote(state, addr, seen, query.handler.search, now)
        query.handler.on_reply(query, message, now)
        if fresh:
            for lookup in list(state.lookups):
                lookup.offer(node_id, addr, node_id + ip, now)

    def _run(self, search: Search, operation: Operation, now: float) -> None:
        search.operations.append(operation)
        self._context.running[operation] = search
        search.start(now)

    def _get(self, operation: GetOperation, now: float) -> GetOperation:
        self._check_room()
        context = self._context
        key = (operation.target, operation.public_key is not None)
        search = self._gets.get(key) if operation.wanted is None else None
        if search is not None and not search.finished and search.min_seq <= operation.min_seq:
            context.running[operation] = search
            search.join(operation, now)
            return operation
        search = GetSearch(
            context,
            operation.target,
            context.config.get_width,
            public_key=operation.public_key,
            salt=operation.salt,
            min_seq=operation.min_seq,
            wanted=operation.wanted,
        )
        if operation.wanted is None:
            self._share(self._gets, key, search)
        context.running[operation] = search
        search.join(operation, now)
        held = self._server.items.get(operation.target, now)
        if held is not None:
            search.take_held(held, now)
        search.start_unless_finished(now)
        return operation

    @staticmethod
    def _share(searches: dict[_K, _S], key: _K, search: _S) -> None:
        """Let later operations join a search until it ends."""

        def unshare(now: float) -> None:
            if searches.get(key) is search:
                del searches[key]

        searches[key] = search
        search.at_end.append(unshare)

    def _check_room(self) -> None:
        if len(self._context.running) >= self._context.config.max_operations:
            raise DhtUsageError(
                f"{self._context.config.max_operations} operations are under way; await some before starting more"
            )

    def _state(self, family: Family) -> FamilyState:
        state = self._context.families.get(family)
        if state is None:
            raise DhtUsageError(f"the {family.value} DHT is switched off in the configuration")
        return state


def _check_id(value: bytes, name: str) -> None:
    if len(value) != 20:
        raise DhtUsageError(f"the {name} has {len(value)} bytes; it must have 20")
