"""The address discovery extension: its bytes, what it tells when, and what it refuses."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic.connection import QuicConnection, QuicConnectionError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.netreport.quicpair import ELSEWHERE, SERVER, US, Pair
from tom_connect.addr import SocketAddr
from tom_connect.netreport import observed
from tom_connect.netreport.observed import (
    CLOSE_CODE,
    CLOSE_REASON,
    OBSERVED_IPV4,
    OBSERVED_IPV6,
    AddressDiscoveryUnavailableError,
    ObservedAddress,
    Role,
    decode_role,
    encode_role,
    missing_names,
)

addrs = st.builds(
    lambda ip, port: SocketAddr(str(ip), port),
    st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None),
    st.integers(0, 65535),
)


def test_bytes_of_the_role() -> None:
    """The transport parameter 0x9f81a176 has the bytes of iroh's: an id of eight bytes, length 1, the role."""
    assert encode_role(Role.SENDS).hex() == "c00000009f81a1760100"
    assert encode_role(Role.WANTS).hex() == "c00000009f81a1760101"
    assert encode_role(Role.BOTH).hex() == "c00000009f81a1760102"


def test_bytes_of_the_frames() -> None:
    """Frames 0x9f81a6 and 0x9f81a7 carry sequence, address and port as the design's wire formats have them."""
    kind, data = ObservedAddress(5, SocketAddr("192.0.2.1", 0x1234)).encode()
    assert (kind, data.hex()) == (OBSERVED_IPV4, "05c00002011234")
    kind, data = ObservedAddress(300, SocketAddr("2001:db8::1", 7842)).encode()
    assert (kind, data.hex()) == (OBSERVED_IPV6, "412c" + "20010db8000000000000000000000001" + "1ea2")


@given(st.integers(0, (1 << 62) - 1), addrs)
def test_frames_round_trip(sequence: int, addr: SocketAddr) -> None:
    """What is encoded is read as the same, and no prefix of it is read at all."""
    report = ObservedAddress(sequence, addr)
    kind, data = report.encode()
    buf = Buffer(data=data)
    assert ObservedAddress.pull(kind, buf) == report
    assert buf.eof()
    for size in range(len(data)):
        with pytest.raises(BufferReadError):
            ObservedAddress.pull(kind, Buffer(data=data[:size]))


def test_mapped_addresses_are_ipv4() -> None:
    """An IPv4 address in an IPv6 frame is the IPv4 address that it stands for."""
    data = b"\0" + bytes(10) + b"\xff\xff\xc0\x00\x02\x01\x00\x07"
    assert ObservedAddress.pull(OBSERVED_IPV6, Buffer(data=data)).addr == SocketAddr("192.0.2.1", 7)


@pytest.mark.parametrize("role", Role)
def test_roles_round_trip_among_others(role: Role) -> None:
    """The role is found before and behind other transport parameters; every prefix of it is malformed."""
    parameter = encode_role(role)
    for before in (b"", b"\x01\x02\x40\x40"):
        for behind in (b"", b"\x0f\x00", b"\x40\x33\x03abc"):
            assert decode_role(before + parameter + behind) is role
    for size in range(1, len(parameter)):
        with pytest.raises(ValueError, match=r"parameter|valid Role"):
            decode_role(parameter[:size])
    assert decode_role(b"") is None


@pytest.mark.parametrize("value", ["0103", "0140", "00", "020000", "084000000000000000", "02c000"])
def test_wrong_roles_are_malformed(value: str) -> None:
    """A role out of range, of the wrong length or told twice is malformed."""
    parameter = bytes.fromhex("c00000009f81a176" + value)
    with pytest.raises(ValueError, match=r"parameter|valid Role"):
        decode_role(parameter)
    with pytest.raises(ValueError, match="twice"):
        decode_role(encode_role(Role.BOTH) * 2)


@given(st.binary(max_size=64))
def test_noise_for_parameters(data: bytes) -> None:
    """Random transport parameters raise ValueError or have no role or a valid one."""
    with contextlib.suppress(ValueError):
        assert decode_role(data) in (None, *Role)


def test_this_aioquic_has_every_name() -> None:
    """The installed aioquic has what the extension stands on."""
    assert missing_names() == []


def test_a_moved_name_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aioquic that lacks a name is refused with the name and the version to install."""
    monkeypatch.delattr(QuicConnection, "_write_connection_limits")
    with pytest.raises(AddressDiscoveryUnavailableError, match=r"1\.8.*_write_connection_limits"):
        observed.require()


def test_a_client_learns_its_address() -> None:
    """One report with the address that the server sees, the round-trip time, and a close with code 1, finished."""
    pair = Pair()
    pair.client.start(0.0)
    assert pair.run(lambda: pair.client.done)
    report = pair.client.next_report()
    assert report is not None and report.addr == US and report.server == SERVER
    assert report.rtt == pytest.approx(0.02, abs=0.005)
    assert pair.client.error is None and pair.client.next_report() is None
    server = pair.server
    assert server is not None
    assert pair.run(lambda: server.over)
    assert server.termination is not None
    assert (server.termination.error_code, server.termination.reason_phrase) == (CLOSE_CODE, CLOSE_REASON)
    assert server.termination.frame_type is None
    assert server.reports_sent == 1


def test_a_change_of_address_is_told() -> None:
    """When our address changes, to the other family too, the server tells the new one with the next sequence."""
    pair = Pair(watch=True)
    pair.client.start(0.0)
    told = []
    for addr in (US, ELSEWHERE, SocketAddr("198.51.100.1", 40001), US):
        pair.us = addr
        assert pair.run(lambda: bool(pair.client._reports), 60)
        report = pair.client.next_report()
        assert report is not None
        told.append(report.addr)
    assert told == [US, ELSEWHERE, SocketAddr("198.51.100.1", 40001), US]
    assert pair.server is not None and pair.server.reports_sent == 4


def test_a_watching_client_stays() -> None:
    """A client that watches pings within the idle time-out, and the server does not repeat what it told."""
    pair = Pair(watch=True)
    pair.client.start(0.0)
    assert not pair.run(lambda: pair.client.done, 300)
    assert pair.now == 300
    assert pair.server is not None and pair.server.reports_sent == 1 and not pair.server.over
    pair.client.close()
    assert pair.run(lambda: pair.client.done)
    assert pair.client.error is None


@pytest.mark.parametrize("seed", range(12))
def test_a_bad_network_delays_and_no_more(seed: int) -> None:
    """With a quarter of the datagrams lost each way the address is still told."""
    rng = random.Random(seed)
    pair = Pair(lose=lambda *_: rng.random() < 0.25, timeout=60.0)
    pair.client.start(0.0)
    assert pair.run(lambda: pair.client.done, 120)
    report = pair.client.next_report()
    assert report is not None and report.addr == US


def test_a_lost_report_is_told_afresh() -> None:
    """A report that got lost is told again with the next sequence number, as an observation of that moment."""
    pair = Pair(watch=True)

    def lose(from_client: bool, _number: int) -> bool:
        server = pair.server
        return not from_client and server is not None and server.reports_sent == 1

    pair.lose = lose
    pair.client.start(0.0)
    assert pair.run(lambda: bool(pair.client._reports), 60)
    assert pair.server is not None and pair.server.reports_sent == 2
    assert pair.client._quic._newest == 1


def test_the_same_address_is_reported_once() -> None:
    """A report that is repeated because its acknowledgement got lost is no news for who watches."""
    pair = Pair(watch=True)
    pair.client.start(0.0)
    assert pair.run(lambda: bool(pair.client._reports))
    pair.client.next_report()
    pair.lose = lambda from_client, _: from_client
    assert not pair.run(lambda: bool(pair.client._reports), 5)
    assert pair.server is not None and pair.server.reports_sent > 1


def test_silence_ends_in_time() -> None:
    """A relay that does not answer costs the time given, and few packets."""
    pair = Pair(lose=lambda *_: True, timeout=5.0)
    pair.client.start(0.0)
    assert pair.run(lambda: pair.client.done)
    assert pair.now == pytest.approx(5.0)
    assert pair.client.error is not None and "within 5 s" in str(pair.client.error)
    assert pair.sent < 20


def test_a_server_that_does_not_tell_is_left() -> None:
    """A server whose role is not to send is left as soon as the handshake shows it."""
    pair = Pair(role=Role.WANTS)
    pair.client.start(0.0)
    assert pair.run(lambda: pair.client.done, 1)
    assert pair.client.error is not None and "tells no addresses" in str(pair.client.error)


@pytest.mark.parametrize(
    ("pair", "code"),
    [
        (lambda: Pair(alpn="something/else"), 0x100 + 120),
        (lambda: Pair(cadata=None), 0x100 + 42),
        (lambda: Pair(server_name="other.example"), 0x100 + 42),
    ],
    ids=["ALPN", "authority", "name"],
)
def test_the_wrong_server_is_refused(pair: Any, code: int) -> None:
    """A server of another protocol, with an unknown certificate or another name tells us nothing."""
    pair = pair()
    pair.client.start(0.0)
    assert pair.run(lambda: pair.client.done or pair.client.error is not None, 5)
    assert pair.client.error is not None and pair.client.error.code == code
    assert pair.client.next_report() is None


def test_strangers_change_nothing() -> None:
    """Datagrams from elsewhere and noise from the server's address don't disturb the client."""
    pair = Pair()
    pair.client.start(0.0)
    rng = random.Random(1)
    for size in range(0, 1400, 50):
        pair.client.receive(rng.randbytes(size), SERVER, 0.0)
        pair.client.receive(rng.randbytes(size), ELSEWHERE, 0.0)
    assert pair.run(lambda: pair.client.done)
    assert pair.client.next_report() is not None


def connected(**arguments: Any) -> tuple[Pair, Any]:
    """A pair with a confirmed handshake, whose client watches."""
    pair = Pair(watch=True, **arguments)
    pair.client.start(0.0)
    assert pair.run(lambda: bool(pair.client._reports))
    return pair, pair.server


def test_a_report_that_nobody_asked_for_ends_the_connection() -> None:
    """A client that tells a server its address, though its role is not to, breaks the protocol (code 10)."""
    pair, server = connected()
    client: Any = pair.client._quic
    client.role, client.peer_role = Role.BOTH, Role.BOTH
    client.send_ping(1)
    assert pair.run(lambda: server.termination is not None, 5)
    assert server.termination.error_code == 0x0A


def test_old_reports_are_ignored() -> None:
    """A report with a sequence number that is not above the newest changes nothing."""
    pair, server = connected()
    pair.client.next_report()
    server.reports_sent, server._reported = 0, None
    server.send_ping(1)
    assert not pair.run(lambda: bool(pair.client._reports), 1)
    assert server.reports_sent == 1


@pytest.mark.parametrize("addr", ["0.0.0.0:5", "224.0.0.1:5", "198.51.100.1:0", "[::]:5", "[ff02::1]:5"])
def test_addresses_that_can_be_nobodys_are_ignored(addr: str) -> None:
    """A relay that tells an unspecified or multicast address, or port 0, tells nothing."""
    pair, _ = connected()
    pair.client.next_report()
    pair.client._quic._events.append(ObservedAddress(9, SocketAddr.parse(addr)))
    pair.client.send(pair.now)
    assert pair.client.next_report() is None


def test_reports_are_bounded() -> None:
    """A relay that reports without end fills no memory: the newest 16 are kept."""
    pair, _ = connected()
    for number in range(1, 1000):
        pair.client._quic._events.append(ObservedAddress(number, SocketAddr("192.0.2.1", number)))
    pair.client.send(pair.now)
    assert len(pair.client._reports) == 16
    assert pair.client._reports[-1].addr.port == 999


def test_neither_side_gets_a_stream() -> None:
    """A stream is a violation of the limit that was announced (code 4)."""
    pair, server = connected()
    client: Any = pair.client._quic
    client._remote_max_streams_bidi, client._remote_max_data = 10, 1000
    client._remote_max_stream_data_bidi_remote = 1000
    client.send_stream_data(0, b"hello")
    assert pair.run(lambda: server.termination is not None, 5)
    assert server.termination.error_code == 0x04


def test_there_is_one_connection_id_and_it_begins_with_no_digit() -> None:
    """Each side has one id for good, so that who routes packets has one entry, and none looks like KRPC."""
    for _ in range(200):
        assert Pair().client.connection_ids[0][0] not in b"0123456789"
    pair, server = connected()
    assert len(server._host_cids) == 1
    assert len(pair.client._quic._host_cids) == 1


@pytest.mark.parametrize(("offset", "size"), [(32_769, 0), (32_000, 1000), (1 << 61, 1)])
def test_handshakes_are_bounded(offset: int, size: int) -> None:
    """TLS messages beyond 32 KiB are refused with code 13 before anything is kept of them."""
    _, server = connected()
    buf = Buffer(capacity=2000)
    buf.push_uint_var(offset)
    buf.push_uint_var(size)
    buf.push_bytes(bytes(size))
    buf.seek(0)
    with pytest.raises(QuicConnectionError) as caught:
        server._handle_crypto_frame(None, 6, buf)
    assert caught.value.error_code == 13
