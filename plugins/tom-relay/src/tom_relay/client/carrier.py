"""What carries a relay's messages: a WebSocket, or a QUIC connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import Protocol

import websockets.asyncio.client as ws
from websockets.exceptions import ConnectionClosed

from tom_relay.errors import RelayError, WireError
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


class WebSocketCarrier:
    """A WebSocket (`Carrier`)."""

    proven = False

    def __init__(self, websocket: ws.ClientConnection, dialect: Dialect, services: Mapping[str, int] | None) -> None:
        self.dialect = dialect
        self.services = services
        self._websocket = websocket

    async def receive(self) -> bytes:
        """See `Carrier`."""
        try:
            message = await self._websocket.recv()
        except ConnectionClosed as exc:
            raise CarrierClosedError(exc.rcvd.reason if exc.rcvd is not None else "") from None
        if isinstance(message, str):
            raise WireError("malformed", "the relay sent a text message")
        return message

    async def send(self, message: bytes) -> None:
        """See `Carrier`."""
        try:
            await self._websocket.send(message)
        except (ConnectionClosed, OSError):
            raise CarrierClosedError("") from None

    async def close(self) -> None:
        """See `Carrier`."""
        try:
            await self._websocket.close()
        except (ConnectionClosed, OSError):
            pass

    def abort(self) -> None:
        """See `Carrier`."""
        self._websocket.transport.abort()

    def address_is_gone(self) -> bool:
        """See `Carrier`."""
        name = self._websocket.transport.get_extra_info("sockname")
        try:
            with socket.socket(socket.AF_INET6 if ":" in name[0] else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((name[0], 0, *name[2:]))
        except OSError as exc:
            return exc.errno == errno.EADDRNOTAVAIL
        return False
