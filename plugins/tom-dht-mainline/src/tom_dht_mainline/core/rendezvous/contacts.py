"""Places that two contacts share: where each leaves for the other alone what it else tells everybody.

Both work them out from the secret that their two node keys make, so nothing has to be handed over. Such a place is a
mutable item (BEP 44) of a key pair that is nobody's name, and what lies there is sealed: who stores it learns neither
whose it is nor what it says. It is another one each day, so that nobody can be near it for long.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tom_dht_mainline.core.errors import ItemError
from tom_dht_mainline.core.items import MutableItem

PURPOSE: Final = b"tom-rv-1 contact"
"""What the secret of the two nodes is made for (see `tom_connect.abc.Signer`)."""
DAY: Final = 86_400
EARLIER: Final = 2 * 3600.0
"""Seconds that a contact's clock may be behind ours."""
LATER: Final = 3 * 3600.0
"""Seconds for which we publish beforehand: a contact's clock may be two hours ahead, and we publish every hour."""
PADDED: Final = 960
"""Bytes of what is sealed, whatever it says: its length tells nothing. More would not fit into an item."""
ROOM: Final = PADDED - 2
VERSION: Final = 1
NONCE: Final = 12
SIZE: Final = 1 + NONCE + PADDED + 16


class Kind(enum.Enum):
    """What lies at a place."""

    RECORD = b"tom-rv-1 contact record"
    INVITATION = b"tom-rv-1 contact invitation"


@attrs.frozen
class Place:
    """One place of one day. `signing_key`: whose item it is; `cipher_key`: 32 bytes that seal what lies there."""

    signing_key: Ed25519PrivateKey
    cipher_key: bytes = attrs.field(repr=False)

    @property
    def public_key(self) -> bytes:
        """The 32-byte key under which the item lies, without salt."""
        return self.signing_key.public_key().public_bytes_raw()

    def item(self, content: bytes, seq: int, random: bytes) -> MutableItem:
        """What to put there. `random`: 12 fresh bytes; raises ItemError for more than 958 bytes of content."""
        if len(content) > ROOM:
            raise ItemError(f"what is left for a contact has at most {ROOM} bytes, this has {len(content)}")
        padded = len(content).to_bytes(2, "big") + content.ljust(ROOM, b"\0")
        sealed = ChaCha20Poly1305(self.cipher_key).encrypt(random, padded, None)
        return MutableItem.sign(self.signing_key, bytes((VERSION,)) + random + sealed, seq)

    def open(self, value: object) -> bytes:
        """The content of what was found there. Raises ItemError for what no contact has left."""
        if not isinstance(value, bytes) or len(value) != SIZE or value[0] != VERSION:
            raise ItemError("not what a contact leaves")
        try:
            padded = ChaCha20Poly1305(self.cipher_key).decrypt(value[1 : 1 + NONCE], value[1 + NONCE :], None)
        except InvalidTag:
            raise ItemError("what a contact left does not open") from None
        size = int.from_bytes(padded[:2], "big")
        if size > ROOM:
            raise ItemError("what a contact left has a wrong length")
        return padded[2 : 2 + size]


def place(shared: bytes, kind: Kind, owner: bytes, day: int) -> Place:
    """Where `owner` (a NodeId, 32 bytes) leaves something for the other one of those who have a secret (32 bytes)."""
    info = kind.value + owner + day.to_bytes(4, "big")
    derived = HKDF(SHA256(), 64, salt=None, info=info).derive(shared)
    return Place(Ed25519PrivateKey.from_private_bytes(derived[:32]), derived[32:])


def day_of(wall: float) -> int:
    """The day on which a contact looks, counted from 1970. `wall`: seconds since then."""
    return max(0, min(int(wall // DAY), 0xFFFFFFFF))


def days_of(wall: float) -> tuple[int, ...]:
    """The days for which to publish, one or two."""
    first, last = day_of(wall - EARLIER), day_of(wall + LATER)
    return (first,) if first == last else (first, last)
