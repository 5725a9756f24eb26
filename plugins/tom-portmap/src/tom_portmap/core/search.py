"""The search for a gateway's UPnP description; sans-IO."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tom_connect.addr import SocketAddr
from tom_portmap.errors import WireError
from tom_portmap.wire import ssdp
from tom_portmap.wire.location import Location

WAITS: Final = (0.5, 1.0, 2.0)
"""Seconds after each round of requests: UDP is lost, and devices spread their replies over a second (MX)."""
MAX_DATAGRAMS: Final = 64
"""Datagrams of one search that are read: a few devices answer a few requests."""
MAX_LOCATIONS: Final = 4


class Search:
    """Looks for one gateway; `now` in seconds.

    Send what `start` and `handle_timer` return; give each datagram to `receive`; take URLs from `locations`, each of
    which leads to the gateway itself. `done`: nothing more will come.
    """

    def __init__(self, gateway: str, *, malformed: Counter[str]) -> None:
        self.locations: list[Location] = []
        self.done = False
        self._gateway = gateway
        self._malformed = malformed
        self._round = 0
        self._received = 0
        self._timer: float | None = None

    def start(self, now: float) -> list[tuple[bytes, SocketAddr]]:
        """The first requests."""
        return self._send(now)

    def _send(self, now: float) -> list[tuple[bytes, SocketAddr]]:
        self._timer = now + WAITS[self._round]
        self._round += 1
        # To the gateway alone too (UDA 1.1 section 1.3.2): some radios carry multicast badly.
        hosts = (self._gateway, ssdp.MULTICAST)
        return [
            (ssdp.search_request(target, host), SocketAddr(host, ssdp.PORT))
            for host in hosts
            for target in ssdp.TARGETS
        ]

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None when all is done."""
        return self._timer

    def handle_timer(self, now: float) -> list[tuple[bytes, SocketAddr]]:
        """The requests to send again, if any."""
        if self._timer is None or now < self._timer:
            return []
        if self._round < len(WAITS):
            return self._send(now)
        self._timer = None
        self.done = True
        return []

    def receive(self, data: bytes, source: SocketAddr) -> None:
        """Take a datagram; what does not come from the gateway, or leads elsewhere, is counted and ignored."""
        self._received += 1
        if self.done or self._received > MAX_DATAGRAMS or len(self.locations) >= MAX_LOCATIONS:
            return
        if source.host != self._gateway:
            # Televisions and printers answer searches of other programs; here it is their mistake or a forgery.
            self._malformed["not from the gateway"] += 1
            return
        try:
            location = Location.parse(ssdp.SearchReply.decode(data).location, self._gateway)
        except WireError as exc:
            self._malformed[exc.kind] += 1
            return
        if location not in self.locations:
            self.locations.append(location)
