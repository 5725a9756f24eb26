"""Handshakes of two engines: who proves what to whom, and what happens where one does not."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic import tls
from aioquic.quic import events
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.quic.pair import ALPN, CLIENT_KEY, OTHER_KEY, SERVER_KEY, Network
from tom_connect.exceptions import (
    AlpnError,
    ConnectionClosedError,
    ConnectionLostError,
    InvalidInputError,
    PeerIdentityError,
)
from tom_connect.quic.events import HandshakeConfirmed
from tom_connect.quic.settings import TransportSettings
from tom_connect.quic.tls import SPKI_PREFIX, AlertCertificateRequired, RawKeyContext, RawPublicKey


def test_both_sides_learn_the_proven_key_of_the_other() -> None:
    """After confirmation each engine names the other's key and the ALPN, and says so in one event."""
    network = Network()
    client, server = network.connect()
    assert client.peer_node_id == SERVER_KEY.node_id
    assert server.peer_node_id == CLIENT_KEY.node_id
    assert client.alpn == server.alpn == ALPN
    assert client.confirmed and server.confirmed
    assert network.client.of(HandshakeConfirmed) == [HandshakeConfirmed(SERVER_KEY.node_id, ALPN, False, False)]
    assert network.server.of(HandshakeConfirmed) == [HandshakeConfirmed(CLIENT_KEY.node_id, ALPN, False, False)]


def test_nothing_is_proven_before_the_signature() -> None:
    """A server names no peer before the client's signature has been checked."""
    network = Network()
    network.start()
    network.run(lambda: network.server.engine is not None)
    server = network.server.engine
    assert server is not None
    assert server.peer_node_id is None and not server.confirmed


@pytest.mark.parametrize("seed", range(8))
def test_a_bad_network_only_delays_the_handshake(seed: int) -> None:
    """With a fifth of the packets lost, doubled and reordered, both sides still confirm."""
    network = Network(seed=seed)
    network.links(loss=0.2, duplicate=0.2, reorder=0.3)
    network.connect()


def test_another_key_at_the_dialed_address() -> None:
    """The client refuses a server with a sound key that is not the one it dialed, and names both keys."""
    network = Network(dial=OTHER_KEY)
    network.start()
    network.run(lambda: network.client.engine.termination is not None)
    error = network.error(network.client)
    assert isinstance(error, PeerIdentityError)
    assert str(OTHER_KEY.node_id) in str(error) and str(SERVER_KEY.node_id) in str(error)
    assert network.client.engine is not None and network.client.engine.peer_node_id is None
    network.run(lambda: network.server.engine is not None and network.server.engine.termination is not None)
    assert isinstance(network.error(network.server), PeerIdentityError)
    assert not network.server.of(HandshakeConfirmed)


def _answer_certificate_request_with_nothing(context: tls.Context, name: str, value: Any) -> None:
    object.__setattr__(context, name, value)
    if name == "_certificate_request" and value is not None:
        context.certificate = None


def test_a_client_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers the request for its key with an empty Certificate gets alert 116."""

    class Anonymous(RawKeyContext):
        __setattr__ = _answer_certificate_request_with_nothing

    network = Network()
    monkeypatch.setattr("tom_connect.quic.identity.RawKeyContext", Anonymous)
    client = network.client.engine
    assert client is not None
    client.start(network.now)
    monkeypatch.undo()
    network.pump(network.client)
    network.run(lambda: network.server.engine is not None and network.server.engine.termination is not None)
    server = network.server.engine
    assert server is not None and server.termination is not None
    assert server.termination.error_code == 0x100 + 116
    assert server.peer_node_id is None and not network.server.of(HandshakeConfirmed)
    network.run(lambda: client.termination is not None)
    assert isinstance(network.error(network.client), PeerIdentityError)


def test_a_client_that_signs_with_another_key_is_refused() -> None:
    """A certificate is no proof: a signature by another key ends the handshake on the server."""
    network = Network()
    client = network.client.engine
    assert client is not None
    client.start(network.now)
    client.tls.certificate_private_key = OTHER_KEY.private_key
    network.pump(network.client)
    network.run(lambda: network.server.engine is not None and network.server.engine.termination is not None)
    assert network.server.engine is not None
    assert isinstance(network.error(network.server), PeerIdentityError)
    assert network.server.engine.peer_node_id is None


def test_no_common_alpn() -> None:
    """Both sides get an AlpnError when they share no application protocol."""
    network = Network(server_alpns=("other/1",))
    network.start()
    network.run(lambda: network.client.engine.termination is not None)
    assert isinstance(network.error(network.client), AlpnError)
    assert isinstance(network.error(network.server), AlpnError)


def test_a_peer_with_x509_certificates_is_refused() -> None:
    """A client that does not offer raw public keys is refused by the server."""
    network = Network()
    client = network.client.engine
    assert client is not None
    original = RawKeyContext.offer
    RawKeyContext.offer = lambda self: []  # type: ignore[method-assign]
    try:
        client.start(network.now)
    finally:
        RawKeyContext.offer = original  # type: ignore[method-assign]
    network.pump(network.client)
    network.run(lambda: network.server.engine is not None and network.server.engine.termination is not None)
    assert isinstance(network.error(network.server), PeerIdentityError)


def test_the_wire_bytes_of_the_certificate_types() -> None:
    """The ClientHello carries extensions 19 and 20 with body 01 02, and the server answers 02 to both."""
    network = Network()
    client, server = network.connect()
    assert (19, b"\x01\x02") in client.tls.handshake_extensions and (20, b"\x01\x02") in client.tls.handshake_extensions
    assert server.tls.received_extensions is not None and client.tls.received_extensions is not None
    assert (19, b"\x01\x02") in server.tls.received_extensions and (20, b"\x01\x02") in server.tls.received_extensions
    assert (19, b"\x02") in client.tls.received_extensions and (20, b"\x02") in client.tls.received_extensions


def test_the_certificate_is_the_bare_key() -> None:
    """The certificate is the 44-byte SubjectPublicKeyInfo, and only a sound one is read."""
    data = RawPublicKey(CLIENT_KEY.node_id).public_bytes()
    assert data == bytes.fromhex("302a300506032b6570032100") + CLIENT_KEY.node_id.raw
    assert RawPublicKey.parse(data).node_id == CLIENT_KEY.node_id
    for bad in (b"", data[:-1], data + b"\0", b"\x31" + data[1:], SPKI_PREFIX + bytes(32)):
        with pytest.raises((tls.AlertUnsupportedCertificate, tls.AlertBadCertificate)):
            RawPublicKey.parse(bad)


@given(st.binary(max_size=60) | st.binary(min_size=32, max_size=32).map(lambda key: SPKI_PREFIX + key))
def test_any_bytes_are_a_certificate_or_an_alert(data: bytes) -> None:
    """What a peer sends for a certificate is read, and written the same, or ends in one of two TLS alerts."""
    try:
        key = RawPublicKey.parse(data)
    except (tls.AlertUnsupportedCertificate, tls.AlertBadCertificate):
        return
    assert key.public_bytes() == data


def test_alert_116_is_certificate_required() -> None:
    """The alert for a missing client key is 116, as RFC 8446 section 6.2 numbers it."""
    assert AlertCertificateRequired.description == 116


def test_silence_is_a_lost_connection() -> None:
    """A dial into nowhere ends after the idle time-out with a ConnectionLostError."""
    network = Network(settings=TransportSettings(idle_timeout=5))
    network.links(down=True)
    network.start()
    network.run(lambda: network.client.ended)
    assert isinstance(network.error(network.client), ConnectionLostError)


def test_close_with_a_code_and_a_reason() -> None:
    """The application's code and reason reach the peer, and each side knows who closed."""
    network = Network()
    client, server = network.connect()
    client.close(7, reason_phrase="ü" * 400)
    network.pump(network.client)
    network.run(lambda: network.server.ended and network.client.ended)
    error = network.error(network.server)
    assert isinstance(error, ConnectionClosedError)
    assert (error.code, error.by_peer, error.is_application) == (7, True, True)
    assert set(error.reason) == {"ü"} and len(error.reason.encode()) <= 256
    local = network.error(network.client)
    assert isinstance(local, ConnectionClosedError) and not local.by_peer
    assert server.closed_by_peer and not client.closed_by_peer


@pytest.mark.parametrize("alpn", ["", "x" * 256, "naïve"])
def test_bad_alpns(alpn: str) -> None:
    """An ALPN that TLS can't carry is refused at once."""
    with pytest.raises(InvalidInputError):
        Network(alpns=(alpn,))


def test_no_connection_id_begins_with_a_digit() -> None:
    """Neither first ids nor those issued later begin with an ASCII digit, over many connections."""
    for seed in range(40):
        network = Network(seed=seed)
        client, server = network.connect()
        network.wait(0.1)
        for engine in (client, server):
            cids = engine.host_cids()
            assert len(cids) > 1 and len(set(cids)) == len(cids)
            assert not any(cid[:1].isdigit() for cid in cids)
        issued = [
            event.connection_id
            for end in (network.client, network.server)
            for event in end.of(events.ConnectionIdIssued)
        ]
        assert issued and not any(cid[:1].isdigit() for cid in issued)


def test_ids_are_replaced_by_ones_that_keep_the_rule() -> None:
    """Ids that replace retired ones keep the rule too."""
    network = Network()
    client, server = network.connect()
    network.wait(0.1)
    for _ in range(60):
        client.change_connection_id()
        network.pump(network.client)
        network.wait(0.1)
    issued = [event.connection_id for event in network.server.of(events.ConnectionIdIssued)]
    assert len(issued) > 30 and not any(cid[:1].isdigit() for cid in issued)
    assert client.peer_node_id == SERVER_KEY.node_id and not network.server.ended
    assert server.confirmed


def test_handshake_buffers_are_freed() -> None:
    """After confirmation the three crypto buffers of 16 KiB are gone on both sides."""
    network = Network()
    for engine in network.connect():
        assert not engine._crypto_buffers


def test_authentic_packets_counts_no_forgery_and_no_replay() -> None:
    """The counter moves for a packet that decrypts, and neither for noise nor for the same packet again."""
    network = Network()
    client, server = network.connect()
    network.wait(1)
    client.send_ping(1)
    (data,) = client.send(network.now)
    before = server.authentic_packets
    server.receive(data[:-1] + bytes([data[-1] ^ 1]), network.now)
    assert server.authentic_packets == before
    server.receive(data, network.now)
    assert server.authentic_packets == before + 1
    server.receive(data, network.now)
    assert server.authentic_packets == before + 1


def test_keep_alive_holds_an_idle_connection() -> None:
    """With keep-alive an idle connection outlives ten idle time-outs and the application sees no event of it."""
    network = Network(settings=TransportSettings(idle_timeout=10, keep_alive=4))
    network.connect()
    network.wait(1)
    seen = len(network.client.log)
    network.wait(100)
    assert not network.client.ended and not network.server.ended
    assert len(network.client.log) == seen


def test_a_keep_alive_is_told_from_traffic() -> None:
    """The first ping of a silent connection is named a keep-alive; what is sent again for want of an answer is not."""
    network = Network(settings=TransportSettings(idle_timeout=60, keep_alive=20))
    client, _server = network.connect()
    network.wait(10)
    network.links(down=True)
    named: list[bool] = []
    while len(named) < 2:
        assert network.step(network.now + 60)
        if client.awaits_answer and named[-1:] != [client.keeps_alive]:
            named.append(client.keeps_alive)
    assert named == [True, False]


def test_what_an_application_sends_is_no_keep_alive() -> None:
    """A stream's data that goes while a keep-alive is under way counts as traffic."""
    network = Network(settings=TransportSettings(idle_timeout=60, keep_alive=20))
    client, _server = network.connect()
    network.wait(10)
    network.links(down=True)
    while not client.keeps_alive:
        assert network.step(network.now + 60)
    client.send_stream_data(client.get_next_available_stream_id(), bytes(100))
    network.pump(network.client)
    assert client.awaits_answer and not client.keeps_alive


def test_without_keep_alive_an_idle_connection_ends() -> None:
    """The control for the test above: it is the keep-alive that holds the connection."""
    network = Network(settings=TransportSettings(idle_timeout=10))
    network.connect()
    network.wait(100)
    assert network.client.ended and network.server.ended


def test_a_strangers_fault_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A peer with another key is an error for the application and nothing louder than debug in the log."""
    caplog.set_level("DEBUG")
    network = Network(dial=OTHER_KEY)
    network.start()
    network.run(lambda: network.client.engine.termination is not None)
    records = [record for record in caplog.records if "answered" in record.getMessage()]
    assert records and all(record.levelname == "DEBUG" for record in records)
    assert all(record.name == "tom_connect.quic" for record in records)
