"""Searches: what lookups in both families are done for, shared by the operations that want the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .address import Address, family_of, prefix_key
from .bencode import Bencodable, encode
from .context import Context, FamilyState
from .errors import BencodeError
from .events import Finished, PeersFound, ValueFound
from .items import (
    MAX_ENCODED_VALUE,
    MAX_SEQ,
    ImmutableItem,
    Item,
    MutableItem,
    immutable_target,
)
from .krpc import Message, parse_peers
from .lookup import Candidate, Lookup, Progress
from .nodeid import as_int
from .operations import Contact, GetOperation, Operation, PeersOperation, Wanted
from .spread import Spread
from .targets import region

_PEERS_PER_REPLY = 200
_MAX_PEERS = 2000
_MAX_NAMED_HOSTS = 512
_CLOSEST = 20
_FARTHEST = 3
"""Times the width of a search to which it reaches past a crowd: who makes up 16 nodes around a target has not shut the
honest ones out."""


_ASIDE_FOR = 10.0
"""Seconds for which those who were found beside a crowd need not be looked for again: whoever dials looks for a record,
announces a call and finds out how to call, all at one place."""
_MAX_ASIDES = 64
_GROWN = 4
"""Times as many nodes as a DHT was taken to have when a look-up looked beside a crowd, for it to look again: it was too
far off."""


class Search:
    """Lookups of one target, one for each family that has nodes, for the operations that share it."""

    takes_late_answers = False
    needs_only_tokens = False
    burst = 0
    asks_for_size = False
    """Whether to find out how many nodes the DHT has, where that is not known: nothing tells a crowd without."""
    passes_crowds = True
    """Whether it goes on past nodes made up around the target."""

    def __init__(self, context: Context, target: bytes, width: int, *, items: bool) -> None:
        self._context = context
        self.target = target
        self.width = width
        self._items = items
        self.operations: list[Operation] = []
        self.lookups: list[Lookup] = []
        self.finished = False
        self.tells_size = True
        self.most: int | None = None
        """Queries of each lookup at most, where it is for another search."""
        self.spread: Spread | None = None
        """That of the lookup for whose sake it is."""
        self.avoid: frozenset[bytes] = frozenset()
        """Ids of nodes that are not asked."""
        self.at_end: list[Callable[[float], None]] = []
        """Called with `now` when the search has ended."""
        self.keep_going = False
        """Whether someone waits for the outcome, though no operation does."""
        self._reaches: dict[Lookup, int] = {}
        self._beside: dict[Lookup, int] = {}
        """Lookups that have looked beside a crowd, and how many nodes the DHT was taken to have."""
        self._sized: set[Lookup] = set()

    def start(self, now: float) -> None:
        """Begin the lookups; ends at once if nobody is known."""
        self.lookups = [
            Lookup(self._context, state, self.target, self, self.width, items=self._items) for state in self.states()
        ]
        for lookup in list(self.lookups):
            if not self.finished:
                lookup.burst = self.burst
                lookup.most = self.most or lookup.most
                lookup.tells_size = self.tells_size
                lookup.spread = self.spread or lookup.spread
                lookup.avoid = self.avoid
                lookup.start(now)
                if self.passes_crowds and not lookup.done and lookup.is_crowded(self.width, self.width):
                    # Known from a moment ago: those beyond are asked together with it.
                    self.reaches_on(lookup, self.width, now)
        if not self.lookups:
            self.finish(now)

    def start_unless_finished(self, now: float) -> None:
        """Begin, if nobody has cancelled it meanwhile."""
        if not self.finished:
            self.start(now)

    def states(self) -> list[FamilyState]:
        """The families to look in."""
        return [state for state in self._context.families.values() if state.usable]

    def lookup_query(self, lookup: Lookup, candidate: Candidate) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `LookupClient`."""
        return b"find_node", {b"target": lookup.target}

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """See `LookupClient`."""
        for operation in self.operations:
            operation.replies += 1

    def on_progress(self, lookup: Lookup, now: float) -> None:
        """See `LookupClient`."""

    def on_without_items(self) -> None:
        """See `LookupClient`."""

    def on_sent(self, lookup: Lookup) -> None:
        """See `LookupClient`."""
        for operation in self.operations:
            operation.queries_sent += 1

    def on_timeout(self, lookup: Lookup) -> None:
        """See `LookupClient`."""
        for operation in self.operations:
            operation.timeouts += 1

    def on_lookup_done(self, lookup: Lookup, now: float) -> None:
        """See `LookupClient`."""
        if all(other.done for other in self.lookups):
            self.finish(now)

    def reach(self, lookup: Lookup) -> int:
        """How many of the closest nodes count: more than `width` where some are made up."""
        return self._reaches.get(lookup, self.width)

    def reaches_on(self, lookup: Lookup, width: int, now: float) -> bool:
        """Whether a lookup goes on past nodes made up around the target, which would shut the honest ones out.

        `width`: how many nodes should have been enough.
        """
        reach = self._reaches.get(lookup, width)
        avoid: frozenset[bytes] = frozenset()
        if lookup.is_crowded(width, width) and lookup.size >= _GROWN * self._beside.get(lookup, 0):
            # Everybody names the nearest that he knows, which are these: the others are named to who asks beside them,
            # and who does not ask these again.
            self._beside[lookup] = lookup.size
            reach = max(reach, width + self.width)
            beside = lookup.ids_beside(self.width)
            avoid = lookup.crowd(width)
        elif lookup.is_crowded(width, reach) and reach + self.width <= _FARTHEST * self.width:
            reach += self.width
            beside = []
        elif self.asks_for_size and lookup not in self._sized and len(lookup.answered()) >= self.width:
            self._sized.add(lookup)
            if lookup.knows_size:
                return False
            beside = [lookup.id_far_off()]
        else:
            return False
        self._reaches[lookup] = reach
        for node_id in beside:
            self._look(lookup, node_id, avoid, (lookup.most - lookup.sent) // (2 * len(beside)), now)
        lookup.widen(reach, now)
        return True

    def _look(self, lookup: Lookup, node_id: bytes, avoid: frozenset[bytes], most: int, now: float) -> None:
        """Look up another id, with so many queries at most, for the sake of a lookup, which does not end before.

        Others who want the same share it. `avoid`: ids of nodes that are not asked.
        """
        asides, there = lookup.state.asides, region(node_id)
        search, since = asides.get(there, (None, now))
        if search is not None and now - since >= _ASIDE_FOR:
            search = None
        if search is not None and search.finished:
            for each in search.lookups:
                lookup.take_from_beside(each, now)
            return
        if most <= 0:
            return
        begins = search is None
        if search is None:
            search = FindSearch(self._context, node_id, self.width, lookup.state)
            search.most = most
            search.spread = lookup.spread
            search.avoid = avoid
            search.tells_size = not avoid
            if len(asides) >= _MAX_ASIDES:
                del asides[next(iter(asides))]
            asides.pop(there, None)
            asides[there] = (search, now)
        found = search

        def ended(now: float) -> None:
            for each in found.lookups:
                for operation in self.operations:
                    operation.queries_sent += each.sent
                if begins:
                    lookup.sent += each.sent
                lookup.waited_for(each, now)

        found.at_end.append(ended)
        lookup.waits += 1
        if begins:
            found.start(now)

    def leave(self, operation: Operation, now: float) -> None:
        """End one operation early; the search goes on for the others."""
        if operation in self.operations:
            self.operations.remove(operation)
            self._end(operation, now)
            if not self.operations and not self.keep_going:
                self.finish(now)

    def finish(self, now: float) -> None:
        """End the search and its operations."""
        if self.finished:
            return
        self.finished = True
        for lookup in self.lookups:
            lookup.abort()
            lookup.remember()
        operations, self.operations = self.operations, []
        for operation in operations:
            self._end(operation, now)
        at_end, self.at_end = self.at_end, []
        for call in at_end:
            call(now)

    def _end(self, operation: Operation, now: float) -> None:
        target = as_int(self.target)
        found = [c for lookup in self.lookups for c in lookup.answered()]
        found.sort(key=lambda c: as_int(c.node_id) ^ target)
        operation.closest = tuple(Contact(c.node_id, c.address) for c in found[:_CLOSEST])
        operation.finished = True
        operation.ended_at = now
        self._context.running.pop(operation, None)
        self._context.events.append(Finished(operation))


class FindSearch(Search):
    """Finds the nodes closest to an id."""

    passes_crowds = False

    def __init__(self, context: Context, target: bytes, width: int, only: FamilyState | None = None) -> None:
        super().__init__(context, target, width, items=False)
        self._only = only

    def states(self) -> list[FamilyState]:
        """See `Search`."""
        return [self._only] if self._only is not None else super().states()


class JoinSearch(Search):
    """Looks for our own id in each family, which is not the same in both, starting at the bootstrap addresses."""

    def __init__(self, context: Context, width: int, through: Sequence[Address] = ()) -> None:
        super().__init__(context, next(iter(context.families.values())).table.own_id, width, items=False)
        self._through = through

    def states(self) -> list[FamilyState]:
        """See `Search`."""
        families = {family_of(host) for host, _ in self._through}
        states = self._context.families.values()
        return [state for state in states if state.usable or state.family in families]

    def start(self, now: float) -> None:
        """See `Search`."""
        states = self.states()
        self.lookups = [
            Lookup(self._context, state, state.table.own_id, self, self.width, items=False) for state in states
        ]
        for lookup, state in zip(list(self.lookups), states, strict=True):
            through = [addr for addr in self._through if family_of(addr[0]) is state.family]
            lookup.start(now, seeds=[*state.bootstrap, *through])
        if not self.lookups:
            self.finish(now)


class GetSearch(Search):
    """Finds a BEP 44 item: the first valid one at once, then higher sequence numbers."""

    def __init__(
        self,
        context: Context,
        target: bytes,
        width: int,
        *,
        public_key: bytes | None,
        salt: bytes,
        min_seq: int,
        wanted: Wanted | None = None,
    ) -> None:
        super().__init__(context, target, width, items=True)
        self.burst = context.config.get_burst
        self._public_key = public_key
        self._salt = salt
        self.min_seq = min_seq
        self._wanted = wanted
        self._best: Item | None = None
        self._was_lied_to = False
        self._wider: set[Lookup] = set()

    def on_lookup_done(self, lookup: Lookup, now: float) -> None:
        """See `LookupClient`."""
        if self.finished:
            return
        width = self.width if self._best is None else min(self.width, self._context.config.get_confirmations)
        self.asks_for_size = self._best is None or self._was_lied_to
        if self.reaches_on(lookup, width, now):
            return
        if self._best is None and lookup not in self._wider:
            # Who has put it may have known other nodes than we do, or reached those that are silent to us: look around
            # once before saying that it is not there.
            self._wider.add(lookup)
            lookup.ask_silent(now)
            lookup.widen(max(2 * self.width, lookup.width), now)
            return
        super().on_lookup_done(lookup, now)

    def join(self, operation: GetOperation, now: float) -> None:
        """Share the search; what was found already is reported at once."""
        self.operations.append(operation)
        if self._best is not None:
            self._report(operation, self._best, now)

    def _report(self, operation: Operation, item: Item, now: float) -> None:
        if not isinstance(operation, GetOperation):
            return
        if isinstance(item, MutableItem) and item.seq < operation.min_seq:
            return
        operation.item = item
        if operation.first_result_at is None:
            operation.first_result_at = now
        self._context.events.append(ValueFound(operation, item))

    def take_held(self, item: Item, now: float) -> None:
        """Count what this very node stores for others as a first answer: in a small DHT nobody else may hold it."""
        if isinstance(item, MutableItem) is not (self._public_key is not None):
            return
        if isinstance(item, MutableItem) and (item.seq < self.min_seq or not self._wants(item)):
            return
        self._best = item
        for operation in list(self.operations):
            self._report(operation, item, now)
        if self._public_key is None:
            self.finish(now)

    def _wants(self, item: MutableItem) -> bool:
        return self._wanted is None or self._wanted(item)

    def lookup_query(self, lookup: Lookup, candidate: Candidate) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `LookupClient`."""
        args: dict[bytes, Bencodable] = {b"target": self.target}
        if self._public_key is not None and not candidate.refreshed:
            # Without seq libtorrent returns an unsigned forgery where one was put. What we know needs no repeat.
            args[b"seq"] = self._best.seq if isinstance(self._best, MutableItem) else max(0, self.min_seq - 1)
        return b"get", args

    def on_without_items(self) -> None:
        """See `LookupClient`."""
        for operation in self.operations:
            if isinstance(operation, GetOperation):
                operation.without_bep44 += 1

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """See `LookupClient`."""
        super().on_answer(lookup, candidate, reply, now)
        if self._public_key is None:
            item: Item | None = read_immutable(self._context, self.target, reply)
        else:
            seq = reply.body.get(b"seq")
            if type(seq) is int and 0 <= seq <= MAX_SEQ:
                candidate.seq = seq
                if seq == 0 and b"v" not in reply.body and self._best is None and self.min_seq == 0:
                    # libtorrent sends an item of sequence number 0 only to a get without seq.
                    lookup.ask_again(candidate, now)
                    return
            floor = self._best.seq if isinstance(self._best, MutableItem) else self.min_seq
            item, lied = read_mutable(self._context, self._public_key, self._salt, reply, floor, self._best)
            if lied:
                self._was_lied_to = candidate.lied = True
                candidate.progress = Progress.FAILED
                lookup.state.table.forget(candidate.node_id, candidate.address)
        if item is None or item == self._best or (isinstance(item, MutableItem) and not self._wants(item)):
            return
        self._best = item
        for other in self.lookups:
            if other not in self._reaches:
                other.width = min(other.width, self._context.config.get_confirmations)
            other.burst = 0
        for operation in list(self.operations):
            self._report(operation, item, now)
        if self._public_key is None:
            self.finish(now)


def read_immutable(context: Context, target: bytes, reply: Message) -> ImmutableItem | None:
    """The item in a reply if it has the target's hash."""
    value = reply.body.get(b"v")
    if value is None:
        return None
    encoded = _encoded(value)
    if encoded is None:
        context.counters.dropped["bad-value"] += 1
    elif immutable_target(encoded) != target:
        context.counters.dropped["bad-target"] += 1
    else:
        return ImmutableItem(encoded)
    return None


def read_mutable(
    context: Context, public_key: bytes, salt: bytes, reply: Message, floor: int, best: Item | None
) -> tuple[MutableItem | None, bool]:
    """The item in a reply if it is ours, validly signed and newer than `best`, and whether the node lied."""
    body, dropped = reply.body, context.counters.dropped
    if b"v" not in body:
        return None, False
    if body.get(b"k") != public_key:
        dropped["bad-key"] += 1
        return None, True
    seq, signature, encoded = body.get(b"seq"), body.get(b"sig"), _encoded(body[b"v"])
    if (
        type(seq) is not int
        or not 0 <= seq <= MAX_SEQ
        or type(signature) is not bytes
        or len(signature) != 64
        or encoded is None
    ):
        dropped["bad-value"] += 1
        return None, True
    if seq < floor:
        dropped["stale"] += 1
        return None, False
    item = MutableItem(public_key, encoded, seq, signature, salt)
    if item == best or (isinstance(best, MutableItem) and seq == best.seq):
        return None, False
    if not context.verifier.check(item):
        dropped["bad-signature"] += 1
        return None, True
    return item, False


def _encoded(value: Bencodable) -> bytes | None:
    try:
        encoded = encode(value)
    except BencodeError:
        return None
    return encoded if len(encoded) <= MAX_ENCODED_VALUE else None


class PeersSearch(Search):
    """Finds peers announced for an infohash."""

    def __init__(self, context: Context, target: bytes, width: int) -> None:
        super().__init__(context, target, width, items=False)
        self._peers: dict[tuple[str, int], None] = {}

    def on_lookup_done(self, lookup: Lookup, now: float) -> None:
        """See `LookupClient`."""
        if self.finished or self.reaches_on(lookup, self.width, now):
            return
        if lookup.ask_silent(now, self.least_silent(lookup)):
            # At most as many as are waited for, and once in a look-up: no answer is no proof that nobody is announced.
            lookup.widen(lookup.width, now)
            return
        super().on_lookup_done(lookup, now)

    def least_silent(self, lookup: Lookup) -> int:
        """How many of the nearest nodes must be silent for them to be asked again: one before it is said that there is
        nobody, half of them where others have been named, since who announces reaches those too."""
        return 1 if not self._peers or lookup.is_ill_heard else self.width // 2

    def join(self, operation: PeersOperation, now: float) -> None:
        """Share the search; what was found already is reported at once."""
        self.operations.append(operation)
        if self._peers:
            report_peers(self._context, operation, tuple(self._peers), now)

    def lookup_query(self, lookup: Lookup, candidate: Candidate) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `LookupClient`."""
        return b"get_peers", {b"info_hash": self.target}

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """See `LookupClient`."""
        super().on_answer(lookup, candidate, reply, now)
        note_who_names(self.operations, candidate.address, reply)
        fresh = new_peers(self._peers, reply)
        if fresh:
            for operation in self.operations:
                if isinstance(operation, PeersOperation):
                    report_peers(self._context, operation, fresh, now)


def new_peers(known: dict[tuple[str, int], None], reply: Message) -> tuple[tuple[str, int], ...]:
    """Peers of a reply that were not known, now noted; at most 200 of a reply and 2000 in all."""
    fresh = []
    for peer in parse_peers(reply.body.get(b"values"), _PEERS_PER_REPLY):
        if peer[1] and peer not in known and len(known) < _MAX_PEERS:
            known[peer] = None
            fresh.append(peer)
    return tuple(fresh)


def note_who_names(operations: Iterable[Operation], node: Address, reply: Message) -> None:
    """Note for which IPs a node of another network vouches, by naming peers there."""
    hosts = {peer[0] for peer in parse_peers(reply.body.get(b"values"), _PEERS_PER_REPLY)}
    for operation in operations if hosts else ():
        if isinstance(operation, PeersOperation):
            for host in hosts:
                if host in operation.named_by or len(operation.named_by) < _MAX_NAMED_HOSTS:
                    operation.named_by.setdefault(host, set()).add(prefix_key(node[0]))


def report_peers(context: Context, operation: PeersOperation, peers: tuple[tuple[str, int], ...], now: float) -> None:
    """Tell an operation's owner of peers."""
    operation.peers.extend(peers)
    if operation.first_result_at is None:
        operation.first_result_at = now
    context.events.append(PeersFound(operation, peers))
