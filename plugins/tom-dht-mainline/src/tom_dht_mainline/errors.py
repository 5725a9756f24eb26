"""Errors of the DHT node beyond those of its core."""

from __future__ import annotations

from tom_connect.exceptions import LocalError, NetworkError

from .core import DhtError, Item


class DhtClosedError(DhtError, LocalError):
    """The node was closed, or not started, so it can't be used."""


class BindError(DhtError, LocalError):
    """No UDP socket could be bound; the message names the addresses and the reasons."""


class DhtUnreachableError(DhtError, NetworkError):
    """No DHT node answered; the message says who was asked."""


class DhtPutError(DhtError, NetworkError):
    """An item was stored nowhere; the message says what the nodes answered."""


class SupersededError(DhtPutError):
    """The DHT holds a higher sequence number.

    Attributes: `seq`, the number that a node claims; `item`, the item with it if a node showed one that verifies.
    """

    def __init__(self, seq: int | None, item: Item | None) -> None:
        claim = "" if seq is None else f" ({seq})"
        super().__init__(f"the DHT holds an item with a higher sequence number{claim}; put again with one above it")
        self.seq = seq
        self.item = item


class CasMismatchError(DhtPutError):
    """The DHT holds another sequence number than `cas` named: somebody wrote in between."""


class ItemNotFoundError(DhtError, NetworkError):
    """The closest nodes answered, and hold no such item."""
