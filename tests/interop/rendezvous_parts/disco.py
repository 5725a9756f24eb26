"""Disco's sealed packets and the messages that calls need (docs/reference/disco.md)."""

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

Addr = tuple[str, int]

KNOCK = b"\x07\x01" + bytes(14)
PING, PONG, CALL_ME_MAYBE = 1, 2, 3
ONE_PORT, PORT_EACH = 1, 2
_P = 2**255 - 19


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) with `size` bytes of output."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    out = block = b""
    while len(out) < size:
        block = hmac.digest(extracted, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:size]


def montgomery(ed25519: bytes) -> X25519PublicKey:
    """The X25519 form of an Ed25519 public key: u = (1 + y) / (1 - y)."""
    y = int.from_bytes(ed25519, "little") & (2**255 - 1)
    u = (1 + y) * pow(1 - y, -1, _P) % _P
    return X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))


def agree(seed: bytes, peer: bytes) -> bytes:
    """The X25519 secret of our key's seed and another NodeId; ValueError for a key with which none can be made."""
    own = X25519PrivateKey.from_private_bytes(hashlib.sha512(seed).digest()[:32])
    return own.exchange(montgomery(peer))


def pack_addr(addr: Addr) -> bytes:
    """18 bytes: IPv6 or IPv4 as ::ffff:a.b.c.d, then the port."""
    return bytes(10) + b"\xff\xff" + IPv4Address(addr[0]).packed + struct.pack("!H", addr[1])


def unpack_ip(raw: bytes) -> str | None:
    """The IP of 16 bytes as text; None for zeros."""
    ip = IPv6Address(raw)
    return None if not int(ip) else str(ip.ipv4_mapped or ip)


def ping(tid: bytes) -> bytes:
    """A ping with the transaction id `tid`, padded."""
    return bytes([PING]) + tid + bytes(19)


def pong(tid: bytes, seen: Addr) -> bytes:
    """The answer to the ping `tid` that came from `seen`."""
    return bytes([PONG]) + tid + pack_addr(seen) + b"\0"


def call_me_maybe(candidates: list[Addr], mapping: int) -> bytes:
    """A call with these candidates, no relay, and how our NAT maps."""
    body = bytes([CALL_ME_MAYBE]) + secrets.token_bytes(12) + bytes([len(candidates)])
    body += b"".join(map(pack_addr, candidates))
    return (body + b"\x01\x00\x02" + bytes([mapping])).ljust(32, b"\0")


def read_candidates(message: bytes) -> tuple[list[Addr], int | None]:
    """The IPv4 candidates of a call-me-maybe and how its sender's NAT maps; ValueError if it ends too early."""
    try:
        at, found = 14, []
        for _ in range(message[13]):
            ip, port = unpack_ip(message[at : at + 16]), struct.unpack_from("!H", message, at + 16)[0]
            at += 18
            if ip is not None and port and ":" not in ip:
                found.append((ip, port))
        if message[at : at + 1] == b"\x01":
            relays, at = message[at + 1], at + 2
            for _ in range(relays):
                at += 1 + message[at]
        mapping = message[at + 1] if message[at : at + 1] == b"\x02" else None
    except (struct.error, IndexError) as error:
        raise ValueError("the call-me-maybe ends too early") from error
    return found, mapping


def sender_of(packet: bytes, receiver: bytes) -> bytes | None:
    """The NodeId that a sealed packet for `receiver` names; None if its length, version, kind or check is wrong."""
    if not 106 <= len(packet) <= 1200 or packet[:2] not in (b"\x04\x01", b"\x05\x01"):
        return None
    check, mask = _check_and_mask(packet[:18], receiver)
    return _xor(packet[26:58], mask) if hmac.compare_digest(check, packet[18:26]) else None


def challenge(packet: bytes, cookie: bytes, challenger: bytes) -> bytes:
    """What `challenger` answers to a packet instead of reading it."""
    stamp = packet[2:18]
    check = hashlib.blake2b(stamp + cookie, key=challenger, digest_size=8, person=b"tom-disco-chal-1").digest()
    return b"\x06\x01" + stamp + check + cookie


@dataclass
class Seal:
    """What two nodes need to read each other's packets; ours is the key of `seed`."""

    seed: bytes
    peer: bytes
    session: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    counter: int = 0

    def __post_init__(self) -> None:
        self.node_id = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        self._shared = agree(self.seed, self.peer)

    def seal(self, message: bytes, cookie: bytes = b"", version: int = 1) -> bytes:
        """The packet that carries `message`; with a cookie its kind is 05."""
        start = bytes([5 if cookie else 4, version]) + self.session + struct.pack("!Q", self.counter)
        self.counter += 1
        check, mask = _check_and_mask(start, self.peer)
        header = start + check + _xor(self.node_id, mask)
        key = hkdf(self._shared, self.session, b"tom-connect disco v1" + self.node_id + self.peer)
        return header + cookie + ChaCha20Poly1305(key).encrypt(bytes(4) + start[10:], message, header)

    def open(self, packet: bytes) -> bytes | None:
        """The message of a packet from our peer; None if it is anything else."""
        if sender_of(packet, self.node_id) != self.peer:
            return None
        header = packet[:58]
        key = hkdf(self._shared, packet[2:10], b"tom-connect disco v1" + self.peer + self.node_id)
        body = packet[74:] if packet[0] == 5 else packet[58:]
        try:
            return ChaCha20Poly1305(key).decrypt(bytes(4) + packet[10:18], body, header)
        except InvalidTag:
            return None

    def cookie_of(self, challenge: bytes) -> tuple[bytes, bytes] | None:
        """The stamp that a challenge of our peer answers, and the cookie to ask again with."""
        if len(challenge) != 42 or challenge[:2] != b"\x06\x01":
            return None
        stamp, check, cookie = challenge[2:18], challenge[18:26], challenge[26:]
        wanted = hashlib.blake2b(stamp + cookie, key=self.peer, digest_size=8, person=b"tom-disco-chal-1").digest()
        return (stamp, cookie) if hmac.compare_digest(check, wanted) else None


def _check_and_mask(start: bytes, receiver: bytes) -> tuple[bytes, bytes]:
    digest = hashlib.blake2b(start, key=receiver, digest_size=40, person=b"tom-disco-mask-1").digest()
    return digest[:8], digest[8:]


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
