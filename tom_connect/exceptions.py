"""The errors of tom-connect: one hierarchy that says who is to blame.

`LocalError` is a misuse by the calling program, `RemoteError` a violation by the other side, and
`NetworkError` the fault of neither. This module imports nothing of the project.
"""

from __future__ import annotations

import os
import re


class TomError(Exception):
    """Base of every error that tom-connect raises on purpose."""


class LocalError(TomError):
    """The calling program or its user did something that can't work; the message says what to do."""


class InvalidInputError(LocalError, ValueError):
    """A text or value that a user gave can't be read: an id, an address, a ticket, an option."""


class InvalidKeyError(InvalidInputError):
    """A public or secret key is malformed, not canonical, not on the curve or of low order."""


class InvalidAddrError(InvalidInputError):
    """A socket address, relay URL, NodeAddr or ticket is malformed."""


class ConfigError(InvalidInputError):
    """A configuration file, environment variable or option has a wrong name, type or value."""


class KeyFileError(LocalError):
    """A secret-key file can't be used as it is; the message names the file and the fix."""


class PluginError(LocalError):
    """A plugin was used that is missing, broken, blocked or of the wrong version."""


class EndpointClosedError(LocalError):
    """The endpoint was closed, so it can't be used any more."""


class RemoteError(TomError):
    """The other side broke a protocol."""


class RecordError(RemoteError):
    """A signed record or DNS packet is malformed, too large, wrongly signed or of the wrong key."""


class ProtocolError(RemoteError):
    """A peer sent bytes that its protocol does not allow."""


class PeerIdentityError(RemoteError):
    """The peer that answered does not hold the key that was dialed."""


class NetworkError(TomError):
    """Neither side is to blame: packets did not arrive."""


class DiscoveryError(NetworkError):
    """No discovery source knew a usable address of a node."""


class DialError(NetworkError):
    """A node could not be reached; the message lists each source and address with its outcome."""


class ConnectionError(NetworkError):  # noqa: A001 - the field's word; reached as tom_connect.ConnectionError
    """A connection has ended; base of the ways in which it can."""


class ConnectionLostError(ConnectionError):
    """The peer went silent until the idle time-out."""


class ConnectionClosedError(ConnectionError):
    """The connection was closed by one of its ends.

    Attributes: `code`, the application's or QUIC's error code; `reason`, UTF-8 text; `by_peer`,
    whether the other side closed; `is_application`, whether the code is the application's.
    """

    def __init__(self, code: int, reason: str, *, by_peer: bool, is_application: bool) -> None:
        who = "the peer" if by_peer else "this side"
        # Code 0 is how both QUIC and applications say that nothing is wrong.
        what = f", {'code' if is_application else 'QUIC error'} {code}" if code else ""
        super().__init__(f"connection closed by {who}{what}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason
        self.by_peer = by_peer
        self.is_application = is_application


class AlpnError(RemoteError):
    """The two sides share no application protocol (ALPN)."""


class ConnectionRefusedError(ConnectionClosedError):  # noqa: A001 - the field's word
    """The peer refused the incoming connection."""


class StreamError(NetworkError):
    """A stream ended before its time; base of the ways in which it can."""


class StreamResetError(StreamError):
    """The peer reset its sending side. Attribute `code`: the application's error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer reset the stream with code {code}")
        self.code = code


class StreamStoppedError(StreamError):
    """The peer no longer reads what we write. Attribute `code`: the application's error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer stopped reading the stream with code {code}")
        self.code = code


class DatagramTooLargeError(LocalError, ValueError):
    """A datagram does not fit into one packet. Attributes `size` and `limit`, bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"datagram of {size} bytes is larger than the {limit} bytes that fit now")
        self.size = size
        self.limit = limit


_NUMBERS = re.compile(r"\[Errno -?[0-9]+\] |\[SSL: \w+\] | \(_ssl\.c:[0-9]+\)")


def reason_of(error: BaseException) -> str:
    """What an error of the system or a library says, for a message of ours: one line of at most 200 characters.

    Numbers of errors are left out, and what aiohttp puts around an error of the system's.
    """
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", error)
    text = getattr(inner, "strerror", None) or str(inner)
    number = getattr(inner, "errno", None)
    if text.startswith("Connect call failed") and number:  # asyncio's words; the place we name ourselves
        text = os.strerror(number)
    return " ".join(_NUMBERS.sub("", text).split())[:200] or type(error).__name__
