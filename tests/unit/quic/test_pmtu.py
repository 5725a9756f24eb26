"""The search for the path MTU: the state machine alone, and two engines over paths that drop large packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.quic.pair import Network
from tom_connect.quic.pmtu import HOLE_DELAY, MAX_PROBES, RAISE_DELAY, SEARCH_STEP, PathMtu
from tom_connect.quic.settings import TransportSettings

pytestmark = pytest.mark.costly


def search(pmtu: PathMtu, carries: int, now: float = 0.0) -> float:
    """Answer probes as a path that carries `carries` bytes would, until none is due; the time then."""
    for _ in range(200):
        size = pmtu.probe(now)
        if size is None:
            if not pmtu.searching:
                return now
            now += 0.05
            continue
        if size <= carries:
            pmtu.acked(size, now)
        else:
            pmtu.lost(size, now)
    raise AssertionError("the search did not end")


def test_one_probe_is_enough_on_a_usual_path() -> None:
    """The ceiling is tried first, and once it is acknowledged nothing more is sent."""
    pmtu = PathMtu(1452)
    assert pmtu.probe(0) == 1452
    assert pmtu.probe(0) is None, "one probe at a time"
    pmtu.acked(1452, 0.1)
    assert pmtu.mtu == 1452 and pmtu.probe(1e6) is None


@given(st.integers(1200, 1500), st.integers(1200, 1500))
def test_the_search_finds_what_the_path_carries(ceiling: int, carries: int) -> None:
    """Whatever the path carries, the search ends within one step below it and never above."""
    pmtu = PathMtu(ceiling)
    search(pmtu, carries)
    best = min(ceiling, carries)
    assert best - SEARCH_STEP <= pmtu.mtu <= best


def test_one_lost_probe_is_not_the_end() -> None:
    """A size is given up only after three lost probes."""
    pmtu = PathMtu(1452)
    now = 0.0
    for _ in range(MAX_PROBES - 1):
        assert pmtu.probe(now) == 1452
        pmtu.lost(1452, now)
        assert pmtu.probe(now) is None
        now += 1
    assert pmtu.probe(now) == 1452
    pmtu.acked(1452, now)
    assert pmtu.mtu == 1452


def test_the_search_is_taken_up_again() -> None:
    """After the raise timer a path that was too small is tried again from the ceiling."""
    pmtu = PathMtu(1452)
    now = search(pmtu, 1200)
    assert pmtu.mtu == 1200 and pmtu.probe(now + RAISE_DELAY - 1) is None
    assert pmtu.probe(now + RAISE_DELAY) == 1452


def test_a_black_hole_by_losses_without_acknowledgement() -> None:
    """Three loss events of large packets in a row drop to 1200; one acknowledged large packet between them does not."""
    pmtu = PathMtu(1452)
    now = search(pmtu, 1452)
    for step in range(10):
        assert not pmtu.large_lost(now + step, now + step)
        assert not pmtu.large_lost(now + step + 0.5, now + step + 0.5)
        pmtu.large_acked()
    now += 20
    assert not any(pmtu.large_lost(now, now) for _ in range(9)), "one event, however often it is reported"
    assert [pmtu.large_lost(now + step, now + step) for step in (1, 2)] == [False, True]
    now += 2
    assert pmtu.mtu == 1200 and pmtu.black_holes == 1
    assert pmtu.probe(now + HOLE_DELAY - 1) is None
    assert pmtu.probe(now + HOLE_DELAY) == 1452


def test_repeated_black_holes_are_tried_more_rarely() -> None:
    """Each further fall doubles the wait before the next search."""
    pmtu = PathMtu(1452)
    now, waits = 0.0, []
    for _ in range(4):
        now = search(pmtu, 1452, now)
        for _ in range(3):
            now += 1
            pmtu.large_lost(now, now)
        start = now
        while pmtu.probe(now) is None:
            now += 1
        waits.append(now - start)
        pmtu.acked(1452, now)
    assert waits == [HOLE_DELAY * 2**n for n in range(4)]


def test_the_peers_limit_lowers_the_ceiling() -> None:
    """What the peer says that it can receive is never exceeded (RFC 9000 section 18.2)."""
    pmtu = PathMtu(1452)
    pmtu.limit(1300)
    search(pmtu, 9000)
    assert pmtu.mtu == 1300
    pmtu.limit(100)
    assert pmtu.mtu == 1200


def test_what_the_socket_refuses() -> None:
    """A probe that the socket refuses is not tried again; a packet in use that it refuses means 1200 at once."""
    pmtu = PathMtu(1452)
    size = pmtu.probe(0)
    assert size == 1452
    pmtu.refused(1452, 0)
    assert pmtu.probe(0) == (1200 + 1452) // 2
    pmtu.acked(1326, 0)
    pmtu.refused(1326, 0)
    assert pmtu.mtu == 1200


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2000), st.floats(0, 100)), max_size=60))
def test_no_order_of_events_breaks_the_bounds(steps: list[tuple[int, int, float]]) -> None:
    """After any events at all the MTU lies between 1200 and the ceiling."""
    pmtu = PathMtu(1452)
    now = 0.0
    for kind, size, delay in steps:
        now += delay
        if kind == 0:
            probe = pmtu.probe(now)
            assert probe is None or 1200 < probe <= pmtu.ceiling
        elif kind == 1:
            pmtu.acked(pmtu._in_flight or size, now)
        elif kind == 2:
            pmtu.lost(pmtu._in_flight or size, now)
        elif kind == 3:
            pmtu.large_lost(now, now)
        elif kind == 4:
            pmtu.timed_out(size % 5, now)
        elif kind == 5:
            pmtu.refused(size, now)
        elif kind == 6:
            pmtu.path_changed(size, now)
        else:
            pmtu.limit(size)
        assert 1200 <= pmtu.mtu <= max(pmtu.ceiling, 1200)


@pytest.mark.parametrize(("largest", "low"), [(1500, 1452), (1280, 1264), (1199 + 1, 1200), (1400, 1384)])
def test_engines_find_the_mtu(largest: int, low: int) -> None:
    """Two engines end within a step of what the path carries, without a peer that knows of the search."""
    network = Network()
    network.links(largest=largest)
    client, _ = network.connect()
    for _ in range(40):
        client.send_ping(1)
        network.pump(network.client)
        network.wait(2)
        if not client._pmtu.searching:
            break
    assert low <= client.mtu <= min(largest, 1452)
    assert client.stats.cwnd >= 12_000, "lost probes are no congestion"


def test_an_idle_connection_sends_one_probe_and_is_quiet() -> None:
    """Where the path carries the ceiling, an idle connection costs one probe a side and no wake-ups after."""
    network = Network()
    client, _ = network.connect()
    network.wait(2)
    sent = client.stats.packets_sent
    network.wait(50)
    assert client.mtu == 1452 and client.stats.packets_sent == sent


def test_a_black_hole_under_load() -> None:
    """When the path stops carrying large packets a transfer falls back to 1200 bytes within seconds and goes on."""
    network = Network()
    client, _ = network.connect()
    network.wait(1)
    assert client.mtu == 1452
    stream_id = client.open_stream(uni=True)
    client.send_stream_data(stream_id, bytes(3_000_000), end_stream=True)
    network.pump(network.client)
    network.wait(0.1)
    network.links(largest=1250)
    start = network.now
    network.run(lambda: client.mtu == 1200, 5)
    network.run(lambda: stream_id in network.server.finished, 60)
    assert network.now - start < 20
    assert client.mtu <= 1250


@pytest.mark.parametrize("seed", range(6))
def test_plain_loss_is_no_black_hole(seed: int) -> None:
    """Ten percent of loss, of packets of any size, is not taken for a black hole."""
    network = Network(seed=seed)
    client, _ = network.connect()
    network.wait(1)
    network.links(loss=0.1)
    stream_id = client.open_stream(uni=True)
    client.send_stream_data(stream_id, bytes(2_000_000), end_stream=True)
    network.pump(network.client)
    network.run(lambda: stream_id in network.server.finished, 600)
    assert client.stats.black_holes == 0
    network.links(loss=0.0)
    client.send_ping(1)
    network.pump(network.client)
    network.wait(2)
    assert client.mtu == 1452


def test_doubt_is_short() -> None:
    """Two probe time-outs in a row go on with small packets, and the larger size is tried again after a second."""
    pmtu = PathMtu(1452)
    now = search(pmtu, 1452)
    assert not pmtu.timed_out(1, now) and pmtu.mtu == 1452
    assert pmtu.timed_out(2, now) and pmtu.mtu == 1200
    assert pmtu.probe(now + 0.9) is None and pmtu.probe(now + 1) == 1452


def test_a_ceiling_of_1200_sends_no_probe() -> None:
    """The search can be switched off."""
    network = Network(settings=TransportSettings(max_mtu=1200))
    client, server = network.connect()
    network.wait(5)
    assert client.mtu == server.mtu == 1200
