"""What lies in the DHT: address record, invitation, sealed call (docs/reference/rendezvous.md)."""

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from . import bencode
from .disco import Addr, hkdf, unpack_ip

SALT = b"tom-rv-1"


def target(key: bytes, salt: bytes = b"") -> bytes:
    """Where the mutable item of `key` and `salt` lies (BEP 44)."""
    return hashlib.sha1(key + salt, usedforsecurity=False).digest()


def signed_bytes(seq: int, value: bencode.Value, salt: bytes = b"") -> bytes:
    """What the signature of a mutable item covers (BEP 44)."""
    salted = b"4:salt" + bencode.encode(salt) if salt else b""
    return salted + b"3:seq" + bencode.encode(seq) + b"1:v" + bencode.encode(value)


def read_item(reply: dict[bytes, bencode.Value], key: bytes, salt: bytes) -> tuple[int, bytes] | None:
    """`seq` and byte string of the item in the reply to a `get`; None without one that `key` has signed."""
    match reply:
        case {b"k": bytes(k), b"seq": int(seq), b"sig": bytes(sig), b"v": bytes(value)} if k == key:
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(sig, signed_bytes(seq, value, salt))
            except InvalidSignature:
                return None
            return seq, value
    return None


def signed_item(seed: bytes, value: bytes, seq: int, salt: bytes = b"") -> tuple[bytes, dict[bytes, bencode.Value]]:
    """The target of a mutable item that the key of `seed` signs, and the arguments of its `put` but id and token."""
    signer = Ed25519PrivateKey.from_private_bytes(seed)
    name = signer.public_key().public_bytes_raw()
    put: dict[bytes, bencode.Value] = {b"k": name, b"seq": seq, b"v": value}
    put[b"sig"] = signer.sign(signed_bytes(seq, value, salt))
    if salt:
        put[b"salt"] = salt
    return target(name, salt), put


def record_addresses(packet: bytes) -> list[Addr]:
    """The IPv4 addresses of an address record's DNS packet; ValueError if it can't be read."""
    try:
        questions, answers = struct.unpack_from("!4xHH", packet)
        at = 12
        for _ in range(questions):
            at = _after_name(packet, at) + 4
        found: list[Addr] = []
        for _ in range(answers):
            at = _after_name(packet, at)
            kind, size = struct.unpack_from("!H6xH", packet, at)
            text = packet[at + 11 : at + 10 + size]
            at += 10 + size
            if kind == 16 and text.startswith(b"addr=") and not text.startswith(b"addr=["):
                ip, _, port = text[5:].decode("ascii").partition(":")
                found.append((str(IPv4Address(ip)), int(port)))
    except (struct.error, IndexError) as error:
        raise ValueError("the record's DNS packet ends too early") from error
    return found


def _after_name(packet: bytes, at: int) -> int:
    while packet[at]:
        if packet[at] >= 0xC0:
            return at + 2
        at += 1 + packet[at]
    return at + 1


@dataclass(frozen=True)
class Invitation:
    """How a callee wants to be called."""

    filtered: bool | None
    port_each: bool
    interval: float
    nodes: int
    mailbox: bytes
    key: bytes
    ip: str | None


def read_invitation(value: bytes) -> Invitation:
    """The invitation in a mutable item's value; ValueError if it is of another version."""
    if len(value) < 73 or value[0] != 1:
        raise ValueError("no invitation of version 1")
    flags, hundredths, nodes = struct.unpack_from("!BHB", value, 1)
    filtered = {1: True, 2: False}.get(flags & 3)
    return Invitation(
        filtered, bool(flags & 4), hundredths / 100, nodes, value[5:25], value[25:57], unpack_ip(value[57:73])
    )


def second_port(key: bytes, ip: bytes, p: int) -> int:
    """The port `q` that is announced beside `p`."""
    mac = hmac.digest(key, b"tom-rv-1 port" + ip + struct.pack("!H", p), "sha256")
    q = 1024 + int.from_bytes(mac[:4], "big") % 64512
    return 1024 if q == p else q


def item_seed(key: bytes, ip: bytes, p: int) -> bytes:
    """Seed of the Ed25519 key under which the sealed call lies."""
    return hkdf(key + ip + struct.pack("!H", p), b"", b"tom-rv-1 item")


def seal_call(key: bytes, ip: bytes, p: int, packet: bytes, ephemeral: bytes) -> bytes:
    """The value of a sealed call: `packet` is sealed by disco, `ephemeral` the secret of the fresh X25519 key."""
    own = X25519PrivateKey.from_private_bytes(ephemeral)
    c = own.public_key().public_bytes_raw()
    shared = own.exchange(X25519PublicKey.from_public_bytes(key))
    plain = (struct.pack("!H", len(packet)) + packet).ljust(800, b"\0")
    if len(plain) > 800:
        raise ValueError(f"a call of {len(packet)} bytes is too long: name fewer candidates")
    box = ChaCha20Poly1305(hkdf(shared, c + key, b"tom-rv-1 call"))
    return b"\x01" + c + box.encrypt(bytes(12), plain, ip + struct.pack("!H", p))


@dataclass(frozen=True)
class SealedCall:
    """A sealed call that is ready: its two ports, and the arguments of its `put` but id and token."""

    p: int
    q: int
    target: bytes
    put: dict[bytes, bencode.Value]


def make_call(key: bytes, ip: bytes, packet: bytes) -> SealedCall:
    """A sealed call of the caller at `ip` to the invitation's `key`, with a port drawn at random."""
    p = 1024 + secrets.randbelow(64512)
    value = seal_call(key, ip, p, packet, secrets.token_bytes(32))
    where, put = signed_item(item_seed(key, ip, p), value, 2**63 - 1)
    return SealedCall(p, second_port(key, ip, p), where, put)
