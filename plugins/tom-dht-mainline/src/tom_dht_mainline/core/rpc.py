"""Queries under way: transaction ids, RTT-based time-outs, retransmission, pacing, and the matching of replies."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from .address import Address, Networks
from .bencode import Bencodable
from .config import DhtConfig
from .counters import Counters
from .krpc import KNOWN_ERRORS, Message, build_query
from .rtt import RttTable
from .timers import Timer, TimerQueue

_MAX_QUERIES = 8192
_PACE_INTERVAL = 0.25
_PACE_BURST = 1.0
"""libtorrent goes silent towards an address that sends over 5 packets a second: 4 a second, 4 at once."""
_MAX_PACED = 4096
_MAX_CONTACTED = 8192


class QueryHandler(Protocol):
    """Who sent a query, and wants to know how it went."""

    search: int
    """Number of the search that the query belongs to, 0 for none: votes on our address must come from several."""

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """The node answered, maybe after `on_stall`."""

    def on_error(self, query: Query, error: Message, now: float) -> None:
        """The node answered with a KRPC error, maybe after `on_stall`."""

    def on_stall(self, query: Query, now: float) -> None:
        """The RTT-based time-out passed: wait no longer, though a reply is still taken."""

    def on_lost(self, query: Query, now: float) -> None:
        """No reply will be taken any more."""


class Query:
    """One query to one node."""

    __slots__ = (
        "address",
        "datagram",
        "done",
        "first_sent_at",
        "handler",
        "method",
        "node_id",
        "resend_after",
        "sends",
        "sent_at",
        "stalled",
        "tid",
        "timer",
    )

    def __init__(
        self,
        tid: bytes,
        address: Address,
        node_id: bytes | None,
        method: bytes,
        datagram: bytes,
        handler: QueryHandler,
        resend_after: tuple[float, ...],
    ) -> None:
        self.tid = tid
        self.address = address
        self.node_id = node_id
        """The id that the node must have, None if any will do."""
        self.method = method
        self.datagram = datagram
        self.handler = handler
        self.resend_after = resend_after
        """Seconds since the first sending when it is sent again."""
        self.sends = 0
        self.first_sent_at = self.sent_at = float("-inf")
        self.stalled = False
        self.done = False
        self.timer: Timer | None = None


class Rpc:
    """Sends queries and hands each reply to its query's handler."""

    def __init__(
        self,
        config: DhtConfig,
        rng: random.Random,
        timers: TimerQueue,
        rtts: RttTable,
        counters: Counters,
        trusted: Networks,
        send: Callable[[bytes, Address], None],
    ) -> None:
        self._config = config
        self._rng = rng
        self._timers = timers
        self._rtts = rtts
        self._counters = counters
        self._trusted = trusted
        self._send = send
        self._queries: dict[bytes, Query] = {}
        self._by_address: dict[Address, int] = {}
        self._pace: dict[Address, float] = {}
        self._contacted: dict[Address, None] = {}
        self.read_only = True
        self.on_timeout: Callable[[Query, float], None] = lambda query, now: None
        """Told of every query that stalled, for the routing table."""

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def has_room(self) -> bool:
        """Whether another query may be started."""
        return len(self._queries) < _MAX_QUERIES

    def expects(self, address: Address) -> bool:
        """Whether any query to an address is under way."""
        return address in self._by_address

    def contacted(self, address: Address) -> bool:
        """Whether we have ever sent to an address (the last 8192 are remembered)."""
        return address in self._contacted

    def is_own(self, tid: bytes, address: Address) -> bool:
        """Whether a query with this transaction id, from this address, is one that we sent to ourselves."""
        query = self._queries.get(tid)
        return query is not None and query.address == address

    def query(
        self,
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
        """Send a query; it is repeated `resend` times, with growing gaps, or at the times of `resend_after`."""
        tid = self._rng.randbytes(4)
        while tid in self._queries:
            tid = self._rng.randbytes(4)
        datagram = build_query(tid, method, args, read_only=self.read_only, version=self._config.version)
        if resend:
            timeout = self._rtts.timeout(address)
            resend_after = tuple(timeout * (2**n - 1) for n in range(1, resend + 1))
        query = Query(tid, address, node_id, method, datagram, handler, resend_after)
        self._queries[tid] = query
        self._by_address[address] = self._by_address.get(address, 0) + 1
        delay = self._pace_delay(address, now)
        if delay > 0:
            query.timer = self._timers.at(now + delay, lambda later: self._transmit(query, later))
        else:
            self._transmit(query, now)
        return query

    def _pace_delay(self, address: Address, now: float) -> float:
        if address[0] in self._trusted:
            return 0.0
        if len(self._pace) >= _MAX_PACED:
            self._pace = {key: due for key, due in self._pace.items() if due > now}
        due = max(self._pace.get(address, now), now) + _PACE_INTERVAL
        self._pace[address] = due
        return max(0.0, due - now - _PACE_BURST)

    def _transmit(self, query: Query, now: float) -> None:
        if query.sends == 0:
            query.first_sent_at = now
        else:
            self._counters.retransmits += 1
        query.sends += 1
        query.sent_at = now
        if query.address not in self._contacted:
            if len(self._contacted) >= _MAX_CONTACTED:
                self._contacted = dict.fromkeys(list(self._contacted)[_MAX_CONTACTED // 2 :])
            self._contacted[query.address] = None
        self._counters.queries_out[query.method.decode("ascii")] += 1
        self._send(query.datagram, query.address)
        if query.sends <= len(query.resend_after):
            due = query.first_sent_at + query.resend_after[query.sends - 1]
        else:
            due = now + self._rtts.timeout(query.address)
        query.timer = self._timers.at(due, lambda later: self._timed_out(query, later))

    def _timed_out(self, query: Query, now: float) -> None:
        if query.sends <= len(query.resend_after):
            self._transmit(query, now)
            return
        self._counters.timeouts += 1
        query.stalled = True
        left = query.sent_at + self._config.late_reply_window - now
        query.timer = self._timers.at(now + max(left, 0.0), lambda later: self._lost(query, later))
        self.on_timeout(query, now)
        query.handler.on_stall(query, now)

    def _lost(self, query: Query, now: float) -> None:
        self._remove(query)
        query.handler.on_lost(query, now)

    def _remove(self, query: Query) -> None:
        query.done = True
        if query.timer is not None:
            query.timer.cancel()
        self._queries.pop(query.tid, None)
        left = self._by_address.get(query.address, 0) - 1
        if left > 0:
            self._by_address[query.address] = left
        else:
            self._by_address.pop(query.address, None)

    def cancel(self, query: Query) -> None:
        """Forget a query; its reply will be dropped, its handler hears nothing more."""
        if not query.done:
            self._remove(query)

    def match(self, message: Message, address: Address, now: float) -> Query | None:
        """The query that a reply or error answers, now closed; None, counted, if there is none for this source."""
        query = self._queries.get(message.tid)
        if query is None:
            self._counters.dropped["unsolicited"] += 1
            return None
        if query.address != address:
            self._counters.dropped["wrong-source"] += 1
            return None
        if query.sends == 0:
            # Nobody can answer what was not sent yet.
            self._counters.dropped["unsolicited"] += 1
            return None
        self._remove(query)
        if query.sends == 1:
            self._rtts.add(address, now - query.sent_at)
        if query.stalled:
            self._counters.late_replies += 1
        if message.kind == "e":
            self._counters.errors_in[message.code if message.code in KNOWN_ERRORS else 0] += 1
        else:
            self._counters.replies_in += 1
        return query
