"""What all parts of one node share."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from .address import LOCAL, Address, Family, Networks, is_usable
from .bencode import Bencodable
from .config import DhtConfig
from .counters import Counters
from .events import Event
from .external import ExternalAddress
from .items import Verifier
from .operations import Operation
from .rpc import Query, QueryHandler, Rpc
from .rtt import RttTable
from .sizing import SizeEstimate
from .table import RoutingTable
from .targets import TargetCache
from .timers import TimerQueue

if TYPE_CHECKING:
    from .lookup import Lookup
    from .searches import FindSearch

_MAX_BOOTSTRAP = 64
_WITHOUT_ITEMS_LIFETIME = 6 * 3600.0
"""How long a node is taken to lack BEP 44 after an error 204; it may be upgraded, or its address change hands."""
_MAX_WITHOUT_ITEMS = 4096
_SILENCE_LIFETIME = 600.0
_MAX_SILENT = 4096
_SILENCES = 2
"""Unanswered queries after which a node that has never answered is left out of look-ups for 10 minutes: other nodes
keep naming it for longer than that, and each look-up would send to it and wait for it. With 5% loss each way a live
one gets there once in 100, and the table's own pings bring it back."""


class Run(Protocol):
    """Whatever carries operations out."""

    def leave(self, operation: Operation, now: float) -> None:
        """End an operation early."""


class FamilyState:
    """One family's part of a node."""

    def __init__(self, family: Family, table: RoutingTable) -> None:
        self.family = family
        self.table = table
        self.external = ExternalAddress()
        self.size = SizeEstimate()
        self.bootstrap: list[Address] = []
        self.lookups: list[Lookup] = []
        """Lookups under way."""
        self.asides: dict[bytes, tuple[FindSearch, float]] = {}
        """Look-ups beside crowds and when they began, by the region that they look up."""
        self.reachable = False

    def add_bootstrap(self, addresses: Iterable[Address]) -> None:
        """Keep first hops, at most 64."""
        for address in addresses:
            if address not in self.bootstrap and len(self.bootstrap) < _MAX_BOOTSTRAP:
                self.bootstrap.append(address)

    @property
    def usable(self) -> bool:
        """Whether there is anyone to ask."""
        return bool(self.bootstrap) or len(self.table) > 0


class Context:
    """Tables, transactions, caches and outgoing queues of one node."""

    def __init__(
        self, config: DhtConfig, rng: random.Random, ids: dict[Family, bytes], is_excluded: Callable[[Address], bool]
    ) -> None:
        self.config = config
        self.rng = rng
        self.counters = Counters()
        self.timers = TimerQueue()
        self.rtts = RttTable(config)
        self.trusted = Networks(config.trusted_networks)
        self.verifier = Verifier()
        self.targets = TargetCache(config)
        self.families = {
            family: FamilyState(family, RoutingTable(node_id, config, self.trusted)) for family, node_id in ids.items()
        }
        self.rpc = Rpc(config, rng, self.timers, self.rtts, self.counters, self.trusted, self.send)
        self.rpc.on_timeout = self._note_timeout
        self.events: list[Event] = []
        self.running: dict[Operation, Run] = {}
        """What each unfinished operation is done by."""
        self.outgoing: list[tuple[bytes, Address]] = []
        self.neighbours: frozenset[Address] = frozenset()
        """Whose questions about nodes are answered although we are a client: they have nobody else to ask."""
        self._is_excluded = is_excluded
        self._without_items: OrderedDict[Address, float] = OrderedDict()
        self._silent: OrderedDict[Address, tuple[int, float]] = OrderedDict()
        self._heard_at = float("-inf")
        self._searches = 0

    def new_search(self) -> int:
        """A number for a new search."""
        self._searches += 1
        return self._searches

    def send(self, data: bytes, address: Address) -> None:
        """Queue a datagram."""
        if len(self.outgoing) >= self.config.max_queued_datagrams:
            self.counters.dropped["queue-full"] += 1
            return
        self.counters.sent += 1
        self.counters.sent_bytes += len(data)
        self.outgoing.append((data, address))

    def query(
        self,
        state: FamilyState,
        address: Address,
        method: bytes,
        args: dict[bytes, Bencodable],
        handler: QueryHandler,
        now: float,
        *,
        node_id: bytes | None = None,
        resend: int = 0,
        resend_after: tuple[float, ...] = (),
    ) -> Query:
        """Send a query with our id of this family."""
        args[b"id"] = state.table.own_id
        return self.rpc.query(
            address, method, args, handler, now, node_id=node_id, resend=resend, resend_after=resend_after
        )

    def may_query(self, state: FamilyState, address: Address, named_by: Address | None) -> bool:
        """Whether an address that someone named may be asked: usable, not ours, not excluded, and local only if its
        namer is local too, or strangers could point us at the machines around us."""
        if not is_usable(address) or address == state.external.address:
            return False
        if named_by is not None and address[0] in LOCAL and named_by[0] not in LOCAL:
            return False
        return not self.is_excluded(address)

    def is_excluded(self, address: Address) -> bool:
        """Whether an address must not be asked now; it may have been otherwise when it was named."""
        if self._is_excluded(address):
            self.counters.dropped["excluded"] += 1
            return True
        return False

    def mark_without_items(self, address: Address, now: float) -> None:
        """A node answered 204 to a BEP 44 query."""
        self._without_items[address] = now + _WITHOUT_ITEMS_LIFETIME
        self._without_items.move_to_end(address)
        if len(self._without_items) > _MAX_WITHOUT_ITEMS:
            self._without_items.popitem(last=False)

    def lacks_items(self, address: Address, now: float) -> bool:
        """Whether a node is known not to speak BEP 44."""
        return self._without_items.get(address, now) > now

    def is_silent(self, address: Address, now: float) -> bool:
        """Whether a node has left several queries unanswered of late."""
        count, until = self._silent.get(address, (0, now))
        return count >= _SILENCES and until > now

    def heard_from(self, address: Address, now: float) -> None:
        """A node answered."""
        self._heard_at = now
        self._silent.pop(address, None)

    def heard_too_late(self, address: Address) -> None:
        """A node sent what may be an answer to a query that we have forgotten: it is slow, and not gone."""
        self._silent.pop(address, None)

    def forget_silences(self) -> None:
        """The host has moved: who could not be reached may be now."""
        self._silent.clear()

    def _note_timeout(self, query: Query, now: float) -> None:
        if self._heard_at > query.sent_at:
            # Where nobody else has answered since, it may be our own network that is down.
            count, until = self._silent.pop(query.address, (0, now))
            self._silent[query.address] = (count + 1 if until > now else 1, now + _SILENCE_LIFETIME)
            if len(self._silent) > _MAX_SILENT:
                self._silent.popitem(last=False)
        for state in self.families.values():
            state.table.failed(query.node_id, query.address)
