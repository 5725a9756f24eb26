"""Errors of the DHT core; each says whether the caller or the remote is to blame."""

from __future__ import annotations

from tom_connect.exceptions import InvalidInputError, ProtocolError, TomError


class DhtError(TomError):
    """Base of all errors of the DHT core."""


class DhtUsageError(DhtError, InvalidInputError):
    """The caller passed something that the DHT can't carry (local misuse); the message says what to change."""


class BencodeError(DhtError, ProtocolError, ValueError):
    """Bytes that are not valid, bounded bencode, or a value that bencode can't carry (BEP 3)."""


class KrpcError(DhtError, ProtocolError, ValueError):
    """A datagram that is bencode but not a KRPC message (BEP 5)."""


class ItemError(DhtError, InvalidInputError):
    """A BEP 44 item that is too large, mis-keyed or wrongly signed."""
