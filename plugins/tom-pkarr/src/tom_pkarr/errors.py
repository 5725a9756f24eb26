"""The errors of tom-pkarr."""

from __future__ import annotations

from tom_connect.exceptions import LocalError, NetworkError, RemoteError, TomError


class PkarrError(TomError):
    """Base of every error of Pkarr."""


class PutError(PkarrError, RemoteError):
    """A packet that a relay refuses. Attributes: `status`, of HTTP; `kind`, for counting."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class PublishError(PkarrError, NetworkError):
    """No Pkarr relay stored our record; the message names each relay and its reason."""


class PkarrServerError(PkarrError, LocalError):
    """The relay can't run as it is configured: a taken port, an unusable file, the DHT asked for but not installed."""


class StoreError(PkarrError, LocalError):
    """The packets can't be read or written: a full disk, a damaged file."""


class StoreBusyError(PkarrError, LocalError):
    """More waits for the store than it may hold back."""
