"""Looks for what others announce under an infohash, all the time and at little cost: the nodes nearest to it in turn.

Polling by look-ups would be hundreds of packets a minute. Here a look-up finds the nodes once in a while, and then one
of them is asked every `interval` seconds; who announces to all of them is found with the next poll.
"""

from __future__ import annotations

import itertools
from typing import Final

import attrs

from tom_dht_mainline.core.address import Address, Family
from tom_dht_mainline.core.bencode import Bencodable
from tom_dht_mainline.core.context import Context, FamilyState
from tom_dht_mainline.core.events import PeersNamed
from tom_dht_mainline.core.krpc import Message, parse_peers
from tom_dht_mainline.core.lookup import Candidate, Lookup
from tom_dht_mainline.core.operations import MailboxOperation, Operation
from tom_dht_mainline.core.rpc import Query
from tom_dht_mainline.core.searches import PeersSearch
from tom_dht_mainline.core.timers import Timer

WIDTH: Final = 8
"""Nodes that are polled in turn: announcements go to as many (BEP 5's k), and both reach past a crowd of made-up
ones."""
WIDTH_IPV6: Final = 4
FEWEST: Final = 4
"""With fewer nodes left they are looked for anew."""
LOOKS: Final = (3.0, 15.0, 60.0, 300.0, 900.0)
"""Seconds after each look-up until the next: a node that has just joined finds some that are not the nearest, later
others come and go."""
LOOK_SOONEST: Final = 20.0
"""Seconds between two look-ups at least, whatever happens."""
LOST_AFTER: Final = 2
"""Unanswered polls in a row after which a node is left out."""
PASSED: Final = 3
"""Turns for which a node that swallows announcements is passed over: it does not name our own, and others do."""
PEERS_PER_REPLY: Final = 128
"""libtorrent names up to 100."""
EARLY_LOOKS: Final = 2
"""Look-ups of one that has just joined, whose packets count as those of joining."""
_SLOWER: Final = 0.15
"""Part by which pauses are longer after a look-up until its packets are saved, so that no minute has more than others:
for a minute or so a caller waits 0.08 s longer."""
MOST_OWED: Final = 20.0
"""Packets that are saved at most: in a DHT in which look-ups take many, callers are not to wait longer all the time."""
_SPREAD: Final = 0.1
"""Part of a pause that is random, so that nobody can tell the moment of a poll beforehand."""


@attrs.define(eq=False)
class _Polled:
    node_id: bytes
    address: Address
    state: FamilyState
    failures: int = 0
    passed: int = 0


class _Look(PeersSearch):
    """The look-up of a mailbox; what it finds on the way counts as a poll."""

    asks_for_size = True

    def __init__(self, context: Context, watch: MailboxWatch, target: bytes) -> None:
        super().__init__(context, target, WIDTH)
        self._watch = watch
        self.keep_going = True

    def least_silent(self, lookup: Lookup) -> int:
        """As for announcements: callers go back to silent nodes where half of the nearest are, so they are polled."""
        return 1 if lookup.is_ill_heard else self.width // 2

    def found(self, state: FamilyState) -> list[Candidate]:
        """The nodes of one family to poll: the nearest, and as many as lie beyond them where some are made up."""
        for lookup in self.lookups:
            if lookup.state is state:
                reach = self.reach(lookup)
                return lookup.answered()[: reach if state.family is Family.IPV4 else reach * WIDTH_IPV6 // WIDTH]
        return []

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """See `LookupClient`."""
        self._watch.take(candidate.address, reply)

    def on_sent(self, lookup: Lookup) -> None:
        """See `LookupClient`."""
        self._watch.looked_at()


class MailboxWatch:
    """Polls one infohash until its operation is cancelled: event `PeersNamed` for each answer that names any."""

    search = 0

    def __init__(self, context: Context, operation: MailboxOperation) -> None:
        self.operation = operation
        self._context = context
        self._nodes: list[_Polled] = []
        self._by_query: dict[Query, _Polled] = {}
        self._turn = 0
        self._names_us: dict[Address, bool] = {}
        """Whether the last answer of a node named our own IP, which is announced in the mailbox too."""
        self._look: _Look | None = None
        self._look_at = float("-inf")
        self._looks = 0
        self._timer: Timer | None = None
        self._owed = 0.0
        """Packets of look-ups that are to be saved by polling less often."""

    def start(self, now: float) -> None:
        """Begin."""
        self._poll(now)

    def look_again(self, now: float) -> None:
        """The network is another one, or the nodes may be others."""
        self._nodes.clear()
        if self._look is not None:
            self._look.finish(now)
            self._look = None
        self._looks = 0

    def poll_all(self, now: float) -> None:
        """Ask all the nodes at once: somebody calls, and it matters who else says so."""
        for node in list(self._nodes):
            self._ask(node, now)

    def leave(self, operation: Operation, now: float) -> None:
        """See `Run`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            self._look.finish(now)
        for query in self._by_query:
            self._context.rpc.cancel(query)
        self._by_query.clear()
        operation.finished = True
        operation.ended_at = now
        self._context.running.pop(operation, None)

    def _poll(self, now: float) -> None:
        operation = self.operation
        pause = operation.interval * (1 + _SPREAD * (2 * self._context.rng.random() - 1))
        if self._owed > 0:
            self._owed -= _SLOWER
            pause *= 1 + _SLOWER
        self._timer = self._context.timers.at(now + pause, self._poll)
        since = now - self._look_at
        wanted = since >= LOOKS[min(self._looks, len(LOOKS)) - 1] if self._looks else True
        wanted = wanted or (len(self._nodes) < FEWEST and since >= LOOK_SOONEST)
        if wanted and (self._look is None or self._look.finished):
            self._look_at = now
            self._looks += 1
            self._look = look = _Look(self._context, self, operation.target)
            look.at_end.append(self._looked)
            look.start(now)
            return
        if not self._nodes or not self._context.rpc.has_room:
            return
        self._ask(self._next(), now)

    def _next(self) -> _Polled:
        """The node whose turn it is."""
        naming = sum(self._names_us.get(node.address, False) for node in self._nodes)
        for _ in self._nodes:
            self._turn = (self._turn + 1) % len(self._nodes)
            node = self._nodes[self._turn]
            if naming < FEWEST or self._names_us.get(node.address, True) or node.passed >= PASSED:
                break
            node.passed += 1
        node.passed = 0
        return node

    def looked_at(self) -> None:
        """A look-up has sent a query."""
        self.operation.queries_sent += 1
        if self._looks > EARLY_LOOKS:
            self._owed = min(MOST_OWED, self._owed + 1)

    def _ask(self, node: _Polled, now: float) -> None:
        args: dict[bytes, Bencodable] = {b"info_hash": self.operation.target}
        query = self._context.query(node.state, node.address, b"get_peers", args, self, now, node_id=node.node_id)
        self._by_query[query] = node
        self.operation.queries_sent += 1

    def _looked(self, now: float) -> None:
        look = self._look
        assert look is not None
        nodes: list[_Polled] = []
        for state in self._context.families.values():
            found = look.found(state)
            # Nearer and farther ones in turn: whoever holds all that are near is every second or third poll at most.
            rings = [found[at : at + WIDTH] for at in range(0, len(found), WIDTH)]
            for together in itertools.zip_longest(*rings):
                nodes += [_Polled(each.node_id, each.address, state) for each in together if each is not None]
        if nodes:
            self._nodes = nodes
            kept = {node.address for node in nodes}
            self._names_us = {node: names for node, names in self._names_us.items() if node in kept}
            self.operation.nodes = len(nodes)

    def take(self, node: Address, reply: Message) -> None:
        """A node answered."""
        self.operation.replies += 1
        peers = tuple(peer for peer in parse_peers(reply.body.get(b"values"), PEERS_PER_REPLY) if peer[1])
        own = {state.external.address[0] for state in self._context.families.values() if state.external.address}
        self._names_us[node] = any(ip in own for ip, _ in peers)
        if peers:
            self._context.events.append(PeersNamed(self.operation, node, peers))

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """See `QueryHandler`."""
        node = self._by_query.pop(query, None)
        if node is None:
            return
        if reply.node_id != node.node_id:
            self._drop(node)
            return
        node.failures = 0
        self.take(node.address, reply)

    def on_error(self, query: Query, error: Message, now: float) -> None:
        """See `QueryHandler`."""
        node = self._by_query.pop(query, None)
        if node is not None:
            self._failed(node)

    def on_stall(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        self.operation.timeouts += 1
        node = self._by_query.get(query)
        if node is not None:
            self._failed(node)

    def on_lost(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        self._by_query.pop(query, None)

    def _failed(self, node: _Polled) -> None:
        node.failures += 1
        if node.failures >= LOST_AFTER:
            self._drop(node)

    def _drop(self, node: _Polled) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
