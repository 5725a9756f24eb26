"""The four dialects of the relay protocol, which differ in names and in a few frames."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Dialect(enum.Enum):
    """A dialect; its value is the WebSocket sub-protocol. The order is that of preference."""

    TOM_V2 = "tom-relay-v2"
    IROH_V2 = "iroh-relay-v2"
    IROH_V1 = "iroh-relay-v1"
    TOM_V1 = "tom-relay-v1"

    @property
    def challenge_context(self) -> str:
        """The BLAKE3 `derive_key` context under which a challenge is hashed before it is signed."""
        family = "tom" if self in (Dialect.TOM_V1, Dialect.TOM_V2) else "iroh"
        return f"{family}-relay handshake v1 challenge signature"

    @property
    def has_health(self) -> bool:
        """Whether frame 11 is Health."""
        return not self.has_status

    @property
    def has_status(self) -> bool:
        """Whether frame 13 is Status."""
        return self in (Dialect.TOM_V2, Dialect.IROH_V2)

    @property
    def has_peer_present(self) -> bool:
        """Whether frame 13 is PeerPresent."""
        return self is Dialect.TOM_V1

    @property
    def has_peer_address(self) -> bool:
        """Whether there are frames 14, AskAddress, and 15, PeerAddress; who speaks it may be asked about."""
        return self is Dialect.TOM_V2


SUBPROTOCOLS: tuple[str, ...] = tuple(dialect.value for dialect in Dialect)
"""What a client asks for, and a server offers, in this order."""


WITHOUT_ADDRESS: tuple[str, ...] = tuple(dialect.value for dialect in Dialect if not dialect.has_peer_address)
"""What a client asks for that does not want its address to be told."""


def choose_dialect(offered: Iterable[str]) -> Dialect | None:
    """The first dialect that a client offers and we speak (RFC 6455 section 4.2.2), None if there is none."""
    for name in offered:
        if name.strip() in SUBPROTOCOLS:
            return Dialect(name.strip())
    return None
