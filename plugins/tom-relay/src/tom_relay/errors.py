"""The errors of tom-relay."""

from __future__ import annotations

from tom_connect.exceptions import LocalError, NetworkError, ProtocolError, RemoteError, TomError


class RelayError(TomError):
    """Base of every error of the relay."""


class WireError(RelayError, ProtocolError):
    """A peer sent bytes that the relay protocol does not allow.

    Attribute `kind`, for counting: "truncated", "malformed", "unknown", "direction", "dialect" or "too-large".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class FrameUsageError(RelayError, LocalError, ValueError):
    """A frame was to be sent that its dialect lacks or its limits forbid."""


class HandshakeError(RelayError, RemoteError):
    """A client did not prove its key; the message is the reason that it is told. `kind` is for counting."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class RelayDeniedError(RelayError, NetworkError):
    """A relay refused us. Attribute `reason`: its words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the relay refuses us: {reason}" if reason else "the relay refuses us and gives no reason")
        self.reason = reason


class RelayUnreachableError(RelayError):
    """No connection to a relay could be opened; the message says why."""


class RelayServerError(RelayError, LocalError):
    """The server can't run as it is configured: a taken port, an unreadable certificate, a broken statistics file."""
