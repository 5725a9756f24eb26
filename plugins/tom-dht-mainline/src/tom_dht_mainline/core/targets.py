"""The closest nodes of recent targets with their write tokens, so that a put after a get needs no lookup."""

from __future__ import annotations

from collections import OrderedDict

from .address import Address, Family
from .config import DhtConfig

MAX_TOKEN = 128
"""Bytes of a write token that we keep; libtorrent's has 4, bittorrent-dht's 20, and the BEPs set no limit."""


_REGION = 8


def region(target: bytes) -> bytes:
    """The first 8 bytes: targets that have them in common have the same nearest nodes, in a DHT of any size."""
    return target[:_REGION]


class CachedNode:
    """A node that answered for a target, and the token it gave."""

    __slots__ = ("address", "compact", "node_id", "seq", "token", "token_at")

    def __init__(
        self, node_id: bytes, address: Address, compact: bytes, token: bytes | None, token_at: float, seq: int | None
    ) -> None:
        self.node_id = node_id
        self.address = address
        self.compact = compact
        self.token = token
        self.token_at = token_at
        self.seq = seq
        """Sequence number that it said it holds."""


class TargetCache:
    """An LRU of targets, 1000 by default, one entry for each family."""

    def __init__(self, config: DhtConfig) -> None:
        self._size = config.target_cache_size
        self._token_lifetime = config.token_lifetime
        self._nodes: OrderedDict[tuple[Family, bytes], list[CachedNode]] = OrderedDict()
        self._latest: OrderedDict[tuple[Family, bytes], bytes] = OrderedDict()
        """By region, the target there that was looked up last."""
        self._published: OrderedDict[bytes, bytes] = OrderedDict()

    def nodes(self, family: Family, target: bytes) -> list[CachedNode]:
        """Closest nodes known from earlier lookups, nearest first."""
        nodes = self._nodes.get((family, target))
        if nodes is None:
            return []
        self._nodes.move_to_end((family, target))
        return nodes

    def nodes_of_neighbour(self, family: Family, target: bytes) -> list[CachedNode]:
        """Those of the last other target in the same region."""
        latest = self._latest.get((family, region(target)))
        return self._nodes.get((family, latest), []) if latest is not None and latest != target else []

    def fresh_token(self, node: CachedNode, now: float) -> bytes | None:
        """The node's token if it is young enough to be accepted."""
        return node.token if now - node.token_at < self._token_lifetime else None

    def store(self, family: Family, target: bytes, nodes: list[CachedNode]) -> None:
        """Keep the outcome of a lookup."""
        key = (family, target)
        self._nodes[key] = nodes
        self._nodes.move_to_end(key)
        if len(self._nodes) > self._size:
            self._nodes.popitem(last=False)
        self._latest[family, region(target)] = target
        self._latest.move_to_end((family, region(target)))
        if len(self._latest) > self._size:
            self._latest.popitem(last=False)

    def clear(self) -> None:
        """Forget all nodes: tokens are bound to the IP address that we had."""
        self._nodes.clear()
        self._latest.clear()

    def note_published(self, target: bytes, signature: bytes) -> None:
        """We have stored a mutable item with this signature."""
        self._published[target] = signature
        self._published.move_to_end(target)
        if len(self._published) > self._size:
            self._published.popitem(last=False)

    def was_published(self, target: bytes, signature: bytes) -> bool:
        """Whether the item that we stored last at this target is the same."""
        return self._published.get(target) == signature
