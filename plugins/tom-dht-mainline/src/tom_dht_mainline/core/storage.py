"""What a serving node keeps for others: tokens, items and peers, all bounded and expiring."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections import OrderedDict

from .address import Address, Family, family_of, host_key, pack_address, pack_ip, prefix_key
from .config import DhtConfig
from .items import Item

_TOKEN_BYTES = 8
_ROTATION = 300.0
"""BEP 5: a new secret every 5 minutes, tokens up to 10 minutes old accepted."""
_MAX_PORTS_PER_HOST = 8
_PEERS_PER_REPLY = 50


class Tokens:
    """Write tokens, bound to the querier's IP and the target."""

    def __init__(self, rng: random.Random, now: float) -> None:
        self._rng = rng
        self._secrets = (rng.randbytes(16), rng.randbytes(16))
        self._rotated_at = now

    def _rotate(self, now: float) -> None:
        if now - self._rotated_at >= _ROTATION:
            older = self._secrets[0] if now - self._rotated_at < 2 * _ROTATION else self._rng.randbytes(16)
            self._secrets = (self._rng.randbytes(16), older)
            self._rotated_at = now

    @staticmethod
    def _make(secret: bytes, ip: str, target: bytes) -> bytes:
        return hashlib.blake2b(pack_ip(ip) + target, digest_size=_TOKEN_BYTES, key=secret).digest()

    def issue(self, ip: str, target: bytes, now: float) -> bytes:
        """A token of 8 bytes."""
        self._rotate(now)
        return self._make(self._secrets[0], ip, target)

    def accepts(self, token: object, ip: str, target: bytes, now: float) -> bool:
        """Whether a token is ours, for this address and target, and at most 10 minutes old."""
        self._rotate(now)
        if type(token) is not bytes or len(token) != _TOKEN_BYTES:
            return False
        return any(hmac.compare_digest(token, self._make(secret, ip, target)) for secret in self._secrets)


class StoredItem:
    """An item with when it expires and which network put it."""

    __slots__ = ("expires_at", "item", "owner")

    def __init__(self, item: Item, expires_at: float, owner: bytes) -> None:
        self.item = item
        self.expires_at = expires_at
        self.owner = owner


class ItemStore:
    """Items by target, in order of their last put; a network may hold an eighth of the room."""

    def __init__(self, config: DhtConfig) -> None:
        self._lifetime = config.item_lifetime
        self._room = config.max_items
        self._share = max(1, config.max_items // 8)
        self._items: OrderedDict[bytes, StoredItem] = OrderedDict()
        self._owned: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, target: bytes, now: float) -> Item | None:
        """The unexpired item at a target."""
        stored = self._items.get(target)
        return stored.item if stored is not None and stored.expires_at > now else None

    def put(self, target: bytes, item: Item, ip: str, now: float, *, unlimited: bool) -> bool:
        """Keep an item for 2 h; False if the putting network has used up its share."""
        self.expire(now)
        owner = prefix_key(ip)
        known = self._items.get(target)
        if (known is None or known.owner != owner) and not unlimited and self._owned.get(owner, 0) >= self._share:
            return False
        if known is not None:
            self._drop(target)
        while len(self._items) >= self._room:
            self._drop(next(iter(self._items)))
        self._items[target] = StoredItem(item, now + self._lifetime, owner)
        self._owned[owner] = self._owned.get(owner, 0) + 1
        return True

    def _drop(self, target: bytes) -> None:
        stored = self._items.pop(target)
        self._owned[stored.owner] -= 1
        if not self._owned[stored.owner]:
            del self._owned[stored.owner]

    def expire(self, now: float) -> None:
        """Drop what is past its time."""
        while self._items:
            target, stored = next(iter(self._items.items()))
            if stored.expires_at > now:
                break
            self._drop(target)


class PeerStore:
    """Announced peers by infohash; the infohash unannounced for longest goes first."""

    def __init__(self, config: DhtConfig, rng: random.Random) -> None:
        self._lifetime = config.peer_lifetime
        self._room = config.max_infohashes
        self._room_each = config.max_peers_per_infohash
        self._rng = rng
        self._peers: OrderedDict[bytes, OrderedDict[Address, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def announce(self, info_hash: bytes, peer: Address, now: float, *, unlimited: bool) -> bool:
        """Keep a peer for 45 minutes; False if its host has used up its 8 ports for this infohash."""
        self.expire(now)
        peers = self._peers.pop(info_hash, None) or OrderedDict()
        self._peers[info_hash] = peers
        if len(self._peers) > self._room:
            self._peers.popitem(last=False)
        if peer not in peers and not unlimited:
            host = host_key(peer[0])
            if sum(host_key(other[0]) == host for other in peers) >= _MAX_PORTS_PER_HOST:
                return False
        peers.pop(peer, None)
        peers[peer] = now + self._lifetime
        if len(peers) > self._room_each:
            peers.popitem(last=False)
        return True

    def peers(self, info_hash: bytes, family: Family, now: float) -> list[bytes]:
        """Compact addresses of unexpired peers of one family, 50 at random if there are more."""
        known = self._peers.get(info_hash)
        if not known:
            return []
        live = [pack_address(peer) for peer, end in known.items() if end > now and family_of(peer[0]) is family]
        return self._rng.sample(live, _PEERS_PER_REPLY) if len(live) > _PEERS_PER_REPLY else live

    def expire(self, now: float) -> None:
        """Drop infohashes and peers that are past their time, oldest first."""
        while self._peers:
            info_hash, peers = next(iter(self._peers.items()))
            while peers and next(iter(peers.values())) <= now:
                peers.popitem(last=False)
            if peers:
                break
            del self._peers[info_hash]
