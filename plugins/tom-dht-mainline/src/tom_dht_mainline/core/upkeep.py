"""What a node does unasked: rejoining, refreshing buckets, pinging nodes in doubt, finding out if it is reachable."""

from __future__ import annotations

from collections.abc import Sequence

from .address import LOCAL, Address, prefix_key
from .config import Mode
from .context import Context, FamilyState
from .events import ExternalAddressChanged, ModeChanged, NodeIdChanged
from .krpc import Message
from .nodeid import make_id, matches_ip
from .rpc import Query
from .searches import FindSearch, JoinSearch

_TICK_EARLY = 1.0
_EARLY = 30.0
"""Seconds after joining in which the table is filled quickly."""
_TICK = 5.0
_PINGS_EARLY = 12
_PINGS = 4
_REJOIN_FIRST = 5.0
_REJOIN_LAST = 300.0
"""Without any node the bootstrap addresses are asked again, at growing intervals."""
_WIDTH = 8
_CHECK_INTERVAL = 60.0
_PROBATION = 1800.0
"""A node whose own ping came back, but which no stranger has queried for this long, is a client after all: its ping
opened the way for itself in the firewall, or never left the host."""
_CHECK_AGAIN = 6 * 3600.0
_STRANGERS = 2


class _Ping:
    """Asks a node whether it is there; the routing table learns of it by itself."""

    search = 0

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """See `QueryHandler`."""

    def on_error(self, query: Query, error: Message, now: float) -> None:
        """See `QueryHandler`."""

    def on_stall(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""

    def on_lost(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""


class _SelfPing(_Ping):
    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """See `QueryHandler`."""
        self._upkeep.note_self_reply(now)


class Upkeep:
    """The housekeeping of one node, on one timer."""

    def __init__(self, context: Context, now: float) -> None:
        self._context = context
        self._joined_at = now
        self._rejoin_at = float("inf")
        self._rejoin_after = _REJOIN_FIRST
        self._refresh: dict[FamilyState, FindSearch] = {}
        self._next_check = now
        self._serving_since = now
        self._strangers: set[bytes] = set()
        self._confirmed = False
        self.serving = context.config.mode is Mode.SERVER
        context.rpc.read_only = not self.serving
        self.join: JoinSearch | None = None
        context.timers.at(now + _TICK_EARLY, self._tick)

    def start_join(self, now: float, through: Sequence[Address] = ()) -> JoinSearch:
        """Look for our own id from the bootstrap addresses; a join under way is replaced by a wider one.

        `through`: addresses that are asked as well, and not kept.
        """
        self._joined_at = now
        self._rejoin_at = now + _REJOIN_FIRST
        self._rejoin_after = _REJOIN_FIRST
        self.join = JoinSearch(self._context, _WIDTH, through)
        return self.join

    def _tick(self, now: float) -> None:
        early = now - self._joined_at < _EARLY
        self._context.timers.at(now + (_TICK_EARLY if early else _TICK), self._tick)
        self._rejoin(now)
        for state in self._context.families.values():
            if not state.usable:
                continue
            self._ping(state, _PINGS_EARLY if early else _PINGS, now)
            self._refresh_bucket(state, early, now)
        self._check_reachable(now)

    def _rejoin(self, now: float) -> None:
        if now < self._rejoin_at:
            return
        context = self._context
        alone = [state for state in context.families.values() if state.bootstrap and not len(state.table)]
        if alone and (self.join is None or self.join.finished):
            self._rejoin_after = min(2 * self._rejoin_after, _REJOIN_LAST)
            self.join = JoinSearch(context, _WIDTH)
            self.join.start(now)
        self._rejoin_at = now + self._rejoin_after

    def _ping(self, state: FamilyState, count: int, now: float) -> None:
        for node in state.table.nodes_to_ping(now, count):
            if self._context.is_excluded(node.address):
                continue
            if self._context.rpc.has_room and self._context.may_query(state, node.address, None):
                self._context.query(state, node.address, b"ping", {}, _Ping(), now, node_id=node.node_id)

    def _refresh_bucket(self, state: FamilyState, early: bool, now: float) -> None:
        running = self._refresh.get(state)
        if running is not None and not running.finished:
            return
        target = state.table.bucket_to_refresh(now, self._context.rng, filling=early)
        if target is not None:
            self._refresh[state] = search = FindSearch(self._context, target, _WIDTH, state)
            search.start(now)

    # Where and who we are

    def vote(self, state: FamilyState, voter: Address, seen: Address, search: int, now: float) -> None:
        """A node told us where it sees us."""
        if seen[0] in LOCAL and voter[0] not in LOCAL:
            return
        before = state.external.address
        if not state.external.vote(voter, seen, search, now, by_address=voter[0] in self._context.trusted):
            return
        address = state.external.address
        assert address is not None
        self._context.events.append(ExternalAddressChanged(state.family, address))
        self._next_check = now
        if before is not None and before[0] != address[0]:
            self._context.targets.clear()
        if not matches_ip(state.table.own_id, address[0]):
            node_id = make_id(address[0], self._context.rng)
            state.table.change_own_id(node_id)
            state.table.mark_all_stale()
            self._context.events.append(NodeIdChanged(state.family, node_id))
            search_self = FindSearch(self._context, node_id, _WIDTH, state)
            search_self.start(now)

    # Client or server

    def _check_reachable(self, now: float) -> None:
        if self._context.config.mode is not Mode.ADAPTIVE:
            return
        if self.serving:
            if not self._confirmed and now - self._serving_since > _PROBATION and not self._on_local_network():
                self._next_check = now + _CHECK_AGAIN
                self._set_serving(False)
            return
        if now < self._next_check:
            return
        for state in self._context.families.values():
            address = state.external.address
            if address is not None and address[1]:
                self._next_check = now + _CHECK_INTERVAL
                self._context.query(state, address, b"ping", {}, _SelfPing(self), now)

    def _on_local_network(self) -> bool:
        addresses = [state.external.address for state in self._context.families.values()]
        return all(address[0] in LOCAL for address in addresses if address is not None)

    def note_self_reply(self, now: float) -> None:
        """Our ping to our own external address was answered by ourselves."""
        if self._context.config.mode is Mode.ADAPTIVE and not self.serving:
            self._serving_since = now
            self._set_serving(True)

    def note_query(self, address: Address) -> None:
        """A query came; from strangers in two networks it proves that anyone can reach us."""
        if self._confirmed or self._context.config.mode is not Mode.ADAPTIVE or self._context.rpc.contacted(address):
            return
        self._strangers.add(prefix_key(address[0]))
        if len(self._strangers) >= _STRANGERS:
            self._confirmed = True
            if not self.serving:
                self._set_serving(True)

    def forget_reachability(self, now: float) -> None:
        """The host has moved: begin anew."""
        self._confirmed = False
        self._strangers.clear()
        self._next_check = now
        if self._context.config.mode is Mode.ADAPTIVE and self.serving:
            self._set_serving(False)

    def _set_serving(self, serving: bool) -> None:
        self.serving = serving
        self._context.rpc.read_only = not serving
        self._context.events.append(ModeChanged(serving))
