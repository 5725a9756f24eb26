"""Single questions about our NAT: hairpinning, whom it lets in, and how it maps; sans-IO."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.netreport.report import Mapping
from tom_connect.netreport.stun import HEADER_SIZE, BindingResponse, BindingTransaction, StunError, binding_request

SENDS: Final = (0.0, 0.1, 0.25)
"""Seconds after the start at which the question is sent."""
PATIENCE: Final = (0.6, 1.25)
"""Seconds for which an answer to the last one is waited: four round trips, but no less (a busy server) and no more."""
RTO: Final = 0.25
"""Seconds until the question how the NAT maps is put again, then doubled; less than RFC 8489 has: a dial may wait."""
REQUESTS: Final = 3
RTO_PATIENCE: Final = 4.0
"""Together 0, 0.25, 0.75 s, and given up after 1.75 s."""
LATE: Final = 0.1
"""Seconds by which the last timer may be late: after a stall of our own, what has arrived is read before we judge."""


@attrs.define
class Check:
    """Sends a request to `dest` up to three times; `result` says whether it came back, None while that is open.

    `subject`: our reflexive address that it is about; `rtt`: seconds to `dest` and back, if that is known. After
    `start` and `handle_timer` send what they return.
    """

    subject: SocketAddr
    dest: SocketAddr
    transaction_id: bytes
    rtt: float | None = None
    result: bool | None = None
    _sent: int = 0
    _started: float = 0.0
    _stalled: bool = False

    def start(self, now: float) -> bytes:
        """The first request."""
        self._started = now
        self._sent = 1
        return self._request()

    def _request(self) -> bytes:
        raise NotImplementedError

    def is_answer(self, data: bytes, source: SocketAddr) -> bool | None:
        """Whether a datagram with our transaction id decides the question, and how; None: it does not."""
        raise NotImplementedError

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None when all is done."""
        if self.result is not None:
            return None
        if self._sent < len(SENDS):
            return self._started + SENDS[self._sent]
        patience = PATIENCE[1] if self.rtt is None else min(max(4 * self.rtt, PATIENCE[0]), PATIENCE[1])
        return self._started + SENDS[-1] + patience

    def handle_timer(self, now: float) -> bytes | None:
        """The request to send again, or None."""
        due = self.get_timer()
        if due is None or now < due:
            return None
        if self._sent < len(SENDS):
            self._sent += 1
            return self._request()
        if now - due > LATE and not self._stalled:
            self._stalled = True
            self._started += now - due + LATE
            return None
        self.result = False
        return None

    def receive(self, data: bytes, source: SocketAddr) -> bool:
        """Whether the datagram was about this question."""
        if data[8:HEADER_SIZE] != self.transaction_id:
            return False
        if self.result is None:
            self.result = self.is_answer(data, source)
        return True


class HairpinCheck(Check):
    """What we send to our own reflexive address: does it come back to us? The request itself is what arrives."""

    def _request(self) -> bytes:
        return binding_request(self.transaction_id)

    def is_answer(self, data: bytes, source: SocketAddr) -> bool | None:
        """See Check."""
        return True if data[:2] == b"\x00\x01" else None


class OtherPortCheck(Check):
    """A server answers from a port that we never sent to (RFC 5780 section 4.4, test III): does the NAT let it in?"""

    def _request(self) -> bytes:
        return binding_request(self.transaction_id, change_port=True)

    def is_answer(self, data: bytes, source: SocketAddr) -> bool | None:
        """See Check. A server that answers from the port that was asked can't do what it said; that decides nothing."""
        if source == self.dest or source.host != self.dest.host:
            return None
        try:
            response = BindingResponse.decode(data)
        except StunError:
            return None
        return True if response.addr is not None else None


class MappingCheck:
    """Two ports of a server say where they see one socket: at one address, or each at another (RFC 5780 section 4.3)?

    Use a socket that nothing else uses. Once a server has answered from its other port (`OtherPortCheck`), some routers
    have an entry for that port and the main socket, and then give what the main socket sends there another port than
    they do elsewhere. `result` is UNKNOWN until both have answered; each is asked up to three times. After `start` and
    `handle_timer` send what they return.
    """

    def __init__(self, dests: tuple[SocketAddr, SocketAddr], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self.dests = dests
        self._asking = [
            BindingTransaction(dest, rto=RTO, requests=REQUESTS, patience=RTO_PATIENCE, random_bytes=random_bytes)
            for dest in dests
        ]

    def start(self, now: float) -> Sequence[tuple[bytes, SocketAddr]]:
        """The first requests."""
        return [(asking.start(now), asking.server) for asking in self._asking]

    def receive(self, data: bytes, source: SocketAddr, now: float) -> bool:
        """Whether a datagram answered one of the questions; never raises."""
        return any(asking.receive(data, source, now) for asking in self._asking)

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None when all is done."""
        return min((at for asking in self._asking if (at := asking.get_timer()) is not None), default=None)

    def handle_timer(self, now: float) -> Sequence[tuple[bytes, SocketAddr]]:
        """The requests to send again."""
        again = [(asking.handle_timer(now), asking.server) for asking in self._asking]
        return [(data, dest) for data, dest in again if data is not None]

    @property
    def done(self) -> bool:
        """Whether both have answered, or one never will."""
        return any(asking.error is not None for asking in self._asking) or all(asking.done for asking in self._asking)

    @property
    def result(self) -> Mapping:
        """How the NAT maps, as far as that can be told."""
        addrs = [asking.result.addr for asking in self._asking if asking.result is not None]
        if len(addrs) < len(self._asking):
            return Mapping.UNKNOWN
        if len(set(addrs)) == 1:
            return Mapping.ENDPOINT_INDEPENDENT
        # Two IP addresses: a carrier that spreads one host over several, or a server that lies.
        return Mapping.ENDPOINT_DEPENDENT if len({addr.host for addr in addrs}) == 1 else Mapping.UNKNOWN


__all__ = ["Check", "HairpinCheck", "MappingCheck", "OtherPortCheck"]
