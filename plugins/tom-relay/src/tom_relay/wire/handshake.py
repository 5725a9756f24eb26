"""Both sides of the challenge handshake, sans-IO: the client proves that it holds its key.

The challenge is not bound to the relay: a malicious relay can pass an honest one's on. It proves the client to the
relay and nothing to the client.
"""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import NodeId
from tom_relay.errors import HandshakeError, RelayDeniedError, WireError
from tom_relay.wire.dialect import Dialect
from tom_relay.wire.frames import (
    CHALLENGE_SIZE,
    ClientAuth,
    ServerChallenge,
    ServerConfirmsAuth,
    ServerDeniesAuth,
    decode_from_client,
    decode_from_server,
    encode,
)


def signed_message(challenge: bytes, dialect: Dialect) -> bytes:
    """The 32 bytes that a client signs: the challenge, hashed under the dialect's context."""
    return blake3(challenge, derive_key_context=dialect.challenge_context).digest()


class ServerHandshake:
    """The server's side for one connection: send `challenge()`, give `authenticate` the answer, then confirm or deny.

    `challenge`: 16 bytes from the system's random source, never used twice.
    """

    def __init__(self, dialect: Dialect, challenge: bytes) -> None:
        if len(challenge) != CHALLENGE_SIZE:
            raise ValueError(f"a challenge has {CHALLENGE_SIZE} bytes")
        self.dialect = dialect
        self._challenge: bytes | None = challenge

    def challenge(self) -> bytes:
        """The message that begins the handshake."""
        assert self._challenge is not None
        return encode(ServerChallenge(self._challenge), self.dialect)

    def authenticate(self, message: bytes) -> NodeId:
        """Whose key the client's answer proves; raises HandshakeError with the reason to deny it. Usable once."""
        challenge, self._challenge = self._challenge, None
        if challenge is None:
            raise HandshakeError("handshake", "the challenge was answered already")
        try:
            frame = decode_from_client(message, self.dialect)
        except WireError as exc:
            raise HandshakeError(exc.kind, f"expected ClientAuth: {exc}") from None
        if not isinstance(frame, ClientAuth):
            raise HandshakeError("handshake", f"expected ClientAuth, got {type(frame).__name__}")
        try:
            node_id = NodeId(frame.key)
        except InvalidKeyError as exc:
            raise HandshakeError("key", str(exc)) from None
        if not node_id.verify(frame.signature, signed_message(challenge, self.dialect)):
            raise HandshakeError("signature", "the signature is not one of this challenge by this key")
        return node_id

    def confirm(self) -> bytes:
        """The message that lets the client in."""
        return encode(ServerConfirmsAuth(), self.dialect)

    def deny(self, reason: str) -> bytes:
        """The message that refuses the client."""
        return encode(ServerDeniesAuth(reason), self.dialect)


class ClientHandshake:
    """The client's side: give `receive` each message until `done`.

    `sign` returns the 64-byte Ed25519 signature of 32 bytes by the key of `node_id`. `proven`: the connection has
    proven both keys, and the relay's first message confirms or denies.
    """

    def __init__(
        self, dialect: Dialect, node_id: NodeId, sign: Callable[[bytes], bytes], *, proven: bool = False
    ) -> None:
        self.dialect = dialect
        self.done = False
        self._node_id = node_id
        self._sign = sign
        self._answered = proven

    def receive(self, message: bytes) -> bytes | None:
        """The message to send now, or None. Raises RelayDeniedError if refused, WireError on a breach."""
        if self.done:
            raise WireError("handshake", "the handshake is over")
        frame = decode_from_server(message, self.dialect)
        match frame:
            case ServerChallenge(challenge) if not self._answered:
                self._answered = True
                signature = self._sign(signed_message(challenge, self.dialect))
                return encode(ClientAuth(self._node_id.raw, signature), self.dialect)
            case ServerConfirmsAuth() if self._answered:
                self.done = True
                return None
            case ServerDeniesAuth(reason):
                raise RelayDeniedError(reason)
        raise WireError("handshake", f"{type(frame).__name__} does not belong here in the handshake")
