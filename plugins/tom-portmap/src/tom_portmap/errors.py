"""The errors of tom-portmap."""

from __future__ import annotations

from tom_connect.exceptions import NetworkError, ProtocolError, TomError


class PortmapError(TomError):
    """Base of every error of the port mapping plugin."""


class WireError(PortmapError, ProtocolError):
    """A gateway sent bytes that its protocol does not allow.

    Attribute `kind`, for counting: "truncated", "malformed", "too large", "version", "not a response" or "foreign".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class RefusedError(PortmapError, NetworkError):
    """A gateway said no. Attribute `code`: its protocol's error code, None where it gave none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class SilentError(PortmapError, NetworkError):
    """A gateway did not answer in time."""
