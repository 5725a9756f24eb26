"""A call with words: where the announced address says too little, a sealed item says the rest.

The caller draws a port as a nonce and announces it beside its address, with a second one that shows to the callee that
the first is such a nonce. Both then know a key pair that is this call's: under it lies the item. Who has not read the
mailbox can't tell the key, so nobody can have locked it beforehand; who reads it finds it locked by the caller.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tom_dht_mainline.core.address import pack_ip
from tom_dht_mainline.core.errors import ItemError
from tom_dht_mainline.core.items import MAX_SEQ, MutableItem

VERSION: Final = 1
FIRST_PORT: Final = 1024
PADDED: Final = 800
"""Bytes of what is sealed, whatever it says: its length tells nothing. A call-me-maybe with all it can carry fits in,
unless its relays have long names."""
KEY: Final = 32
TAG: Final = 16
SIZE: Final = 1 + KEY + PADDED + TAG
SEQ: Final = MAX_SEQ
"""Who reads the nonce in the mailbox has the key pair as well. The caller puts first, and nothing is higher than this,
so that no node which has taken the call lets it be overwritten."""
_PORT_INFO: Final = b"tom-rv-1 port"
_ITEM_INFO: Final = b"tom-rv-1 item"
_CALL_INFO: Final = b"tom-rv-1 call"


@attrs.frozen
class Nonce:
    """The two ports that a caller at `ip` announces besides its address; `key`: of the callee's invitation."""

    ip: str
    port: int
    check: int

    @classmethod
    def of(cls, key: bytes, ip: str, port: int) -> Nonce:
        """The nonce that begins with a port, 1024 or above."""
        return cls(ip, port, _check_port(key, ip, port))

    def signing_key(self, key: bytes) -> Ed25519PrivateKey:
        """The key pair under which the call lies, without salt (BEP 44)."""
        secret = key + pack_ip(self.ip) + self.port.to_bytes(2, "big")
        return Ed25519PrivateKey.from_private_bytes(HKDF(SHA256(), 32, salt=None, info=_ITEM_INFO).derive(secret))

    def bound(self) -> bytes:
        """What ties a sealed call to this nonce."""
        return pack_ip(self.ip) + self.port.to_bytes(2, "big")


def _check_port(key: bytes, ip: str, port: int) -> int:
    digest = hmac.digest(key, _PORT_INFO + pack_ip(ip) + port.to_bytes(2, "big"), hashlib.sha256)
    check = FIRST_PORT + int.from_bytes(digest[:4], "big") % (65536 - FIRST_PORT)
    return check if check != port else FIRST_PORT


def draw_nonce(key: bytes, ip: str, random: bytes) -> Nonce:
    """A nonce of 4 random bytes."""
    return Nonce.of(key, ip, FIRST_PORT + int.from_bytes(random[:4], "big") % (65536 - FIRST_PORT))


def nonces(key: bytes, ip: str, ports: Sequence[int]) -> list[Nonce]:
    """The nonces among the ports that one IP has announced."""
    announced = set(ports)
    found = (Nonce.of(key, ip, port) for port in announced if port >= FIRST_PORT)
    return [nonce for nonce in found if nonce.check in announced]


def seal_call(nonce: Nonce, callee: bytes, content: bytes, ours: X25519PrivateKey) -> bytes:
    """The value of the item, 849 bytes. `callee`: its X25519 key; `ours`: fresh for this call; raises ItemError."""
    if len(content) > PADDED - 2:
        raise ItemError(f"a call has at most {PADDED - 2} bytes, this has {len(content)}")
    public = ours.public_key().public_bytes_raw()
    padded = len(content).to_bytes(2, "big") + content.ljust(PADDED - 2, b"\0")
    sealed = _cipher(ours, callee, public, callee).encrypt(bytes(12), padded, nonce.bound())
    return bytes((VERSION,)) + public + sealed


def item_of(nonce: Nonce, key: bytes, value: bytes) -> MutableItem:
    """A sealed call as the item that it lies in; `key`: of the callee's invitation."""
    return MutableItem.sign(nonce.signing_key(key), value, SEQ)


def open_call(nonce: Nonce, ours: X25519PrivateKey, value: object) -> bytes:
    """The content of a call to us. Raises ItemError for what is forged, for another key, or of another version."""
    if not isinstance(value, bytes) or len(value) != SIZE or value[0] != VERSION:
        raise ItemError("not a call")
    public, sealed = value[1 : 1 + KEY], value[1 + KEY :]
    try:
        padded = _cipher(ours, public, public, ours.public_key().public_bytes_raw()).decrypt(
            bytes(12), sealed, nonce.bound()
        )
    except InvalidTag:
        raise ItemError("a call that does not open") from None
    size = int.from_bytes(padded[:2], "big")
    if size > PADDED - 2:
        raise ItemError("a call with a wrong length")
    return padded[2 : 2 + size]


def _cipher(ours: X25519PrivateKey, theirs: bytes, caller: bytes, callee: bytes) -> ChaCha20Poly1305:
    try:
        shared = ours.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise ItemError("a key that allows no agreement") from None
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=caller + callee, info=_CALL_INFO).derive(shared))
