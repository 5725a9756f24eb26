"""The iterative lookup (BEP 5) of one target in one family.

Of the closest `width` nodes known, all that were not asked yet are asked at once, up to `alpha` in flight. A node that
stays silent past its RTT-based time-out is no longer waited for, and the next closest takes its place; its late reply
still counts. The lookup ends when the closest `width` nodes that are not silent have answered.

Who is silent may be dead, or be waited for too briefly where a machine or a network is busy. Whoever is about to
conclude something from a lookup, that nothing is there or where something belongs, has the silent ones asked again
first.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections.abc import Sequence
from operator import attrgetter
from statistics import median_high
from typing import Protocol

from .address import Address, Family, family_of, pack_address
from .bencode import Bencodable
from .context import Context, FamilyState
from .krpc import METHOD_UNKNOWN, Message, parse_nodes
from .nodeid import as_int
from .rpc import Query
from .sizing import is_crowded, size_of
from .spread import Spread
from .targets import MAX_TOKEN, CachedNode, region

_SEEDS = 20
_MAX_CANDIDATES = 128
_CACHED_NODES = 40
_MAX_LEFT_OUT = 64
"""Nodes named in a lookup that are remembered though they are left out, as they have been silent of late."""
_SCOUTS = 2
_HEAD_START = 0.005
"""Nodes that answer within this many seconds, on this host or network, have told what they hold about when the others
have been asked: two are asked first, for as long, and with the value in hand fewer of the others need to be."""
_BESIDE = 3
"""Ids beside a crowded target that are looked up: in the 3 parts of the DHT next to it lie 7 of 8 nodes that the crowd
hides."""
_by_distance = attrgetter("distance")


class Progress(enum.Enum):
    """How far a lookup has come with one node."""

    NEW = enum.auto()
    SENT = enum.auto()
    STALLED = enum.auto()
    REPLIED = enum.auto()
    FAILED = enum.auto()


class Candidate:
    """A node as one lookup sees it."""

    __slots__ = (
        "address",
        "compact",
        "distance",
        "known",
        "lied",
        "node_id",
        "plain",
        "progress",
        "refreshed",
        "seq",
        "silent",
        "token",
        "token_at",
    )

    def __init__(self, node_id: bytes, address: Address, compact: bytes, distance: int) -> None:
        self.node_id = node_id
        self.address = address
        self.compact = compact
        self.distance = distance
        self.progress = Progress.NEW
        self.token: bytes | None = None
        self.token_at = float("-inf")
        self.seq: int | None = None
        """The sequence number that it says it holds (BEP 44)."""
        self.plain = False
        """Asked with find_node, since it doesn't know the lookup's own method."""
        self.refreshed = False
        """Asked a second time, for a fresh token or an item of sequence number 0."""
        self.silent = False
        """Did not answer in time, now or when it was asked before."""
        self.known = False
        """Has answered for this target, or for one with the same nodes, before."""
        self.lied = False
        """Has sent what can't be true."""


class LookupClient(Protocol):
    """What a lookup is done for."""

    takes_late_answers: bool
    """Whether answers that come after the lookup's end are of use."""
    needs_only_tokens: bool
    """Whether a cached token does instead of an answer: for a write, not for what is to be read."""

    def lookup_query(self, lookup: Lookup, candidate: Candidate) -> tuple[bytes, dict[bytes, Bencodable]]:
        """Method and arguments (without `id`) to ask a node with."""

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """A node answered; its nodes and token have been noted. May mark the candidate FAILED."""

    def on_progress(self, lookup: Lookup, now: float) -> None:
        """A reply, error or time-out was dealt with, and the next queries are on their way."""

    def on_lookup_done(self, lookup: Lookup, now: float) -> None:
        """The closest `width` nodes that answer are known."""

    def on_without_items(self) -> None:
        """A node doesn't know BEP 44 (error 204)."""

    def on_sent(self, lookup: Lookup) -> None:
        """A query was sent."""

    def on_timeout(self, lookup: Lookup) -> None:
        """A query stalled."""


class Lookup:
    """One lookup under way."""

    def __init__(
        self, context: Context, state: FamilyState, target: bytes, client: LookupClient, width: int, *, items: bool
    ) -> None:
        self._context = context
        self.state = state
        self.target = target
        self.width = width
        self.burst = 0
        """How many nodes to ask at the first step, if more than `width`; at every step where few nodes are known."""
        self._cold = False
        self.done = False
        self.search = context.new_search()
        self.sent = 0
        self.most = context.config.max_lookup_queries
        """Queries after which it ends with what it has."""
        self.tells_size = True
        """Whether its nodes count for the estimate of the DHT's size: not those beside a crowd, which may be of it."""
        self.spread = Spread()
        """Shared by look-ups for the sake of one."""
        self.avoid: frozenset[bytes] = frozenset()
        """Ids of nodes that are not asked: a crowd, beside which this one looks."""
        self.waits = 0
        """Look-ups beside this one that may still name nodes."""
        self._client = client
        self._items = items
        self._target = as_int(target)
        self._order: list[Candidate] = []
        self._by_id: dict[bytes, Candidate] = {}
        self._by_query: dict[Query, Candidate | None] = {}
        self._addresses: set[Address] = set()
        self._left_out: dict[bytes, tuple[Address, bytes, Address]] = {}
        """By node id, of nodes that are silent of late: address, compact form, and who named it."""
        self._asked_silent = False
        self._in_flight = 0
        self._seeds_in_flight = 0
        self._seeds_until = float("-inf")
        self._stepping = False
        self._scouts_until = float("-inf")

    # Candidates

    def start(self, now: float, seeds: Sequence[Address] = ()) -> None:
        """Ask the closest nodes of cache and table, `seeds`, and the bootstrap addresses where there are few nodes."""
        state, targets = self.state, self._context.targets
        for other in state.lookups:
            # One of the same target is under way: what has answered it need not be asked for a token again.
            for known in other.answered() if other.target == self.target else ():
                candidate = self._add_known(known, now)
                if self._client.needs_only_tokens and candidate is not None and known.token is not None:
                    candidate.progress = Progress.REPLIED
                    candidate.token, candidate.token_at, candidate.seq = known.token, known.token_at, known.seq
        for cached in targets.nodes(state.family, self.target):
            candidate = self._add_known(cached, now)
            token = targets.fresh_token(cached, now)
            if not self._client.needs_only_tokens or candidate is None:
                continue
            if token is not None and not candidate.plain:
                candidate.progress = Progress.REPLIED
                candidate.token, candidate.token_at, candidate.seq = token, cached.token_at, cached.seq
        for other in state.lookups:
            for known in other.answered() if region(other.target) == region(self.target) else ():
                self._add_known(known, now)
        for cached in targets.nodes_of_neighbour(state.family, self.target):
            self._add_known(cached, now)
        proven = state.table.closest(self._target, _SEEDS)
        for node in proven:
            self._add(node.node_id, node.address, node.compact, None, now)
        if len(self._order) < _SEEDS:
            for node in state.table.closest(self._target, _SEEDS, include_candidates=True):
                self._add(node.node_id, node.address, node.compact, None, now)
        state.lookups.append(self)
        self.add_seeds(seeds, now)
        if len(proven) < self._context.config.get_width:
            self._cold = True
            self.burst = max(self.burst, self._context.config.cold_burst) if self.burst else 0
            self.add_seeds(state.bootstrap, now)
        elif self.burst and all(self._is_near(candidate) for candidate in self._order[:_SCOUTS]):
            self._scouts_until = now + _HEAD_START
            self._context.timers.at(self._scouts_until, self._after)
        self.step(now)

    def _add_known(self, known: Candidate | CachedNode, now: float) -> Candidate | None:
        """Take a node that has answered for this target, or for one with the same nodes."""
        candidate = self._add(known.node_id, known.address, known.compact, None, now)
        if candidate is not None:
            candidate.known = True
        return candidate

    def _is_near(self, candidate: Candidate) -> bool:
        rtt = self._context.rtts.least(candidate.address)
        return rtt is not None and rtt < _HEAD_START

    def add_seeds(self, addresses: Sequence[Address], now: float) -> None:
        """Ask addresses whose node id is not known, retransmitting.

        Once another node has answered they are waited for no longer than the initial time-out.
        """
        for address in addresses:
            if (
                address not in self._addresses
                and self._context.rpc.has_room
                and self._context.may_query(self.state, address, None)
            ):
                self._addresses.add(address)
                self._seeds_in_flight += 1
                self._send(None, address, now)
        if self._seeds_in_flight and self._seeds_until <= now:
            self._seeds_until = now + self._context.config.initial_timeout
            self._context.timers.at(self._seeds_until, self._after)

    def offer(self, node_id: bytes, address: Address, compact: bytes, now: float) -> None:
        """Take a node that answered someone else's query, if this lookup knows few."""
        if not self.done and len(self._order) < self.width and self._add(node_id, address, compact, None, now):
            self.step(now)

    def _add(
        self, node_id: bytes, address: Address, compact: bytes, named_by: Address | None, now: float
    ) -> Candidate | None:
        context = self._context
        if node_id in self._by_id or address in self._addresses or node_id == self.state.table.own_id:
            return None
        if node_id in self.avoid:
            return None
        distance = as_int(node_id) ^ self._target
        if len(self._order) >= _MAX_CANDIDATES and distance >= self._order[-1].distance:
            return None
        if self._items and context.lacks_items(address, now) and not self._leads_on(distance):
            return None
        if not context.may_query(self.state, address, named_by):
            return None
        if address[0] not in context.trusted and not self.spread.takes(address, context.config.max_nodes_per_prefix):
            return None
        candidate = Candidate(node_id, address, compact, distance)
        candidate.plain = self._items and context.lacks_items(address, now)
        self._by_id[node_id] = candidate
        self._addresses.add(address)
        insort(self._order, candidate, key=_by_distance)
        if len(self._order) > _MAX_CANDIDATES and self._order[-1].progress is Progress.NEW:
            del self._by_id[self._order.pop().node_id]
        return candidate

    def _leads_on(self, distance: int) -> bool:
        """Whether a node that can't do what we look for may still name nodes that count: none of ours is so near."""
        answered = self.answered()
        return len(answered) < self.width or distance < answered[self.width - 1].distance

    @property
    def is_starving(self) -> bool:
        """Whether fewer nodes are known than wanted."""
        return len(self._order) < self.width

    def answered(self) -> list[Candidate]:
        """Nodes that answered the lookup's own method, nearest first."""
        return [c for c in self._order if c.progress is Progress.REPLIED]

    def in_reach(self) -> list[Candidate]:
        """Nodes that have answered or still may, nearest first."""
        return [c for c in self._order if c.progress is not Progress.FAILED and c.progress is not Progress.STALLED]

    # Asking

    def step(self, now: float) -> None:
        """Ask whom there is to ask; end if all of the closest have answered."""
        if self.done or self._stepping:
            return
        self._stepping = True
        config, rpc = self._context.config, self._context.rpc
        left = self.width
        if now < self._scouts_until:
            left = _SCOUTS
        elif self.burst and self._order:
            left = max(left, self.burst)
            if not self._cold:
                self.burst = 0
        pending = False
        for candidate in list(self._order):
            progress = candidate.progress
            if progress is Progress.FAILED or progress is Progress.STALLED:
                continue
            if progress is Progress.NEW and self._context.is_excluded(candidate.address):
                # A record that has come since names it as a peer, whose router a query would spoil.
                candidate.progress = Progress.FAILED
                continue
            if left == 0:
                break
            left -= 1
            if progress is Progress.NEW:
                if self._in_flight >= max(config.alpha, self.burst):
                    pending = True
                elif self.sent < self.most and rpc.has_room:
                    pending = True
                    self._ask(candidate, now)
            elif progress is Progress.SENT:
                pending = True
        self._stepping = False
        if (
            pending
            or self.waits
            or (left and self._seeds_in_flight and (now < self._seeds_until or not self.answered()))
        ):
            return
        self._finish(now)

    def _ask(self, candidate: Candidate, now: float) -> None:
        candidate.progress = Progress.SENT
        self._in_flight += 1
        self._send(candidate, candidate.address, now)

    def ask_again(self, candidate: Candidate, now: float) -> bool:
        """Ask a node a second time, once; whether it was."""
        if candidate.refreshed or self.sent >= self.most:
            return False
        candidate.refreshed = True
        candidate.token = None
        self._ask(candidate, now)
        return True

    @property
    def is_ill_heard(self) -> bool:
        """Whether so many are silent that it is rather the network, or a busy machine, than they who are at fault."""
        return sum(c.silent for c in self._order) > len(self.answered())

    def ask_silent(self, now: float, least: int = 1) -> bool:
        """Ask the silent ones of the closest `width` nodes once more; whether any were. `widen` waits for them.

        `least`: how many there must be. Where most of those who were asked are silent it is the network, or a busy
        machine, that wants patience, and not many more packets: the second try comes late enough for answers to the
        first.
        """
        if self._asked_silent:
            return False
        self._asked_silent = True
        for node_id, (address, compact, named_by) in self._left_out.items():
            if (candidate := self._add(node_id, address, compact, named_by, now)) is not None:
                candidate.silent = True
                candidate.progress = Progress.STALLED
        resend_after = (3 * self._context.config.initial_timeout,) if self.is_ill_heard else ()
        closest = [c for c in self._order if c.silent or c.progress is not Progress.FAILED][: self.width]
        again = [c for c in closest if c.silent]
        if len(again) < least:
            return False
        for candidate in again:
            candidate.progress = Progress.SENT
            self._in_flight += 1
            self._send(candidate, candidate.address, now, resend_after)
        return bool(again)

    def _send(
        self, candidate: Candidate | None, address: Address, now: float, resend_after: tuple[float, ...] = ()
    ) -> None:
        context = self._context
        if candidate is None:
            # An address of unknown id: worth several tries, as nothing goes on without the first hop.
            method, args = self._client.lookup_query(self, Candidate(b"", address, b"", 0))
            node_id, resend, resend_after = None, 0, context.config.bootstrap_retransmits
        else:
            if candidate.plain:
                method, args = b"find_node", {b"target": self.target}
            else:
                method, args = self._client.lookup_query(self, candidate)
            # Where others can take a silent node's place, they do; among few, a lost packet must be repeated.
            resend = 1 if not resend_after and len(self._order) <= self.width // 2 else 0
            node_id = candidate.node_id
        if len(context.families) > 1 and any(
            len(other.table) < context.config.get_width
            for other in context.families.values()
            if other is not self.state
        ):
            args[b"want"] = [b"n4", b"n6"]
        query = context.query(
            self.state,
            address,
            method,
            args,
            self,
            now,
            node_id=node_id,
            resend=resend,
            resend_after=resend_after,
        )
        self._by_query[query] = candidate
        self.sent += 1
        self._client.on_sent(self)

    # Answers

    def _settle(self, query: Query, *, keep: bool = False) -> Candidate | None:
        self._scouts_until = float("-inf")
        candidate = self._by_query.get(query)
        if not keep:
            self._by_query.pop(query, None)
        if not query.stalled or keep:
            if candidate is None:
                self._seeds_in_flight -= 1
            else:
                self._in_flight -= 1
        return candidate

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """See `QueryHandler`."""
        candidate = self._settle(query)
        if self.done and not self._client.takes_late_answers:
            return
        if candidate is None:
            candidate = self._adopt_seed(query, reply)
        elif reply.node_id != candidate.node_id:
            self._context.counters.dropped["bad-node-id"] += 1
            self.state.table.forget(candidate.node_id, candidate.address)
            candidate.progress = Progress.FAILED
            self._after(now)
            return
        if candidate is not None:
            candidate.silent = False
            if candidate.plain:
                candidate.progress = Progress.FAILED
            else:
                candidate.progress = Progress.REPLIED
                token = reply.body.get(b"token")
                if type(token) is bytes and 0 < len(token) <= MAX_TOKEN:
                    candidate.token, candidate.token_at = token, now
                self._client.on_answer(self, candidate, reply, now)
        self._take_nodes(query.address, reply, now)
        self._after(now)

    def _adopt_seed(self, query: Query, reply: Message) -> Candidate | None:
        """The candidate for an address whose id has just become known."""
        if reply.node_id == self.state.table.own_id or reply.node_id in self._by_id:
            return None
        distance = as_int(reply.node_id) ^ self._target
        candidate = Candidate(reply.node_id, query.address, reply.node_id + pack_address(query.address), distance)
        candidate.plain = query.method == b"find_node" and self._items
        self._by_id[reply.node_id] = candidate
        insort(self._order, candidate, key=_by_distance)
        return candidate

    def _take_nodes(self, source: Address, reply: Message, now: float) -> None:
        for family, key in ((Family.IPV4, b"nodes"), (Family.IPV6, b"nodes6")):
            state = self._context.families.get(family)
            raw = reply.body.get(key)
            if state is None or type(raw) is not bytes:
                continue
            size = 20 + family.compact_size
            own = state is self.state
            for index, (node_id, address) in enumerate(parse_nodes(raw, family)):
                if own and node_id in self._by_id:
                    continue
                if family_of(address[0]) is not family or not self._context.may_query(state, address, source):
                    continue
                if self._context.is_silent(address, now):
                    if own and len(self._left_out) < _MAX_LEFT_OUT:
                        self._left_out.setdefault(node_id, (address, raw[index * size : (index + 1) * size], source))
                    continue
                compact = raw[index * size : (index + 1) * size]
                state.table.heard_of(node_id, address, compact)
                if own:
                    self._add(node_id, address, compact, source, now)

    def on_error(self, query: Query, error: Message, now: float) -> None:
        """See `QueryHandler`."""
        candidate = self._settle(query)
        if self._items and error.code == METHOD_UNKNOWN and query.method != b"find_node":
            self._context.mark_without_items(query.address, now)
            self._client.on_without_items()
        if self.done:
            return
        if candidate is None:
            if query.method != b"find_node" and self._context.rpc.has_room:
                # A bootstrap node that can't do this may still name others.
                self._seeds_in_flight += 1
                self._send_plain_seed(query.address, now)
        elif error.code == METHOD_UNKNOWN and not candidate.plain and self._leads_on(candidate.distance):
            candidate.plain = True
            self._ask(candidate, now)
        else:
            candidate.progress = Progress.FAILED
        self._after(now)

    def _send_plain_seed(self, address: Address, now: float) -> None:
        args: dict[bytes, Bencodable] = {b"target": self.target}
        query = self._context.query(self.state, address, b"find_node", args, self, now, resend=2)
        self._by_query[query] = None
        self.sent += 1
        self._client.on_sent(self)

    def on_stall(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        candidate = self._settle(query, keep=True)
        if candidate is not None and candidate.progress is Progress.SENT:
            candidate.progress = Progress.STALLED
            candidate.silent = True
        self._client.on_timeout(self)
        self._after(now)

    def on_lost(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        candidate = self._settle(query)
        if candidate is not None and candidate.progress is Progress.STALLED:
            candidate.progress = Progress.FAILED

    def _after(self, now: float) -> None:
        self.step(now)
        self._client.on_progress(self, now)

    # Ending

    def widen(self, width: int, now: float) -> None:
        """Look for more nodes, after the end too."""
        self.width = width
        if self.done:
            self.done = False
            self.state.lookups.append(self)
        self.step(now)

    @property
    def size(self) -> int:
        """How many nodes the DHT has by what look-ups of other targets tell, 0 if unknown."""
        # Those of one that has just started are under way together, and have come as far as this one. What they have
        # heard of is there at least; the first to end may have had few answers, and say too little.
        others = {other.target: other for other in self.state.lookups if other.tells_size}
        least = [other.least_size() for target, other in others.items() if region(target) != region(self.target)]
        told = median_high(filter(None, least)) if any(least) else 0
        return max(told, self.state.size.nodes(besides=self.target))

    @property
    def knows_size(self) -> bool:
        """Whether a look-up of another target has ended, and so told how many nodes the DHT has."""
        return self.state.size.nodes(besides=self.target) > 0

    def least_size(self) -> int:
        """How many nodes the DHT has at least, by those that this look-up has heard of; 0 if these are few."""
        width = self._context.config.get_width
        distances = [candidate.distance for candidate in self.in_reach()[:width]]
        return size_of(distances) if len(distances) == width else 0

    def id_far_off(self) -> bytes:
        """An id in another part of the DHT, where nobody has made up nodes around this target."""
        return (self._target ^ 1 << 159).to_bytes(20, "big")

    def ids_beside(self, width: int) -> list[bytes]:
        """Ids that lie about as far from the target as its nearest `width` nodes should, in several directions."""
        radius = (width << 160) // max(1, self.size)
        farthest = min(158, radius.bit_length() - 1)
        return [(self._target ^ 1 << bit).to_bytes(20, "big") for bit in range(farthest, farthest - _BESIDE, -1)]

    def take_from_beside(self, beside: Lookup, now: float) -> None:
        """Who has answered a look-up beside the target may be near to this target too."""
        for each in beside.answered():
            self._add(each.node_id, each.address, each.compact, None, now)

    def waited_for(self, beside: Lookup, now: float) -> None:
        """A look-up beside the target has ended."""
        self.waits -= 1
        self.take_from_beside(beside, now)
        if not self.done:
            self._after(now)

    def _met(self, count: int) -> list[Candidate]:
        """The nearest nodes that exist, whatever they say."""
        return [c for c in self._order if c.progress is Progress.REPLIED or c.known or c.lied][:count]

    def is_crowded(self, width: int, reach: int) -> bool:
        """Whether the nearest `reach` nodes lie where only some of `width` should."""
        nearest = self._met(reach)
        return len(nearest) == reach and is_crowded(self.size, width, nearest[-1].distance)

    def crowd(self, width: int) -> frozenset[bytes]:
        """The ids of the nearest `width` nodes, and of those among them that are silent."""
        nearest = self._met(width)
        return frozenset(c.node_id for c in self._order if nearest and c.distance <= nearest[-1].distance)

    def abort(self) -> None:
        """Ask no more; what is under way is ignored."""
        if not self.done:
            self.done = True
            self.state.lookups.remove(self)

    def remember(self) -> None:
        """Put what was found into the target cache."""
        nodes = [CachedNode(c.node_id, c.address, c.compact, c.token, c.token_at, c.seq) for c in self.answered()][
            :_CACHED_NODES
        ]
        if nodes:
            self._context.targets.store(self.state.family, self.target, nodes)

    def _finish(self, now: float) -> None:
        self.done = True
        self.state.lookups.remove(self)
        nearest = self.answered()[: self.width]
        if self.tells_size:
            self.state.size.add(self.target, [candidate.distance for candidate in nearest])
        self.state.table.mark_refreshed(self.target, now)
        self.remember()
        self._client.on_lookup_done(self, now)
