"""Session tickets kept by peer, bounded and single-use (RFC 8446 sections 4.6.1 and 8.1)."""

from __future__ import annotations

from collections import OrderedDict

import attrs
from aioquic.tls import SessionTicket

from tom_connect.keys import NodeId


@attrs.frozen
class PeerTicket:
    """A session ticket with what TLS does not keep in it: the peer's key and the ALPN it was made under."""

    peer: NodeId
    alpn: str
    ticket: SessionTicket = attrs.field(repr=False)

    @property
    def allows_early_data(self) -> bool:
        """Whether the issuer said that it takes 0-RTT data with this ticket."""
        return bool(self.ticket.max_early_data_size)


class TicketStore:
    """The tickets of one endpoint, both those it was given (client) and those it issued (server).

    One store belongs to one secret key. Each ticket is used once: taking or redeeming removes it. Both tables
    drop their oldest entries when full.
    """

    def __init__(self, *, max_peers: int = 256, per_peer: int = 4, max_issued: int = 1024) -> None:
        self._max_peers = max_peers
        self._per_peer = per_peer
        self._max_issued = max_issued
        self._given: OrderedDict[tuple[NodeId, str], list[PeerTicket]] = OrderedDict()
        self._issued: OrderedDict[bytes, PeerTicket] = OrderedDict()

    def keep(self, ticket: PeerTicket) -> None:
        """Client: remember a ticket that a server gave us."""
        key = (ticket.peer, ticket.alpn)
        tickets = self._given.setdefault(key, [])
        tickets.append(ticket)
        del tickets[: -self._per_peer]
        self._given.move_to_end(key)
        while len(self._given) > self._max_peers:
            self._given.popitem(last=False)

    def take(self, peer: NodeId, alpn: str) -> PeerTicket | None:
        """Client: the newest valid ticket for `peer` under `alpn`, which is then gone from the store."""
        tickets = self._given.get((peer, alpn))
        while tickets:
            ticket = tickets.pop()
            if not tickets:
                del self._given[peer, alpn]
            if ticket.ticket.is_valid:
                return ticket
        return None

    def issue(self, ticket: PeerTicket) -> None:
        """Server: remember a ticket that we gave to a client."""
        self._issued[ticket.ticket.ticket] = ticket
        while len(self._issued) > self._max_issued:
            self._issued.popitem(last=False)

    def redeem(self, identity: bytes, alpn: str) -> PeerTicket | None:
        """Server: the ticket with these bytes if it is ours, unused, valid and of the same ALPN; then it is used."""
        ticket = self._issued.pop(identity, None)
        if ticket is None or ticket.alpn != alpn or not ticket.ticket.is_valid:
            return None
        return ticket

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._given.values()) + len(self._issued)
