"""How a transfer can fail: each way has a class of its own, the same on both sides."""

from __future__ import annotations

from tom_connect.exceptions import LocalError, NetworkError, RemoteError, TomError


class TransferError(TomError):
    """A transfer did not succeed; base of the ways in which it can fail."""


class TransferInterruptedError(TransferError, NetworkError):
    """The other side went away, was stopped or fell silent; what arrived is kept, and sending again resumes."""


class TransferRefusedError(TransferError):
    """The receiver does not want what was offered, or takes nothing more now."""


class DiskFullError(TransferError):
    """The receiver has no room left; what arrived is kept, and sending again resumes."""


class VerificationError(TransferError):
    """A file that arrived has not the SHA-256 that its sender told; it was thrown away."""


class StoreError(TransferError):
    """The receiver can't write where it should: no permission, something in the way, a symbolic link."""


class SourceError(TransferError, LocalError):
    """What is to be sent can't be read, changed meanwhile, or has a name that can't be sent."""


class UnsafeNameError(TransferError, RemoteError):
    """The sender offered a name that leads out of the folder or can't be stored."""


class TransferProtocolError(TransferError, RemoteError):
    """The other side broke the rules of the transfer protocol."""
