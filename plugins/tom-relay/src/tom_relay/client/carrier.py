"""What carries a relay's messages: a WebSocket, or a QUIC connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tom_relay.errors import RelayError
from tom_relay.wire import Dialect


class CarrierClosedError(RelayError):
    """The connection to a relay has ended; the message is the reason that it gave, perhaps none."""


class Carrier(Protocol):
    """One connection to a relay, messages in and out."""

    dialect: Dialect
    proven: bool
    """Whether the connection itself has proven both keys, so that the relay asks for no signature."""
    services: Mapping[str, int] | None
    """Ports of the UDP services that the relay says it has, None if it says nothing."""

    async def receive(self) -> bytes:
        """The next message; raises CarrierClosedError, or WireError for what is no message."""

    async def send(self, message: bytes) -> None:
        """Send a message, when there is room; raises CarrierClosedError."""

    async def close(self) -> None:
        """Say goodbye, and end."""

    def abort(self) -> None:
        """End at once."""

    def address_is_gone(self) -> bool:
        """Whether this machine no longer has the address from which it was made, so that nothing reaches it."""
