"""Changes of the path below a connection: what is reset, what is kept, how fast data flows again."""

from __future__ import annotations

import pytest

from tests.unit.quic.pair import Network
from tom_connect.quic.engine import Engine
from tom_connect.quic.recovery import MAX_PROBE_INTERVAL
from tom_connect.quic.settings import TransportSettings

pytestmark = pytest.mark.costly


def loaded(seed: int = 1, total: int = 20_000_000) -> tuple[Network, int]:
    """A transfer from client to server in full flow."""
    network = Network(seed=seed)
    network.links(delay=0.05)
    client, _ = network.connect()
    network.wait(1)
    stream_id = client.open_stream(uni=True)
    client.send_stream_data(stream_id, bytes(total), end_stream=True)
    network.pump(network.client)
    network.wait(0.5)
    assert client.stats.bytes_in_flight > 20_000
    return network, stream_id


def test_a_change_of_path_starts_congestion_control_afresh() -> None:
    """Window, RTT and MTU begin anew; bytes in flight go on counting."""
    network, _ = loaded()
    client = network.client.engine
    assert client is not None
    in_flight = client.stats.bytes_in_flight
    window = client.stats.cwnd
    client.path_changed(network.now)
    stats = client.stats
    assert stats.bytes_in_flight == in_flight
    assert stats.cwnd == 12_000 < window
    assert client.mtu == 1200 and client.rtt is None
    client.path_changed(network.now, mtu=1400)
    assert client.mtu == 1400 and client.stats.cwnd == 14_000


@pytest.mark.parametrize("seed", range(4))
def test_data_flows_again_at_once_after_the_old_path_died(seed: int) -> None:
    """With everything in flight lost with the old path, the new one carries data within three round trips."""
    network, stream_id = loaded(seed)
    client = network.client.engine
    assert client is not None
    network.links(down=True)
    network.wait(1.0)
    network.links(down=False, delay=0.02)
    before = len(network.server.received[stream_id])
    client.path_changed(network.now)
    network.pump(network.client)
    start = network.now
    network.run(lambda: len(network.server.received[stream_id]) > before + 20_000, 5)
    assert network.now - start < 3 * 0.04
    network.run(lambda: stream_id in network.server.finished, 60)
    assert len(network.server.received[stream_id]) == 20_000_000
    assert client.rtt == pytest.approx(0.04, rel=0.3)


def test_losses_of_the_old_path_do_not_shrink_the_new_window() -> None:
    """Packets lost with the old path are no congestion of the new one."""
    network, _ = loaded()
    client = network.client.engine
    assert client is not None
    network.links(down=True)
    network.wait(0.5)
    network.links(down=False)
    client.path_changed(network.now)
    network.pump(network.client)
    lost = client.stats.packets_lost
    network.run(lambda: client.stats.packets_lost > lost + 10, 5)
    assert client.stats.cwnd >= 12_000
    assert client.stats.bytes_in_flight < 100_000


def test_rtt_of_the_old_path_is_not_mixed_in() -> None:
    """Acknowledgements of packets that went down the old, slow path give no sample for the new one."""
    network = Network()
    network.links(delay=0.5)
    client, _ = network.connect()
    network.wait(5)
    client.send_ping(1)
    network.pump(network.client)
    network.wait(0.1)
    network.links(delay=0.005)
    client.path_changed(network.now)
    network.pump(network.client)
    network.wait(3)
    assert client.rtt is not None and client.rtt < 0.02


def test_a_path_that_comes_back_is_used_at_once() -> None:
    """After 40 s of outage `path_restored` sends a probe in the same moment, and new data within four round trips."""
    network, stream_id = loaded()
    client, server = network.client.engine, network.server.engine
    assert client is not None and server is not None
    network.links(down=True)
    network.wait(40)
    network.links(down=False)
    before, packets = len(network.server.received[stream_id]), server.authentic_packets
    client.path_restored(network.now)
    network.pump(network.client)
    start = network.now
    network.run(lambda: server.authentic_packets > packets, 5)
    assert network.now - start < 0.051
    network.run(lambda: len(network.server.received[stream_id]) > before, 5)
    assert network.now - start < 4 * 0.1
    assert client.stats.cwnd >= 12_000, "an outage is no congestion"


@pytest.mark.parametrize("forget", [True, False])
def test_a_probe_in_doubt_leaves_the_window_and_may_leave_the_back_off(forget: bool) -> None:
    """In a silence what waits longest is sent again at once; the window stays, and the back-off if that is wanted."""
    network, _stream_id = loaded()
    client = network.client.engine
    assert client is not None
    network.links(down=True)
    network.wait(1.0)
    window, back_off, sent = client.stats.cwnd, client._loss._pto_count, client.stats.packets_sent
    assert back_off > 0
    client.probe_now(network.now, forget_backoff=forget)
    network.pump(network.client)
    assert client.stats.packets_sent > sent
    assert client.stats.cwnd == window
    assert client._loss._pto_count == (0 if forget else back_off)


def test_the_back_off_is_bounded() -> None:
    """Without any help a path that comes back is found within the longest probe interval."""
    network, stream_id = loaded()
    network.links(down=True)
    network.wait(50)
    network.links(down=False)
    before = len(network.server.received[stream_id])
    start = network.now
    network.run(lambda: len(network.server.received[stream_id]) > before, 10)
    assert network.now - start < MAX_PROBE_INTERVAL + 0.2


def test_cubic_is_reset_too() -> None:
    """The other congestion controller takes part in changes of path and MTU."""
    network = Network(settings=TransportSettings(congestion="cubic"))
    client, _ = network.connect()
    network.wait(1)
    assert client.mtu == 1452
    stream_id = client.open_stream(uni=True)
    client.send_stream_data(stream_id, bytes(2_000_000), end_stream=True)
    network.pump(network.client)
    network.wait(0.1)
    client.path_changed(network.now)
    network.pump(network.client)
    network.run(lambda: stream_id in network.server.finished, 60)


@pytest.mark.parametrize("upload", [True, False])
def test_the_short_path_receives_whichever_id_the_peer_uses(upload: bool) -> None:
    """A peer that changes to another of our connection ids is received as quickly as before."""
    network = Network()
    client, server = network.connect()
    network.wait(1)
    sender, receiver = (client, server) if upload else (server, client)
    source, target = (network.client, network.server) if upload else (network.server, network.client)
    sender.change_connection_id()
    stream_id = sender.open_stream(uni=True)
    sender.send_stream_data(stream_id, bytes(500_000), end_stream=True)
    network.pump(source)
    network.run(lambda: stream_id in target.finished)
    if Engine.fast_receive:
        assert receiver.stats.fast_packets_received > 300
