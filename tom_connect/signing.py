"""What plugins may have signed with the node's key."""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tom_connect.addr import NodeAddr
from tom_connect.exceptions import InvalidInputError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord, bep44_signable, sign_record

MAX_SALT = 64
"""BEP 44 limits a salt to 64 bytes."""
CHALLENGE_DIGEST = 32
_SECRET_INFO = b"tom-connect secret: "
_ITEM_BEGINS = (b"3:seqi", b"4:salt")
"""How the signed bytes of a mutable item begin (BEP 44): no hash that is signed may be read as one."""


class NodeSigner:
    """`tom_connect.abc.Signer` of a secret key, which it does not give away."""

    def __init__(self, secret_key: SecretKey) -> None:
        self._key = secret_key

    @property
    def node_id(self) -> NodeId:
        """See `Signer`."""
        return self._key.node_id

    def sign_record(self, addr: NodeAddr, timestamp_us: int) -> SignedRecord:
        """See `Signer`."""
        return sign_record(self._key, addr, timestamp_us)

    def sign_mutable_item(self, salt: bytes, seq: int, value: bytes) -> bytes:
        """See `Signer`. Raises InvalidInputError for an empty or too long salt."""
        if not 1 <= len(salt) <= MAX_SALT:
            raise InvalidInputError(f"the salt of a mutable item has 1 to {MAX_SALT} bytes, this has {len(salt)}")
        return self._key.sign(bep44_signable(salt, seq, value))

    def sign_relay_challenge(self, digest: bytes) -> bytes:
        """See `Signer`. Raises InvalidInputError for what is no hash, or would be valid as a mutable item."""
        if len(digest) != CHALLENGE_DIGEST or digest.startswith(_ITEM_BEGINS):
            raise InvalidInputError(f"a relay challenge is signed as a hash of {CHALLENGE_DIGEST} bytes")
        return self._key.sign(digest)

    def shared_secret(self, node_id: NodeId, purpose: bytes) -> bytes:
        """See `Signer`. Raises InvalidInputError for an empty or too long purpose, or our own id."""
        if not 1 <= len(purpose) <= MAX_SALT:
            raise InvalidInputError(f"the purpose of a secret has 1 to {MAX_SALT} bytes, this has {len(purpose)}")
        if node_id == self.node_id:
            raise InvalidInputError("a node shares no secret with itself; name another node")
        ours = X25519PrivateKey.from_private_bytes(self._key.to_x25519())
        secret = ours.exchange(X25519PublicKey.from_public_bytes(node_id.to_x25519()))
        both = b"".join(sorted((self.node_id.raw, node_id.raw)))
        return HKDF(SHA256(), 32, salt=both, info=_SECRET_INFO + purpose).derive(secret)


class SystemClock:
    """The clock of the system (`tom_connect.abc.Clock`)."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def wall(self) -> float:
        """See `Clock`."""
        return time.time()
