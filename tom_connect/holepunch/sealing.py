"""Who may cost us what: key agreement, one key a direction and session, replay, and cookies under load.

An X25519 agreement of two static keys is the same in both directions. So every key is derived for one sender, one
receiver and one session of the sender, and a packet that is sent back to its maker does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tom_connect.exceptions import InvalidKeyError
from tom_connect.holepunch import disco
from tom_connect.holepunch.disco import Challenge, DiscoError, Envelope
from tom_connect.holepunch.limits import KeyedBuckets, TokenBucket
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.holepunch.replay import ReplayWindow
from tom_connect.keys import NodeId, SecretKey

_INFO = b"tom-connect disco v1"

MAX_STRANGERS: Final = 1024
"""Peers whose keys are kept although we have no business with them; each costs about 1 KiB."""
MAX_SESSIONS: Final = 4
"""Sessions of a peer that are told apart at once: restarts within the life of packets in flight are rare."""
STRANGER_RATE: Final = 100.0
"""Key agreements a second for packets of unknown keys; each takes about 0.2 ms, so at most 2% of a core."""
STRANGER_BURST: Final = 100.0
COOKIE_RATE: Final = 100.0
"""As many again for those who have shown that they receive at their address."""
SOURCE_RATE: Final = 5.0
"""Of them, those from one address (an IPv6 /64 counts as one)."""
SOURCE_BURST: Final = 10.0
CHALLENGE_RATE: Final = 2000.0
"""Challenges a second; each costs two hashes, and is smaller than what it answers."""
COOKIE_LIFE: Final = 120.0
"""Seconds after which the secret behind cookies changes; one is good for one to two such times."""


@attrs.frozen
class Opened:
    """An authentic packet. `plain`: the message in it."""

    sender: NodeId
    plain: bytes


class PeerKeys:
    """What we share with one peer: keys for sending and receiving, and the replay windows of its sessions."""

    __slots__ = ("_counter", "_send_key", "_session", "_sessions", "_shared", "node_id", "ours")

    def __init__(self, ours: NodeId, theirs: NodeId, shared: bytes, session: bytes) -> None:
        self.ours = ours
        self.node_id = theirs
        self._shared = shared
        # The session is drawn anew whenever these keys are made, so no counter is ever used twice under one key.
        self._session = session
        self._counter = 0
        self._send_key = self._key(ours, theirs, session)
        self._sessions: OrderedDict[bytes, tuple[ChaCha20Poly1305, ReplayWindow]] = OrderedDict()

    def _key(self, sender: NodeId, receiver: NodeId, session: bytes) -> ChaCha20Poly1305:
        info = _INFO + sender.raw + receiver.raw
        return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=session, info=info).derive(self._shared))

    def seal(self, plain: bytes, cookie: bytes | None) -> tuple[bytes, bytes]:
        """The packet that carries `plain`, and its stamp."""
        counter = self._counter.to_bytes(8, "big")
        self._counter += 1
        stamp = self._session + counter
        header = disco.pack_header(stamp, self.ours.raw, self.node_id.raw, with_cookie=cookie is not None)
        sealed = self._send_key.encrypt(bytes(4) + counter, plain, header)
        return header + (cookie or b"") + sealed, stamp

    def open(self, envelope: Envelope) -> bytes:
        """The message in a packet of this peer; raises DiscoError for forgeries and replays."""
        session, counter_bytes = envelope.stamp[:8], envelope.stamp[8:]
        counter = int.from_bytes(counter_bytes, "big")
        known = self._sessions.get(session)
        key, window = known or (self._key(self.node_id, self.ours, session), ReplayWindow())
        if not window.fresh(counter):
            raise DiscoError("replay")
        try:
            plain = key.decrypt(bytes(4) + counter_bytes, envelope.sealed, envelope.header)
        except InvalidTag:
            raise DiscoError("forged") from None
        window.accept(counter)
        if known is None:
            self._sessions[session] = (key, window)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(session)
        return plain


class CookieJar:
    """Makes and checks cookies: a keyed hash of an address, under a secret that changes every two minutes."""

    __slots__ = ("_changed", "_new", "_old", "_random")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._new = self._old = random(32)
        self._changed: float | None = None

    def _turn(self, now: float) -> None:
        if self._changed is None:
            self._changed = now
        elif now - self._changed >= COOKIE_LIFE:
            self._old = self._new if now - self._changed < 2 * COOKIE_LIFE else self._random(32)
            self._new = self._random(32)
            self._changed = now

    @staticmethod
    def _cookie(secret: bytes, source: Path) -> bytes:
        return hashlib.blake2b(str(source).encode(), key=secret, digest_size=disco.COOKIE_SIZE).digest()

    def make(self, source: Path, now: float) -> bytes:
        """The cookie that only someone who receives at `source` can send back."""
        self._turn(now)
        return self._cookie(self._new, source)

    def good(self, cookie: bytes, source: Path, now: float) -> bool:
        """Whether we made it for `source` within the last four minutes."""
        self._turn(now)
        return any(hmac.compare_digest(cookie, self._cookie(secret, source)) for secret in (self._new, self._old))


class Sealer:
    """Seals and opens for one identity; knows the keys of those we deal with and of a bounded number of strangers."""

    def __init__(self, secret_key: SecretKey, random: Callable[[int], bytes] = os.urandom) -> None:
        self.node_id = secret_key.node_id
        self._private = X25519PrivateKey.from_private_bytes(secret_key.to_x25519())
        self._random = random
        self._peers: dict[bytes, PeerKeys] = {}
        self._strangers: OrderedDict[bytes, PeerKeys] = OrderedDict()
        self._cookies = CookieJar(random)
        self._free = TokenBucket(STRANGER_RATE, STRANGER_BURST)
        self._paid = TokenBucket(COOKIE_RATE, COOKIE_RATE)
        self._sources: KeyedBuckets[object] = KeyedBuckets(SOURCE_RATE, SOURCE_BURST, 1024)
        self._challenges = TokenBucket(CHALLENGE_RATE, CHALLENGE_RATE)
        self.agreements = 0
        """Key agreements made so far."""

    def _agree(self, theirs: NodeId) -> PeerKeys:
        self.agreements += 1
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(theirs.to_x25519()))
        except ValueError:
            raise DiscoError("key") from None
        return PeerKeys(self.node_id, theirs, shared, self._random(8))

    def pin(self, node_id: NodeId) -> None:
        """Keep the keys of a peer that we deal with, whatever strangers do; raises DiscoError for an unusable key."""
        if node_id.raw not in self._peers:
            known = self._strangers.pop(node_id.raw, None)
            self._peers[node_id.raw] = known or self._agree(node_id)

    def unpin(self, node_id: NodeId) -> None:
        """Let a peer's keys be forgotten when room is needed."""
        known = self._peers.pop(node_id.raw, None)
        if known is not None:
            self._remember(known)

    def _remember(self, keys: PeerKeys) -> None:
        self._strangers[keys.node_id.raw] = keys
        if len(self._strangers) > MAX_STRANGERS:
            self._strangers.popitem(last=False)

    def seal(self, node_id: NodeId, plain: bytes, cookie: bytes | None = None) -> tuple[bytes, bytes]:
        """The packet for `node_id`, and its stamp (16 bytes)."""
        keys = self._peers.get(node_id.raw) or self._strangers.get(node_id.raw)
        if keys is None:
            keys = self._agree(node_id)
            self._remember(keys)
        return keys.seal(plain, cookie)

    def open(self, data: bytes, source: Path, now: float) -> Opened | bytes:
        """Open a sealed packet, or give the challenge to send back to `source`; raises DiscoError."""
        envelope = disco.read_envelope(data, self.node_id.raw)
        sender = envelope.sender
        keys = self._peers.get(sender)
        if keys is None:
            keys = self._strangers.get(sender)
            if keys is not None:
                self._strangers.move_to_end(sender)
        if keys is not None:
            return Opened(keys.node_id, keys.open(envelope))
        if sender == self.node_id.raw:
            raise DiscoError("own")
        if not self._may_agree(envelope, source, now):
            if not self._challenges.take(now):
                raise DiscoError("load")
            return disco.encode_challenge(Challenge(envelope.stamp, self._cookies.make(source, now)), self.node_id.raw)
        try:
            keys = self._agree(NodeId(sender))
        except InvalidKeyError:
            raise DiscoError("key") from None
        plain = keys.open(envelope)
        # Only now: a forged packet must not push a real peer out.
        self._remember(keys)
        return Opened(keys.node_id, plain)

    def _may_agree(self, envelope: Envelope, source: Path, now: float) -> bool:
        if self._free.take(now):
            return True
        return (
            envelope.cookie is not None
            and self._cookies.good(envelope.cookie, source, now)
            and self._sources.take(_prefix(source), now)
            and self._paid.take(now)
        )


def _prefix(source: Path) -> object:
    """What counts as one source: an IPv4 address, an IPv6 /64, a relay."""
    if isinstance(source, RelayPath):
        return source.url
    ip = source.ip
    return ip if ip.version == 4 else ip.packed[:8]
