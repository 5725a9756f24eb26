"""Single questions about our NAT that one or no answer decides: hairpinning, and whom it lets in; sans-IO."""

from __future__ import annotations

from typing import Final

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.netreport.stun import HEADER_SIZE, BindingResponse, StunError, binding_request

SENDS: Final = (0.0, 0.1, 0.25)
"""Seconds after the start at which the question is sent."""
PATIENCE: Final = (0.6, 1.25)
"""Seconds for which an answer to the last one is waited: four round trips, but no less (a busy server) and no more."""
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


__all__ = ["Check", "HairpinCheck", "OtherPortCheck"]
