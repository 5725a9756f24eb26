"""Packets that belong to no connection: parsing, Version Negotiation, refusal and Retry."""

from __future__ import annotations

import attrs
import pytest
from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.quic.pair import ALPN, CLIENT_KEY, SERVER_KEY, Network
from tom_connect.exceptions import ConnectionRefusedError as RefusedError
from tom_connect.quic.engine import Engine
from tom_connect.quic.initial import (
    RetryTokens,
    destination_cid,
    new_cid,
    parse_first_packet,
    refusal,
    safe_cid,
    version_negotiation,
)
from tom_connect.quic.settings import TransportSettings

PATH = ("192.0.2.1", 4433)


def first_datagram(token: bytes = b"") -> tuple[Engine, bytes]:
    client = Engine.client(
        secret_key=CLIENT_KEY, peer=SERVER_KEY.node_id, alpns=(ALPN,), settings=TransportSettings(), token=token
    )
    client.start(0.0)
    return client, client.send(0.0)[0]


def test_a_first_packet_is_read() -> None:
    """The header of a client's first packet gives ids, token and version."""
    client, data = first_datagram(b"token")
    first = parse_first_packet(data)
    assert first is not None
    assert first.is_initial and first.supported and first.version == 1 and first.token == b"token"
    assert first.scid == client.host_cids()[0] and first.dcid == client.original_destination_connection_id
    assert destination_cid(data) == first.dcid
    assert first.datagram_size == len(data) >= 1200


def test_a_small_datagram_begins_no_connection() -> None:
    """An Initial in a datagram under 1200 bytes is not taken (RFC 9000 section 14.1)."""
    _, data = first_datagram()
    header = pull_quic_header(Buffer(data=data), host_cid_length=8)
    short = parse_first_packet(data[: header.packet_length])
    assert short is None or not short.is_initial or header.packet_length >= 1200


def test_version_negotiation_offers_version_1() -> None:
    """A packet of an unknown version is answered with ours, ids swapped, in fewer bytes than it had."""
    _, data = first_datagram()
    unknown = data[:1] + b"\xfa\xce\xb0\x0c" + data[5:]
    first = parse_first_packet(unknown)
    assert first is not None and not first.supported and not first.is_initial
    answer = version_negotiation(first)
    assert len(answer) < len(data)
    header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert 1 in header.supported_versions
    assert (header.destination_cid, header.source_cid) == (first.scid, first.dcid)


def test_version_negotiation_is_never_answered() -> None:
    """Neither Version Negotiation nor a short header nor a small packet is answered: no loops, no echoes."""
    _, data = first_datagram()
    first = parse_first_packet(data[:1] + b"\xfa\xce\xb0\x0c" + data[5:])
    assert first is not None
    assert parse_first_packet(version_negotiation(first)) is None
    assert parse_first_packet(version_negotiation(first) + bytes(1200)) is None
    assert parse_first_packet((data[:1] + b"\xfa\xce\xb0\x0c" + data[5:])[:1199]) is None
    assert parse_first_packet(b"\x40" + bytes(1300)) is None


def test_ids_of_other_versions_may_be_long() -> None:
    """Connection ids of up to 255 bytes are returned whole (RFC 8999 section 6)."""
    data = b"\xc0\xfa\xce\xb0\x0c\xff" + bytes(255) + b"\xfe" + bytes([1]) * 254 + bytes(1200)
    first = parse_first_packet(data)
    assert first is not None and len(first.dcid) == 255 and len(first.scid) == 254
    assert version_negotiation(first).endswith(b"\x00\x00\x00\x01")


def test_a_refusal_reaches_the_client() -> None:
    """A client that is refused before there is any state hears it at once."""
    client, data = first_datagram()
    first = parse_first_packet(data)
    assert first is not None
    answer = refusal(first)
    assert answer is not None and len(answer) < len(data)
    client.receive(answer, 0.1)
    assert client.termination is not None
    assert isinstance(client.error(client.termination), RefusedError)


def test_a_retry_proves_the_path() -> None:
    """After a Retry the client comes with the token, the server is made from it, and they shake hands."""
    tokens = RetryTokens()
    network = Network()
    client = network.client.engine
    assert client is not None
    client.start(network.now)
    (data, *_) = client.send(network.now)
    first = parse_first_packet(data)
    assert first is not None and tokens.validate(PATH, first, network.now) is None
    retry = tokens.retry_packet(PATH, first, network.now)
    assert len(retry) < len(data)
    client.receive(retry, network.now)
    (data, *_) = client.send(network.now)
    second = parse_first_packet(data)
    assert second is not None and second.token
    original = tokens.validate(PATH, second, network.now)
    assert original == first.dcid
    network.server.engine = Engine.server(
        secret_key=SERVER_KEY,
        alpns=(ALPN,),
        settings=TransportSettings(),
        original_destination_connection_id=original,
        retry_source_connection_id=second.dcid,
    )
    network.deliver(network.server, data)
    network.run(lambda: network.confirmed)


def test_a_token_is_bound_to_its_path_and_ages() -> None:
    """A token of another path, of another connection id, of another server, changed or old is not valid."""
    tokens = RetryTokens()
    client, data = first_datagram()
    first = parse_first_packet(data)
    assert first is not None
    client.receive(tokens.retry_packet(("relay https://r.example/", 0), first, 0.0), 0.0)
    second = parse_first_packet(client.send(0.0)[0])
    assert second is not None
    path = ("relay https://r.example/", 0)
    assert tokens.validate(path, second, 29.0) == first.dcid
    assert tokens.validate(path, second, 31.0) is None
    assert tokens.validate(("relay https://r.example/", 1), second, 1.0) is None
    assert RetryTokens().validate(path, second, 1.0) is None
    other = parse_first_packet(first_datagram(second.token)[1])
    assert other is not None and tokens.validate(path, other, 1.0) is None
    for at in range(0, len(second.token), 7):
        bad = second.token[:at] + bytes([second.token[at] ^ 1]) + second.token[at + 1 :]
        changed = parse_first_packet(first_datagram(bad)[1])
        assert changed is not None and tokens.validate(path, changed, 1.0) is None


@given(st.binary(max_size=200))
def test_no_token_raises(token: bytes) -> None:
    """Bytes that we never gave out are no valid token, and raise nothing."""
    first = parse_first_packet(SAMPLE)
    assert first is not None
    assert RetryTokens().validate(PATH, attrs.evolve(first, token=token), 1.0) is None


@given(st.binary(max_size=1500))
def test_no_bytes_raise(data: bytes) -> None:
    """Whatever arrives, parsing gives a packet or None, and answers can be made of any packet."""
    destination_cid(data)
    first = parse_first_packet(data)
    if first is not None:
        version_negotiation(first)
        refusal(first)


@given(st.integers(0, 1200), st.integers(0, 255))
def test_no_changed_byte_raises(at: int, value: int) -> None:
    """A valid first packet with any byte changed, or cut at any place, does not raise either."""
    data = SAMPLE[:at] + bytes([value]) + SAMPLE[at + 1 :]
    for bad in (data, data[:at]):
        first = parse_first_packet(bad)
        destination_cid(bad)
        if first is not None:
            version_negotiation(first)
            refusal(first)
            if first.is_initial:
                RetryTokens().retry_packet(PATH, first, 0.0)


SAMPLE = first_datagram()[1]


def test_safe_ids() -> None:
    """An id keeps all but a first byte that is a digit."""
    for byte in range(256):
        cid = safe_cid(bytes([byte]) + b"1234567")
        assert not cid[:1].isdigit() and cid[1:] == b"1234567"
        assert cid[0] == byte or bytes([byte]).isdigit()
    assert safe_cid(b"") == b"" and len(new_cid()) == 8


@pytest.mark.parametrize("data", [b"", b"\x40", b"\x40" + bytes(7), b"\xc0\0\0\0\1", b"\xc0\0\0\0\1\x15" + bytes(40)])
def test_no_id_in_what_is_too_short(data: bytes) -> None:
    """Where there is no whole connection id there is none."""
    assert destination_cid(data) is None
