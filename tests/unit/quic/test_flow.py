"""Flow control follows the reader: bounded memory, no lost credit, no stuck stream."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest
from aioquic import tls
from aioquic.quic import events

from tests.unit.quic.pair import Network
from tom_connect.exceptions import DatagramTooLargeError
from tom_connect.quic.engine import Engine
from tom_connect.quic.settings import MIB, TransportSettings

pytestmark = pytest.mark.costly

SMALL = TransportSettings(
    max_data=128 * 1024, max_data_limit=128 * 1024, max_stream_data=64 * 1024, max_stream_data_limit=64 * 1024
)


def feed(network: Network, stream_id: int, total: int, backlog: int) -> Callable[[], None]:
    """Keep at most `backlog` of `total` random bytes queued on the client's stream; call the result often."""
    client = network.client.engine
    assert client is not None
    source = random.Random(total)
    left = total
    network.sent_digest = hashlib.sha256()  # type: ignore[attr-defined]

    def top_up() -> None:
        nonlocal left
        while left and client.send_backlog(stream_id) < backlog:
            chunk = source.randbytes(min(left, 64 * 1024))
            left -= len(chunk)
            network.sent_digest.update(chunk)  # type: ignore[attr-defined]
            client.send_stream_data(stream_id, chunk, end_stream=not left)
        network.pump(network.client)

    return top_up


def transfer(network: Network, total: int, backlog: int = 256 * 1024) -> int:
    """Send from client to server to the end; the stream."""
    client = network.client.engine
    assert client is not None
    stream_id = client.open_stream(uni=True)
    top_up = feed(network, stream_id, total, backlog)

    def done() -> bool:
        top_up()
        return stream_id in network.server.finished

    network.run(done, 600.0)
    received = network.server.received[stream_id]
    assert len(received) == total
    assert hashlib.sha256(received).digest() == network.sent_digest.digest()  # type: ignore[attr-defined]
    return stream_id


def test_a_slow_reader_stops_a_fast_sender() -> None:
    """While the application reads nothing the sender is held at the window; reading lets exactly that much more in."""
    network = Network(settings=SMALL)
    client, server = network.connect()
    network.server.reads = False
    stream_id = client.open_stream(uni=True)
    client.send_stream_data(stream_id, bytes(4 * MIB))
    network.pump(network.client)
    network.wait(30)
    assert len(network.server.received[stream_id]) == SMALL.max_stream_data
    assert network.server.peak_unread <= SMALL.max_stream_data
    server.consumed(stream_id, 32 * 1024)
    assert server.limits_due
    network.pump(network.server)
    network.wait(30)
    assert len(network.server.received[stream_id]) == SMALL.max_stream_data + 32 * 1024


def test_many_streams_share_the_connection_window() -> None:
    """Unread bytes of all streams together stay within the connection's window."""
    network = Network(settings=SMALL)
    client, _ = network.connect()
    network.server.reads = False
    for _ in range(10):
        client.send_stream_data(client.open_stream(uni=True), bytes(64 * 1024))
    network.pump(network.client)
    network.wait(30)
    assert network.server.peak_unread == SMALL.max_data


@pytest.mark.parametrize("seed", range(4))
def test_all_arrives_over_a_bad_network(seed: int) -> None:
    """A megabyte crosses a network that loses, doubles and reorders, and is the same at the other end."""
    network = Network(seed=seed, settings=SMALL)
    network.connect()
    network.links(loss=0.03, duplicate=0.02, reorder=0.05)
    transfer(network, MIB)


def test_windows_grow_for_a_fast_reader_only() -> None:
    """Where the application keeps up over a long path the windows grow, so that a round trip carries more."""
    network = Network()
    network.links(delay=0.1)
    _, server = network.connect()
    start = network.now
    transfer(network, 40 * MIB, 16 * MIB)
    assert server._data_window.size > TransportSettings().max_data
    assert 40 * MIB / (network.now - start) > 2 * TransportSettings().max_stream_data / 0.2


def test_a_reset_gives_the_credit_back() -> None:
    """Data that is never read because its stream was reset does not use up the connection's window."""
    network = Network(settings=SMALL)
    client, server = network.connect()
    network.server.reads = False
    for _ in range(12):
        stream_id = client.open_stream(uni=True)
        client.send_stream_data(stream_id, bytes(50_000))
        network.pump(network.client)
        network.wait(2)
        client.reset_stream(stream_id, 5)
        network.pump(network.client)
        network.wait(2)
        server.consumed(stream_id, 50_000)  # the application drops what it held; it counts once
    resets = network.server.of(events.StreamReset)
    assert len(resets) == 12
    assert server._data_consumed == server._local_max_data.used == 12 * 50_000


def test_a_stopped_stream_gives_the_credit_back() -> None:
    """After `stop_stream` what still arrives is dropped and returned, and the stream ends."""
    network = Network(settings=SMALL)
    client, server = network.connect()
    network.server.reads = False
    for _ in range(8):
        stream_id = client.open_stream(uni=True)
        client.send_stream_data(stream_id, bytes(50_000))
        network.pump(network.client)
        network.run(lambda stream_id=stream_id: len(network.server.received.get(stream_id, b"")) > 3000)
        server.stop_stream(stream_id, 9)
        network.pump(network.server)
        network.wait(2)
    assert [event.error_code for event in network.client.of(events.StopSendingReceived)] == [9] * 8
    assert server._data_consumed == server._local_max_data.used
    assert not server._stopped and not server._reading


def test_finished_streams_leave_nothing_behind() -> None:
    """A thousand short streams, read to their end, leave no entry in any table."""
    network = Network()
    client, server = network.connect()
    for _ in range(1000):
        while not client.can_open(True):
            network.wait(0.05)
        stream_id = client.open_stream(uni=True)
        client.send_stream_data(stream_id, b"hello", end_stream=True)
        network.pump(network.client)
        server.stream_accepted(stream_id)
        network.wait(0.02)
    network.wait(5)
    assert len(network.server.finished) == 1000
    for engine in (client, server):
        assert not engine._reading and not engine._streams and not engine._limits_due and not engine._stopped
    assert server._data_consumed == 5000


def test_streams_that_are_not_accepted_use_up_the_limit() -> None:
    """A peer that opens and closes streams faster than the application takes them is stopped at the limit."""
    network = Network(settings=TransportSettings(max_streams_uni=16))
    client, server = network.connect()
    for _ in range(200):
        if client.can_open(True):
            client.send_stream_data(client.open_stream(uni=True), b"x", end_stream=True)
        network.pump(network.client)
        network.wait(0.1)
    assert len(network.server.finished) == 16
    for stream_id in sorted(network.server.finished):
        server.stream_accepted(stream_id)
    network.pump(network.server)
    network.wait(1)
    assert client.can_open(True)


def test_send_backlog_falls_as_the_peer_acknowledges() -> None:
    """Backlog and unsent count what was written, and are zero when all has arrived."""
    network = Network()
    client, _ = network.connect()
    stream_id = client.open_stream(uni=False)
    client.send_stream_data(stream_id, bytes(300_000))
    assert client.send_backlog(stream_id) == client.unsent(stream_id) == 300_000
    network.pump(network.client)
    assert client.send_backlog(stream_id) == 300_000 > client.unsent(stream_id)
    network.wait(5)
    assert client.send_backlog(stream_id) == client.unsent(stream_id) == 0
    assert not client.send_finished(stream_id)
    client.send_stream_data(stream_id, b"", end_stream=True)
    network.pump(network.client)
    network.wait(1)
    assert client.send_finished(stream_id)


def test_the_peers_stream_limit() -> None:
    """`can_open` says when the peer allows no more streams; data of one more waits."""
    network = Network(settings=TransportSettings(max_streams_bidi=2))
    client, _ = network.connect()
    ids = [client.open_stream(uni=False) for _ in range(2)]
    assert ids == [0, 4] and not client.can_open(False) and client.can_open(True)


def test_datagrams_up_to_the_limit_and_not_beyond() -> None:
    """A datagram of `max_datagram_payload` bytes arrives whole; one byte more is refused with both sizes."""
    network = Network()
    client, _ = network.connect()
    assert client.max_datagram_payload == 1170
    network.wait(1)
    assert client.max_datagram_payload == 1422
    data = bytes(range(256)) * 6
    client.send_datagram(data[: client.max_datagram_payload])
    with pytest.raises(DatagramTooLargeError) as caught:
        client.send_datagram(data[: client.max_datagram_payload + 1])
    assert (caught.value.size, caught.value.limit) == (1423, 1422)
    network.pump(network.client)
    network.wait(1)
    (event,) = network.server.of(events.DatagramFrameReceived)
    assert event.data == data[:1422]


def test_a_peer_that_takes_no_datagrams() -> None:
    """Against a peer without datagrams the limit is 0 and every send is refused."""
    network = Network(server_settings=TransportSettings(max_datagram_frame_size=0))
    client, _ = network.connect()
    assert client.max_datagram_payload == 0
    with pytest.raises(DatagramTooLargeError):
        client.send_datagram(b"x")


def test_the_datagram_queue_drops_its_oldest() -> None:
    """A full queue keeps the newest datagrams and counts those that it dropped."""
    network = Network(settings=TransportSettings(datagram_queue=4))
    client, _ = network.connect()
    for number in range(10):
        client.send_datagram(bytes([number]))
    network.pump(network.client)
    network.wait(1)
    assert [event.data[0] for event in network.server.of(events.DatagramFrameReceived)] == [6, 7, 8, 9]
    assert client.stats.datagrams_dropped == 6


def test_a_queued_datagram_that_no_longer_fits_blocks_nothing() -> None:
    """When the MTU falls under a queued datagram it is dropped, and what stands behind it goes out."""
    network = Network()
    client, _ = network.connect()
    network.wait(1)
    client.send_datagram(bytes(1400))
    client.send_datagram(b"small")
    client.packet_too_big(1452, network.now)
    client.send_stream_data(client.open_stream(uni=True), b"data", end_stream=True)
    network.pump(network.client)
    network.wait(1)
    assert [event.data for event in network.server.of(events.DatagramFrameReceived)] == [b"small"]
    assert network.server.received == {2: b"data"}
    assert client.stats.datagrams_dropped == 1


@pytest.mark.parametrize("seed", range(3))
def test_many_streams_both_ways_at_once(seed: int) -> None:
    """Forty streams in both directions over a lossy network all arrive whole, on the short paths too."""
    network = Network(seed=seed)
    client, server = network.connect()
    network.links(loss=0.02, reorder=0.05, duplicate=0.01)
    source = random.Random(seed)
    expected: dict[tuple[bool, int], bytes] = {}
    for engine, end in ((client, network.client), (server, network.server)):
        for _ in range(20):
            stream_id = engine.open_stream(uni=bool(source.getrandbits(1)))
            data = source.randbytes(source.choice([1, 100, 1200, 5000, 60_000, 200_000]))
            expected[end is network.client, stream_id] = data
            engine.send_stream_data(stream_id, data, end_stream=True)
        network.pump(end)

    def arrived() -> bool:
        return all(
            (network.server if from_client else network.client).received.get(stream_id) == data
            for (from_client, stream_id), data in expected.items()
        )

    network.run(arrived, 300)
    if Engine.fast_send:
        assert client.stats.fast_packets_sent > 100 and server.stats.fast_packets_received > 100


def test_keys_are_updated_before_they_wear_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many packets the sender changes its key, the peer follows, and the transfer does not notice."""
    monkeypatch.setattr("tom_connect.quic.engine.MAX_PACKETS_PER_KEY", 200)
    network = Network()
    client, server = network.connect()
    secret = client._cryptos[tls.Epoch.ONE_RTT].send.secret
    network.links(reorder=0.02, loss=0.01)
    transfer(network, 2 * MIB)
    assert client._cryptos[tls.Epoch.ONE_RTT].send.secret != secret
    assert client.stats.fast_packets_sent > 500 or not Engine.fast_send
    assert server.termination is None


def test_a_fault_in_sending_ends_the_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault while packets are built is not raised to the driver: it ends that connection and is counted."""
    network = Network()
    client, _ = network.connect()

    def fault(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client, "_write_application", fault)
    client.send_ping(1)
    assert client.send(network.now) == []
    assert client.stats.faults == 1 and client.terminating
    assert isinstance(client.next_event(), events.ConnectionTerminated)
    assert client.send(network.now) == [] and client.get_timer() is None
    assert "fault in building" in caplog.text
