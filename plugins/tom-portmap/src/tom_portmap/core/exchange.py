"""One request over UDP and its answer, with repetitions; sans-IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from tom_connect.addr import SocketAddr
from tom_portmap.errors import PortmapError, RefusedError, SilentError, WireError

T = TypeVar("T")

RETRANSMIT: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds after each request in which an answer may come.

RFC 6886 section 3.1 begins with 0.25 s, RFC 6887 section 8.1.1 with 3 s; a home router answers in some milliseconds,
and a busy one may need a second to change its firewall.
"""
RELEASE: Final = (0.15, 0.2, 0.25)
"""The same where a closing endpoint gives its mapping back: it has to be gone within a second."""


class Exchange(Generic[T]):
    """Asks one server once; `now` in seconds.

    Send what `start` and `handle_timer` return to `server`; give each datagram to `receive`; look at `result` and
    `error` after each call. `read` makes the answer of a datagram: it returns None for one that answers something
    else, and raises WireError for a malformed one (counted in `malformed` by kind, and ignored) or RefusedError.
    """

    def __init__(
        self,
        server: SocketAddr,
        request: bytes,
        read: Callable[[bytes], T | None],
        *,
        malformed: Counter[str],
        waits: tuple[float, ...] = RETRANSMIT,
    ) -> None:
        self.server = server
        self.result: T | None = None
        self.error: PortmapError | None = None
        self._request = request
        self._read = read
        self._malformed = malformed
        self._waits = waits
        self._sent = 0
        self._timer: float | None = None

    @property
    def done(self) -> bool:
        """Whether there is a `result` or an `error`."""
        return self.result is not None or self.error is not None

    def start(self, now: float) -> bytes:
        """The first request."""
        return self._send(now)

    def _send(self, now: float) -> bytes:
        self._timer = now + self._waits[self._sent]
        self._sent += 1
        return self._request

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None when all is done."""
        return self._timer

    def handle_timer(self, now: float) -> bytes | None:
        """The request to send again, or None."""
        if self._timer is None or now < self._timer:
            return None
        if self._sent < len(self._waits):
            return self._send(now)
        self._fail(SilentError("no answer"))
        return None

    def receive(self, data: bytes, source: SocketAddr) -> None:
        """Take a datagram; what is not the server's answer to this request changes nothing."""
        if self.done:
            return
        if source != self.server:
            self._malformed["not from the gateway"] += 1
            return
        try:
            result = self._read(data)
        except WireError as exc:
            self._malformed[exc.kind] += 1
        except RefusedError as exc:
            self._fail(exc)
        else:
            if result is None:
                self._malformed["answers nothing"] += 1
            else:
                self.result = result
                self._timer = None

    def unreachable(self) -> None:
        """The system says that nothing listens there (ICMP)."""
        if not self.done:
            self._fail(SilentError("nothing listens there"))

    def _fail(self, error: PortmapError) -> None:
        self.error = error
        self._timer = None
