"""BEP 44 items: immutable and mutable values, their targets, signatures and limits."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .bencode import Bencodable, decode, encode
from .errors import BencodeError, ItemError

MAX_VALUE = 996
"""Bytes of a raw value: BEP 44 limits `v` to 1000 bytes, and libtorrent counts its bencoded form."""
MAX_ENCODED_VALUE = 1000
MAX_SALT = 64
MAX_SEQ = 2**63 - 1


def mutable_target(public_key: bytes, salt: bytes = b"") -> bytes:
    """Where a mutable item lives: SHA-1 of key and salt, 20 bytes (BEP 44)."""
    return hashlib.sha1(public_key + salt, usedforsecurity=False).digest()


def immutable_target(encoded: bytes) -> bytes:
    """Where an immutable item lives: SHA-1 of the bencoded value, 20 bytes (BEP 44)."""
    return hashlib.sha1(encoded, usedforsecurity=False).digest()


def signed_bytes(encoded: bytes, seq: int, salt: bytes = b"") -> bytes:
    """What a mutable item's signature covers: `4:salt..3:seqi..e1:v` and the bencoded value (BEP 44)."""
    head = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return b"%b3:seqi%de1:v%b" % (head, seq, encoded)


def encode_value(value: Bencodable) -> bytes:
    """The bencoded form of a value; raises `ItemError` beyond 1000 bytes (996 of a byte string)."""
    try:
        encoded = encode(value)
    except BencodeError as exc:
        raise ItemError(f"the value can't be bencoded: {exc}") from exc
    if len(encoded) > MAX_ENCODED_VALUE:
        raise ItemError(f"the value takes {len(encoded)} bytes bencoded; at most {MAX_ENCODED_VALUE} are stored")
    return encoded


@attrs.frozen
class ImmutableItem:
    """A value named by its own hash; `encoded` is its bencoded form, at most 1000 bytes."""

    encoded: bytes

    @classmethod
    def create(cls, value: Bencodable) -> ImmutableItem:
        """An item of a bencodable value; raises `ItemError` if it is too large."""
        return cls(encode_value(value))

    @property
    def target(self) -> bytes:
        """20 bytes."""
        return immutable_target(self.encoded)

    @property
    def value(self) -> Bencodable:
        """The decoded value."""
        return decode(self.encoded)


@attrs.frozen
class MutableItem:
    """A signed value of one key.

    `encoded` is its bencoded form (at most 1000 bytes), `seq` lies in 0..2**63-1, `salt` has at most 64 bytes.
    """

    public_key: bytes
    encoded: bytes = attrs.field(repr=False)
    seq: int
    signature: bytes = attrs.field(repr=False)
    salt: bytes = b""

    @classmethod
    def create(cls, public_key: bytes, value: Bencodable, seq: int, signature: bytes, salt: bytes = b"") -> MutableItem:
        """An item signed elsewhere; sizes are checked, the signature is not. Raises `ItemError`."""
        item = cls(public_key, encode_value(value), seq, signature, salt)
        item.check_shape()
        return item

    @classmethod
    def sign(cls, key: Ed25519PrivateKey, value: Bencodable, seq: int, salt: bytes = b"") -> MutableItem:
        """An item signed with an Ed25519 key. Raises `ItemError`."""
        encoded = encode_value(value)
        public_key = key.public_key().public_bytes_raw()
        item = cls(public_key, encoded, seq, key.sign(signed_bytes(encoded, seq, salt)), salt)
        item.check_shape()
        return item

    def check_shape(self) -> None:
        """Raises `ItemError` unless key, signature, seq, salt and value have legal sizes."""
        if len(self.public_key) != 32 or len(self.signature) != 64:
            raise ItemError("a mutable item needs a 32-byte key and a 64-byte signature")
        if not 0 <= self.seq <= MAX_SEQ:
            raise ItemError("the sequence number must lie in 0..2**63-1")
        if len(self.salt) > MAX_SALT:
            raise ItemError(f"the salt has {len(self.salt)} bytes; at most {MAX_SALT} are allowed")
        if len(self.encoded) > MAX_ENCODED_VALUE:
            raise ItemError(f"the value takes {len(self.encoded)} bytes; at most {MAX_ENCODED_VALUE} are stored")

    @property
    def target(self) -> bytes:
        """20 bytes."""
        return mutable_target(self.public_key, self.salt)

    @property
    def value(self) -> Bencodable:
        """The decoded value."""
        return decode(self.encoded)

    def signature_is_valid(self) -> bool:
        """Whether the Ed25519 signature verifies; costs about 100 us, so go through `Verifier` on the wire."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(
                self.signature, signed_bytes(self.encoded, self.seq, self.salt)
            )
        except (InvalidSignature, ValueError):
            return False
        return True


Item = MutableItem | ImmutableItem


class Verifier:
    """Verifies signatures and remembers the outcomes of the last few: the same item comes from many nodes."""

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._known: OrderedDict[MutableItem, bool] = OrderedDict()
        self.verified = 0

    def check(self, item: MutableItem) -> bool:
        """Whether the item's signature is valid."""
        known = self._known.get(item)
        if known is not None:
            return known
        self.verified += 1
        valid = item.signature_is_valid()
        self._known[item] = valid
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return valid
