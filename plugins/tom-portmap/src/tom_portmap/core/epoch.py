"""Whether a gateway lost its mappings: its count of seconds went back, or jumped."""

from __future__ import annotations

from tom_portmap.core.eligible import Protocol


class EpochClock:
    """Follows the epoch that one gateway tells by one protocol; `now` in seconds."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._seen: tuple[int, float] | None = None

    def lost(self, epoch: int, now: float) -> bool:
        """Whether the gateway began anew between the epoch told before and this one; False for the first."""
        before, self._seen = self._seen, (epoch, now)
        if before is None:
            return False
        server, client = epoch - before[0], now - before[1]
        if self._protocol == "nat-pmp":
            # RFC 6886 section 3.6: it may run slower by an eighth, and two seconds.
            return server < client * 7 / 8 - 2
        # RFC 6887 section 8.5.
        if server < -1:
            return True
        server = max(server, 0)
        return client + 2 < server - server / 16 or server + 2 < client - client / 16
