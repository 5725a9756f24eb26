"""Both sides of the handshake against each other, and what each refuses."""

from __future__ import annotations

import pytest
from blake3 import blake3

from tom_connect.keys import SecretKey
from tom_relay.errors import HandshakeError, RelayDeniedError, WireError
from tom_relay.wire import (
    ClientAuth,
    ClientHandshake,
    Dialect,
    Ping,
    ServerHandshake,
    decode_from_client,
    encode,
    signed_message,
)

KEY = SecretKey(bytes(31) + b"\x01")
CHALLENGE = bytes(range(16))


def client(dialect: Dialect) -> ClientHandshake:
    return ClientHandshake(dialect, KEY.node_id, KEY.sign)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_key_is_proven(dialect: Dialect) -> None:
    """In each dialect the client answers the challenge, and the server learns its key."""
    server, ours = ServerHandshake(dialect, CHALLENGE), client(dialect)
    answer = ours.receive(server.challenge())
    assert answer is not None and not ours.done
    assert server.authenticate(answer) == KEY.node_id
    assert ours.receive(server.confirm()) is None
    assert ours.done


def test_what_is_signed_depends_on_the_family() -> None:
    """The signed message is BLAKE3's derive_key under the context that iroh and ToM use, each its own."""
    iroh = blake3(CHALLENGE, derive_key_context="iroh-relay handshake v1 challenge signature").digest()
    tom = blake3(CHALLENGE, derive_key_context="tom-relay handshake v1 challenge signature").digest()
    assert signed_message(CHALLENGE, Dialect.IROH_V2) == signed_message(CHALLENGE, Dialect.IROH_V1) == iroh
    assert signed_message(CHALLENGE, Dialect.TOM_V2) == signed_message(CHALLENGE, Dialect.TOM_V1) == tom


def test_an_answer_proves_nothing_elsewhere() -> None:
    """An answer to another challenge or in another dialect's context is refused, and so is a second one."""
    answer = client(Dialect.IROH_V2).receive(ServerHandshake(Dialect.IROH_V2, CHALLENGE).challenge())
    assert answer is not None
    for dialect, challenge in ((Dialect.IROH_V2, bytes(16)), (Dialect.TOM_V1, CHALLENGE)):
        server = ServerHandshake(dialect, challenge)
        with pytest.raises(HandshakeError) as caught:
            server.authenticate(answer)
        assert caught.value.kind == "signature"
    server = ServerHandshake(Dialect.IROH_V2, CHALLENGE)
    server.authenticate(answer)
    with pytest.raises(HandshakeError, match="answered already"):
        server.authenticate(answer)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "truncated"),
        (encode(Ping(bytes(8)), Dialect.IROH_V2), "handshake"),
        (encode(ClientAuth(b"\x02" + bytes(31), bytes(64)), Dialect.IROH_V2), "key"),
        (encode(ClientAuth(bytes(32), bytes(64)), Dialect.IROH_V2), "key"),
        (encode(ClientAuth(KEY.node_id.raw, bytes(64)), Dialect.IROH_V2), "signature"),
        (b"\x02", "direction"),
        (b"\x21", "unknown"),
    ],
)
def test_wrong_answers_have_a_reason(message: bytes, kind: str) -> None:
    """No answer, another frame, a key off the curve or of low order, and a wrong signature are told apart."""
    with pytest.raises(HandshakeError) as caught:
        ServerHandshake(Dialect.IROH_V2, CHALLENGE).authenticate(message)
    assert caught.value.kind == kind
    assert str(caught.value)


def test_the_client_hears_the_reason() -> None:
    """A refusal's words reach the client, before and after its answer."""
    server = ServerHandshake(Dialect.IROH_V2, CHALLENGE)
    with pytest.raises(RelayDeniedError, match="come back later"):
        client(Dialect.IROH_V2).receive(server.deny("come back later"))


def test_the_client_signs_once() -> None:
    """A relay can't have a client sign a second challenge, or let it in without one."""
    ours = client(Dialect.IROH_V2)
    with pytest.raises(WireError):
        ours.receive(ServerHandshake(Dialect.IROH_V2, CHALLENGE).confirm())
    answer = ours.receive(ServerHandshake(Dialect.IROH_V2, CHALLENGE).challenge())
    assert isinstance(decode_from_client(answer or b"", Dialect.IROH_V2), ClientAuth)
    with pytest.raises(WireError):
        ours.receive(ServerHandshake(Dialect.IROH_V2, bytes(16)).challenge())
