"""Node identity: Ed25519 key pairs, of which a NodeId is the public half (RFC 8032)."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import re
import string

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tom_connect.exceptions import InvalidKeyError

KEY_SIZE = 32
SIGNATURE_SIZE = 64

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_Z32_ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
_B32_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_Z32 = str.maketrans(_B32_ALPHABET, _Z32_ALPHABET)
_FROM_Z32 = str.maketrans(_Z32_ALPHABET, _B32_ALPHABET)
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_BASE32 = re.compile(r"[A-Za-z2-7]{52}")
_Z32 = re.compile(r"[ybndrfg8ejkmcpqxot1uwisza345h769]{52}")

# The y coordinates of the eight points of order 1, 2, 4 and 8 (RFC 7748 section 6.1 says why they are
# refused: any signature or agreement with them is the same for every secret).
_LOW_ORDER_Y = frozenset(
    {
        0,
        1,
        _P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)


@functools.lru_cache(maxsize=4096)
def _check_point(data: bytes) -> None:
    """Raise InvalidKeyError unless `data` is the canonical encoding of a curve point of large order."""
    y = _check_encoding(data)
    y2 = y * y % _P
    # x² is the quotient of these two (RFC 8032 section 5.1.3), which is a square where their product is.
    if not _is_square((y2 - 1) * (_D * y2 + 1)):
        raise InvalidKeyError("not a valid node id: the key is not on the curve")


def _check_encoding(data: bytes) -> int:
    """The y coordinate; raises InvalidKeyError for what is not canonical or of low order, on the curve or not."""
    if len(data) != KEY_SIZE:
        raise InvalidKeyError(f"a node id has {KEY_SIZE} bytes, this has {len(data)}")
    encoded = int.from_bytes(data, "little")
    y = encoded & ((1 << 255) - 1)
    if y >= _P:
        raise InvalidKeyError("not a valid node id: the key is not in canonical form")
    if y in _LOW_ORDER_Y:
        raise InvalidKeyError("not a valid node id: the key has low order")
    return y


def _is_square(number: int) -> bool:
    """Whether a number is a square other than 0 modulo 2^255 - 19: its Jacobi symbol is 1.

    A third of the time that Euler's criterion takes; every key that anybody names is judged by it.
    """
    a, n, symbol = number % _P, _P, 1
    while a:
        zeros = (a & -a).bit_length() - 1
        a >>= zeros
        if zeros & 1 and n & 7 in (3, 5):
            symbol = -symbol
        a, n = n, a
        if a & n & 3 == 3:
            symbol = -symbol
        a %= n
    return n == 1 and symbol == 1


@attrs.frozen(eq=True, order=True, repr=False, str=False, hash=True)
class NodeId:
    """A node's public key: 32 bytes of a canonical Ed25519 point of large order.

    `str()` gives 64 lower-case hex digits. Raises InvalidKeyError for any other bytes.
    """

    raw: bytes = attrs.field(validator=lambda _i, _a, v: _check_point(v))

    @classmethod
    def parse(cls, text: str) -> NodeId:
        """Read 64 hex digits or 52 base32 letters (RFC 4648, no padding), both in any case.

        Raises InvalidKeyError with the reason.
        """
        text = text.strip()
        if _HEX.fullmatch(text):
            return cls(bytes.fromhex(text))
        if _BASE32.fullmatch(text):
            try:
                data = base64.b32decode(text.upper() + "====")
            except binascii.Error as exc:
                raise InvalidKeyError(f"not a valid node id: {exc}") from None
            if base64.b32encode(data).decode().rstrip("=") != text.upper():
                raise InvalidKeyError("not a valid node id: the last base32 letter has stray bits")
            return cls(data)
        if len(text) == 2 * KEY_SIZE:
            position, wrong = next((n, c) for n, c in enumerate(text, 1) if c not in string.hexdigits)
            raise InvalidKeyError(f"not a valid node id: {wrong!r}, character {position}, is no hex digit")
        raise InvalidKeyError(
            f"not a valid node id: expected 64 hex digits or 52 base32 letters, got {len(text)} characters"
        )

    @classmethod
    def from_z32(cls, text: str) -> NodeId:
        """Read the 52 z-base-32 letters that name a node in DNS and Pkarr; raises InvalidKeyError."""
        if not _Z32.fullmatch(text):
            raise InvalidKeyError("not a valid z-base-32 node id: expected 52 letters")
        data = base64.b32decode(text.translate(_FROM_Z32) + "====")
        if base64.b32encode(data).decode().rstrip("=").translate(_TO_Z32) != text:
            raise InvalidKeyError("not a valid z-base-32 node id: the last letter has stray bits")
        return cls(data)

    def z32(self) -> str:
        """The 52 z-base-32 letters that name this node in DNS and Pkarr."""
        return base64.b32encode(self.raw).decode().rstrip("=").translate(_TO_Z32)

    def short(self) -> str:
        """The first ten hex digits, for logs and screens."""
        return self.raw[:5].hex()

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's Ed25519 signature of `message` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_x25519(self) -> bytes:
        """The Montgomery form of this key, 32 bytes, for key agreement (RFC 7748 section 4.1)."""
        y = int.from_bytes(self.raw, "little") & ((1 << 255) - 1)
        return ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(32, "little")

    def __bytes__(self) -> bytes:
        return self.raw

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"NodeId({self.short()}…)"


def signature_of(key: bytes, signature: bytes, message: bytes) -> bool:
    """What `NodeId(key).verify` says, False for what is no node id, in less time for a key that is met once.

    To verify a signature, the key's point is computed anyway: whether it is on the curve need not be asked before.
    """
    try:
        _check_encoding(key)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidKeyError, InvalidSignature, ValueError):
        return False
    return True


class SecretKey:
    """A node's Ed25519 secret key. Its text and repr never show it."""

    __slots__ = ("_key", "_node_id", "_seed")

    def __init__(self, seed: bytes) -> None:
        """Take the 32-byte seed of RFC 8032 section 5.1.5; raises InvalidKeyError for another length."""
        if len(seed) != KEY_SIZE:
            raise InvalidKeyError(f"a secret key has {KEY_SIZE} bytes, this has {len(seed)}")
        self._seed = bytes(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(self._seed)
        self._node_id = NodeId(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SecretKey:
        """A fresh key from the system's random source."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def node_id(self) -> NodeId:
        """The public half."""
        return self._node_id

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key as the `cryptography` package has it."""
        return self._key

    def seed(self) -> bytes:
        """The 32 secret bytes; whoever has them is this node."""
        return self._seed

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message` (RFC 8032)."""
        return self._key.sign(message)

    def to_x25519(self) -> bytes:
        """The 32-byte X25519 scalar of the same identity: the clamped half of SHA-512(seed)."""
        scalar = bytearray(hashlib.sha512(self._seed).digest()[:32])
        scalar[0] &= 248
        scalar[31] &= 127
        scalar[31] |= 64
        return bytes(scalar)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(other._seed, self._seed)

    def __hash__(self) -> int:
        return hash(self._node_id)

    def __repr__(self) -> str:
        return f"SecretKey(of {self._node_id!r})"
