"""Hostile datagrams: nothing that arrives raises, and only authentic packets change a connection."""

from __future__ import annotations

import random

import pytest
from aioquic import tls
from aioquic.quic import events
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.quic.pair import ALPN, SERVER_KEY, Network
from tom_connect.exceptions import ProtocolError
from tom_connect.quic.engine import Engine
from tom_connect.quic.settings import TransportSettings


def connected() -> tuple[Network, Engine, Engine]:
    network = Network()
    client, server = network.connect()
    network.wait(1)
    return network, client, server


@pytest.mark.parametrize("seed", range(3))
def test_noise_changes_nothing(seed: int) -> None:
    """Random bytes and damaged packets neither raise nor end a connection nor count as authentic."""
    network, client, server = connected()
    source = random.Random(seed)
    stream_id = client.open_stream(uni=True)
    for _ in range(300):
        client.send_stream_data(stream_id, source.randbytes(200))
        for data in client.send(network.now):
            before = server.authentic_packets
            damaged = bytearray(data)
            damaged[source.randrange(len(data))] ^= 1 << source.randrange(8)
            for bad in (bytes(damaged), data[: source.randrange(len(data))], source.randbytes(source.randrange(1500))):
                server.receive(bad, network.now)
            assert server.authentic_packets == before
            server.receive(data, network.now)
            assert server.authentic_packets == before + 1
        network.pump(network.server)
        network.wait(0.05)
    assert server.termination is None and server.stats.faults == 0
    assert len(network.server.received[stream_id]) == 300 * 200


@pytest.mark.parametrize("seed", range(20))
def test_damaged_handshakes(seed: int) -> None:
    """Handshake packets that are damaged on the way neither raise nor keep the two from confirming."""
    network = Network(seed=seed)
    source = random.Random(seed)
    original = network._transmit

    def damage(end: object, data: bytes) -> None:
        if source.random() < 0.3:
            changed = bytearray(data)
            for _ in range(source.randrange(1, 4)):
                changed[source.randrange(len(data))] = source.randrange(256)
            original(end, bytes(changed))  # type: ignore[arg-type]
        original(end, data)  # type: ignore[arg-type]

    network._transmit = damage  # type: ignore[method-assign]
    client, server = network.connect()
    assert client.stats.faults == server.stats.faults == 0


def seal(sender: Engine, payload: bytes) -> bytes:
    """A packet with any payload, authentic because the sender's own keys seal it."""
    builder = QuicPacketBuilder(
        host_cid=sender.host_cid,
        is_client=sender.is_client,
        max_datagram_size=1452,
        packet_number=sender._packet_number,
        peer_cid=sender._peer_cid.cid,
        version=1,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, sender._cryptos[tls.Epoch.ONE_RTT])
    builder._buffer.push_bytes(payload + bytes(max(0, 4 - len(payload))))
    (data,), _ = builder.flush()
    sender._packet_number += 1
    return data


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
def test_any_payload_of_an_authentic_peer(payloads: list[bytes]) -> None:
    """A peer that seals any bytes whatsoever gets at worst its connection closed; nothing raises."""
    network, client, server = FUZZED.get()
    for payload in payloads:
        server.receive(seal(client, payload), network.now)
        while server.next_event() is not None:
            pass
        server.send(network.now)
    assert server.stats.faults == 0


class Fuzzed:
    """A connected pair that is replaced when fuzzing has closed it."""

    def __init__(self) -> None:
        self._pair: tuple[Network, Engine, Engine] | None = None

    def get(self) -> tuple[Network, Engine, Engine]:
        if self._pair is None or self._pair[2].terminating:
            self._pair = connected()
        return self._pair


FUZZED = Fuzzed()


def stream_frame(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    """A STREAM frame with offset and length, both in eight or two bytes."""
    return (
        bytes([0x0E | fin, 0x40 | stream_id >> 8, stream_id & 0xFF])
        + (offset | 0xC000000000000000).to_bytes(8, "big")
        + (len(data) | 0x4000).to_bytes(2, "big")
        + data
    )


@pytest.mark.parametrize(
    "payloads",
    [
        [stream_frame(2, 1 << 20, b"x")],
        [stream_frame(2, 0, b"x"), stream_frame(2, 1, bytes(10)), stream_frame(2, (1 << 20) - 5, bytes(10))],
        [stream_frame(2, 0, b"abc", fin=True), stream_frame(2, 3, b"d")],
        [stream_frame(3, 0, b"x")],
        [stream_frame(2 + 4 * 128, 0, b"x")],
        [b"\x06\x00\x40\x05hello"],
        [b"\x1e"],
        [b"\x40\x40"],
    ],
    ids=["window", "window later", "after the end", "our stream", "too many streams", "crypto", "done", "unknown"],
)
def test_violations_end_the_connection(payloads: list[bytes]) -> None:
    """Each breach of the protocol closes the connection with an error that blames the peer."""
    network, client, server = connected()
    for payload in payloads:
        server.receive(seal(client, payload), network.now)
    assert server.termination is not None
    assert isinstance(server.error(server.termination), ProtocolError)
    assert server.stats.faults == 0


def test_a_sparse_stream_is_bounded_by_the_windows() -> None:
    """One byte at the end of each window makes at most the connection's window of buffers, then an error."""
    network, client, server = connected()
    for number in range(10):
        server.receive(seal(client, stream_frame(2 + 4 * number, (1 << 20) - 1, b"x")), network.now)
    held = sum(len(stream.receiver._buffer) for stream in server._streams.values())
    assert held <= TransportSettings().max_data
    assert server.termination is not None


def test_a_fault_is_contained(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A fault in the handling of an authentic packet closes that connection and is counted, not raised."""
    network, client, server = connected()

    def fault(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server, "_payload_received", _counting(server, fault))
    server.receive(seal(client, b"\x01"), network.now)
    assert server.stats.faults == 1 and server.terminating
    assert "fault in a QUIC packet" in caplog.text


def _counting(server: Engine, fault: object) -> object:
    def payload_received(*arguments: object) -> None:
        server.authentic_packets += 1
        fault(*arguments)  # type: ignore[operator]

    return payload_received


def test_a_server_for_garbage_sends_nothing() -> None:
    """An engine made for what only looks like an Initial stays silent and without a peer."""
    server = Engine.server(
        secret_key=SERVER_KEY,
        alpns=(ALPN,),
        settings=TransportSettings(),
        original_destination_connection_id=bytes(8),
    )
    source = random.Random(1)
    for _ in range(50):
        server.receive(b"\xc3\0\0\0\1\x08" + bytes(8) + b"\x08" + bytes(8) + source.randbytes(1300), 1.0)
        assert server.send(1.0) == []
    assert server.peer_node_id is None and server.stats.faults == 0
    assert server.get_timer() is not None


def test_data_of_packets_that_come_together_is_one_event() -> None:
    """In-order data of several packets reaches the application in one piece, in order."""
    network, client, server = connected()
    server.receive(seal(client, stream_frame(2, 0, b"first ")), network.now)
    for offset, part in ((6, b"second "), (13, b"third "), (19, b"fourth")):
        server.receive(seal(client, stream_frame(2, offset, part)), network.now)
    server.receive(seal(client, stream_frame(2, 25, b"!", fin=True)), network.now)
    found = []
    while isinstance(event := server.next_event(), events.StreamDataReceived):
        found.append((event.data, event.end_stream))
    if Engine.fast_receive:
        assert found == [(b"first ", False), (b"second third fourth", False), (b"!", True)]
    assert b"".join(data for data, _ in found) == b"first second third fourth!"


@pytest.mark.parametrize("by_peer", [True, False])
def test_data_that_nobody_will_read_leaves_the_queue(by_peer: bool) -> None:
    """Data that waits in the event queue when its stream is reset or stopped is dropped and its credit given back."""
    network, client, server = connected()
    for offset in (0, 100, 200):
        server.receive(seal(client, stream_frame(2, offset, bytes(100))), network.now)
    if by_peer:
        server.receive(seal(client, b"\x04\x02\x07\x41\x2c"), network.now)  # RESET_STREAM 2, code 7, final size 300
        assert server.next_event() == events.StreamReset(7, 2)
    else:
        server.stop_stream(2, 7)
    assert server.next_event() is None
    assert server._data_consumed == server._local_max_data.used == 300
