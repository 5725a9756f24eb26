"""Sealed packets as a callee gets them: in calls that lie in the DHT, and from nodes that it hears of by them alone."""

import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.interop.rendezvous_parts import disco
from tests.interop.rendezvous_parts.disco import Seal

_CALL = 849
_WINDOW, _SESSIONS, _MOST_PEERS = 4096, 4, 100


def open_call(secret: X25519PrivateKey, ip: bytes, p: int, value: bytes) -> bytes | None:
    """The disco packet in the value of a sealed call; None if it is none that is sealed for our secret."""
    if len(value) != _CALL or value[0] != 1:
        return None
    c, key = value[1:33], secret.public_key().public_bytes_raw()
    try:
        shared = secret.exchange(X25519PublicKey.from_public_bytes(c))
        box = ChaCha20Poly1305(disco.hkdf(shared, c + key, b"tom-rv-1 call"))
        plain = box.decrypt(bytes(12), value[33:], ip + struct.pack("!H", p))
    except (InvalidTag, ValueError):
        return None
    size = int.from_bytes(plain[:2], "big")
    return plain[2 : 2 + size] if size <= len(plain) - 2 else None


@dataclass
class Peer:
    """A node of which a packet has opened."""

    seal: Seal
    _seen: dict[bytes, set[int]] = field(default_factory=dict)

    def is_new(self, packet: bytes) -> bool:
        """Whether the counter of a packet that has opened is new in its session; it no longer is then."""
        session, counter = packet[2:10], int.from_bytes(packet[10:18], "big")
        seen = self._seen.setdefault(session, set())
        while len(self._seen) > _SESSIONS:
            del self._seen[next(iter(self._seen))]
        if counter in seen or counter <= max(seen, default=-1) - _WINDOW:
            return False
        seen.add(counter)
        seen.difference_update([old for old in seen if old <= counter - _WINDOW])
        return True


@dataclass
class Peers:
    """All whose packets have opened, the last hundred."""

    seed: bytes
    node_id: bytes
    _peers: dict[bytes, Peer] = field(default_factory=dict)

    def read(self, packet: bytes) -> tuple[Peer, bytes] | None:
        """Who has sent a packet, and its message; None if it does not open or was seen before."""
        sender = disco.sender_of(packet, self.node_id)
        if sender is None:
            return None
        try:
            peer = self._peers.get(sender) or Peer(Seal(self.seed, sender))
        except ValueError:  # no key, or one of low order
            return None
        message = peer.seal.open(packet)
        if message is None or not peer.is_new(packet):
            return None
        self._peers[sender] = peer
        while len(self._peers) > _MOST_PEERS:
            del self._peers[next(iter(self._peers))]
        return peer, message
