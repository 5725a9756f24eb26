"""The relay's state machine on a virtual clock: who gets what, and what is bounded."""

from __future__ import annotations

import random

import pytest

from tom_connect.keys import SecretKey
from tom_relay.errors import WireError
from tom_relay.server.buckets import TokenBucket
from tom_relay.server.hub import CONTROL_EXTRA, SENT_TO_LIMIT, RelayClient
from tom_relay.wire import (
    MAX_DATA,
    Dialect,
    EndpointGone,
    Health,
    PeerPresent,
    Ping,
    Pong,
    ReceivedDatagrams,
    Restarting,
    SendDatagrams,
    ServerFrame,
    Status,
    encode,
)

from .world import KEYS, A, B, C, world


def test_datagrams_arrive_as_they_were_sent() -> None:
    """Single ones and batches come from their sender with data, segment size and ECN byte untouched, in order."""
    w = world()
    a, b = w.join(A), w.join(B, Dialect.TOM_V1)
    w.send(a, B, b"one", ecn=3)
    w.send(a, B, b"abcabcab", ecn=0xFE, segment_size=3)
    w.send(a, B, b"", ecn=0)
    assert [frame for frame in w.read(b) if not isinstance(frame, PeerPresent)] == [
        ReceivedDatagrams(A.raw, b"one", 3),
        ReceivedDatagrams(A.raw, b"abcabcab", 0xFE, 3),
        ReceivedDatagrams(A.raw, b"", 0),
    ]
    assert (a.sent.packets, a.sent.bytes) == (5, 11) == (b.received.packets, b.received.bytes)


def test_a_type_written_longer_than_needed_is_forwarded() -> None:
    """A frame type in four bytes is still a datagram."""
    w = world()
    a, b = w.join(A), w.join(B)
    w.hub.receive(a, b"\x80\0\0\x04" + B.raw + b"\x01hello", w.now)
    assert w.read(b) == [ReceivedDatagrams(A.raw, b"hello", 1)]


def test_pings_are_answered() -> None:
    """A client's ping gets a pong with its bytes."""
    w = world()
    a = w.join(A)
    w.hub.receive(a, encode(Ping(b"12345678"), a.dialect), w.now)
    assert w.read(a) == [Pong(b"12345678")]


def test_the_absent_are_told_gone_once_a_second() -> None:
    """A datagram for a node that is not here is dropped; its sender is told, without an answer for each packet."""
    w = world()
    a = w.join(A)
    for _ in range(100):
        w.send(a, B)
        w.now += 0.02
    assert w.read(a) == [EndpointGone(B.raw)] * 2
    assert w.hub.counters.dropped["unknown_destination"] == 100


def test_who_was_sent_to_hears_of_the_end() -> None:
    """When a node goes, those to whom it sent are told, others are not; how many are remembered is bounded."""
    w = world()
    a, b, c = w.join(A), w.join(B), w.join(C)
    w.send(a, B)
    w.read(b)
    w.hub.unregister(a)
    assert w.read(b) == [EndpointGone(A.raw)]
    assert w.read(c) == []
    assert not w.hub.is_connected(A)
    w.hub.unregister(a)  # twice does no harm
    assert len(w.hub) == 2


def test_nodes_sent_to_are_bounded() -> None:
    """A client that sends to everyone is remembered for the last ones."""
    w = world()
    a = w.join(A)
    for number in range(1, SENT_TO_LIMIT + 30):
        node_id = SecretKey(b"s" * 30 + number.to_bytes(2, "big")).node_id
        w.join(node_id)
        w.send(a, node_id)
    assert len(a.sent_to) == SENT_TO_LIMIT


def test_a_full_queue_drops_and_counts() -> None:
    """512 frames wait for a client and no more; what waits arrives, the sender goes on."""
    w = world()
    a, b = w.join(A), w.join(B)
    for number in range(600):
        w.send(a, B, number.to_bytes(2, "big"))
    assert len(b.queue) == 512
    assert w.hub.counters.dropped["queue_full"] == a.undelivered == 88
    assert [frame.data for frame in w.read(b) if isinstance(frame, ReceivedDatagrams)] == [
        number.to_bytes(2, "big") for number in range(512)
    ]
    assert w.hub.queued_bytes == b.queued_bytes == 0


def test_large_frames_are_bounded_by_bytes() -> None:
    """The bytes that wait are bounded for a client and for all."""
    w = world(queue_bytes=200_000, total_queue_bytes=300_000)
    a, _, _ = w.join(A), w.join(B), w.join(C)
    for to in (B, C):
        for _ in range(10):
            w.send(a, to, bytes(MAX_DATA), segment_size=1200)
    assert w.hub.queued_bytes <= 300_000
    packets = -(-MAX_DATA // 1200)
    assert w.hub.counters.dropped["queue_full"] == 7 * packets
    assert w.hub.counters.dropped["memory"] == 9 * packets


def test_a_flood_of_pings_is_bounded() -> None:
    """A client that pings and never reads has a bounded queue."""
    w = world()
    a = w.join(A)
    for _ in range(2000):
        w.hub.receive(a, encode(Ping(bytes(8)), a.dialect), w.now)
    assert len(a.queue) == 512 + CONTROL_EXTRA


@pytest.mark.parametrize(
    ("dialect", "notice"),
    [
        (Dialect.IROH_V2, Status(1)),
        (Dialect.IROH_V1, Health("another connection with the same node id has taken over")),
        (Dialect.TOM_V1, Health("another connection with the same node id has taken over")),
    ],
)
def test_the_newest_connection_of_a_key_is_the_one(dialect: Dialect, notice: ServerFrame) -> None:
    """The older one is told in its dialect, gets nothing more and can send nothing; others see no end of the node."""
    w = world()
    old, b = w.join(A, dialect), w.join(B)
    w.send(old, B)
    new = w.join(A)
    assert [frame for frame in w.read(old) if not isinstance(frame, PeerPresent)] == [notice]
    w.read(b)
    w.send(b, A, b"for the new one")
    w.send(old, B, b"from the old one")
    assert w.read(new) == [ReceivedDatagrams(B.raw, b"for the new one")]
    assert w.read(b) == w.read(old) == []
    assert w.hub.counters.dropped["displaced"] == 1
    w.hub.unregister(old)
    assert w.read(b) == []
    assert w.hub.is_connected(A)
    w.hub.unregister(new)
    assert not w.hub.is_connected(A)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_what_waits_for_an_older_connection_goes_to_the_newer(dialect: Dialect) -> None:
    """A node that connects anew, since its first connection is dead, loses no datagram that waits at the relay, and is
    told nothing that was meant for the other connection."""
    w = world()
    old, b = w.join(A, dialect), w.join(B)
    w.read(old)
    w.send(b, A, b"one")
    w.hub.receive(old, encode(Ping(bytes(8)), dialect), w.now)
    w.hub.receive(b, encode(SendDatagrams(A.raw, b"twothree", 0, 4), b.dialect), w.now)
    new = w.join(A)
    datagrams = [frame for frame in w.read(new) if not isinstance(frame, PeerPresent)]
    assert datagrams == [ReceivedDatagrams(B.raw, b"one"), ReceivedDatagrams(B.raw, b"twothree", 0, 4)]
    assert not any(isinstance(frame, ReceivedDatagrams) for frame in w.read(old))
    assert w.hub.queued_bytes == 0


def test_an_older_connection_is_active_again() -> None:
    """If the newest ends first, the one before it takes over, and is told that it is healthy."""
    w = world()
    old, b = w.join(A), w.join(B)
    new = w.join(A)
    w.read(old)
    w.hub.unregister(new)
    assert w.read(old) == [Status(0)]
    w.send(b, A)
    assert w.read(old) == [ReceivedDatagrams(B.raw, b"x")]


def test_a_third_connection_ends_the_first() -> None:
    """A key has two connections at most, however often it connects."""
    w = world()
    first = w.join(A)
    second, surplus = w.hub.register(A, Dialect.IROH_V2, w.now)
    assert surplus is None
    third, surplus = w.hub.register(A, Dialect.IROH_V2, w.now)
    assert surplus is first
    assert list(w.hub.clients()) == [third, second]
    assert len(w.hub) == 2
    w.hub.unregister(first)  # as the shell does when the closed connection ends
    assert len(w.hub) == 2


def test_a_throttled_client_waits_and_is_told_once() -> None:
    """Over its rate a client has to wait as long as its bytes take; Status 2 comes once, data is not lost."""
    w = world(client_rate=1 << 20, client_burst=1 << 20)
    a, b = w.join(A), w.join(B)
    waited = 0.0
    for _ in range(100):
        wait = w.send(a, B, bytes(60_000), segment_size=1200)
        w.read(b)
        w.now += wait
        waited += wait
    assert waited == pytest.approx((100 * 60_036 - (1 << 20)) / (1 << 20), rel=0.01)
    assert w.read(a) == [Status(2)]
    assert a.sent.bytes == 6_000_000
    assert w.hub.counters.throttled > 50


def test_all_clients_share_a_rate() -> None:
    """The rate of all is kept by all together, and clients of other dialects are told in words."""
    w = world(total_rate=1 << 20, total_burst=1 << 20)
    a, b = w.join(A), w.join(B, Dialect.IROH_V1)
    w.send(a, C, bytes(60_000))
    for _ in range(20):
        wait = w.send(b, C, bytes(60_000))
    assert wait == pytest.approx((21 * 60_034 - (1 << 20)) / (1 << 20), abs=0.01)
    assert [type(frame) for frame in w.read(b)] == [EndpointGone, Health]


def test_a_bucket_refills_to_its_burst() -> None:
    """A pause gives back at most the burst; time that runs backwards gives nothing."""
    bucket = TokenBucket(100, 50)
    assert bucket.take(50, 1.0) == 0
    assert bucket.take(10, 1.0) == pytest.approx(0.1)
    assert bucket.take(10, 0.5) == pytest.approx(0.2)
    assert bucket.take(50, 1000.0) == 0
    assert bucket.take(1, 1000.0) == pytest.approx(0.01)


def test_clients_are_pinged_and_the_silent_are_named() -> None:
    """Each client is pinged within its interval; one that says nothing for the time-out is to be closed."""
    w = world(ping_interval=15.0, ping_timeout=10.0)
    talking, silent = w.join(A), w.join(B)
    ended: list[RelayClient] = []
    pings = 0
    for _ in range(60):
        w.now += 1
        ended += w.hub.tick(w.now)
        for frame in w.read(talking):
            assert isinstance(frame, Ping)
            pings += 1
            w.hub.receive(talking, encode(Pong(frame.data), talking.dialect), w.now)
        w.read(silent)
        if silent in ended:
            w.hub.unregister(silent)
    assert ended == [silent]
    assert 4 <= pings <= 5
    assert w.hub.counters.silent == 1


def test_who_is_throttled_is_not_silent() -> None:
    """While a client is not read because it sent too much, it is not taken for one that does not answer."""
    w = world(client_rate=1 << 10, client_burst=1 << 20, ping_interval=10.0, ping_timeout=5.0)
    a = w.join(A)
    for _ in range(17):
        wait = w.send(a, B, bytes(63_000))
    assert wait > 20
    ended = []
    for _ in range(round(wait) + 20):
        w.now += 1
        ended += [w.now - 1000 for client in w.hub.tick(w.now) if client is a]
    assert wait + 4 < min(ended) < wait + 7


def test_everyone_is_told_of_a_restart_at_another_moment() -> None:
    """Restarting says when to come back, not the same for all, and for how long to try."""
    w = world(reconnect_in=2.0, try_for=8.0)
    clients = [w.join(node_id) for node_id in KEYS[:10]]
    w.hub.announce_restart()
    frames = [w.read(client)[-1] for client in clients]
    assert all(isinstance(frame, Restarting) and frame.try_for_ms == 8000 for frame in frames)
    waits = {frame.reconnect_in_ms for frame in frames if isinstance(frame, Restarting)}
    assert len(waits) > 5
    assert min(waits) >= 2000 and max(waits) < 3000


def test_nodes_of_tom_relay_v1_hear_of_one_another() -> None:
    """A new node of that dialect hears of up to 8 that are there, and they of it; iroh's hear nothing."""
    w = world()
    iroh = w.join(A)
    first = w.join(B, Dialect.TOM_V1)
    assert w.read(first) == [PeerPresent(A.raw)]
    second = w.join(C, Dialect.TOM_V1)
    assert {frame.key for frame in w.read(second) if isinstance(frame, PeerPresent)} == {A.raw, B.raw}
    assert w.read(first) == [PeerPresent(C.raw)]
    w.join(KEYS[3])
    assert w.read(first) == w.read(second) == [PeerPresent(KEYS[3].raw)]
    for node_id in KEYS[4:40]:
        w.join(node_id, Dialect.TOM_V1)
    last = w.join(KEYS[40], Dialect.TOM_V1)
    assert len(w.read(last)) == 8
    assert w.read(iroh) == []


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "truncated"),
        (b"\x04" + A.raw, "truncated"),
        (b"\x05" + A.raw + b"\0\0", "truncated"),
        (b"\x05" + A.raw + b"\0\0\0data", "truncated"),
        (b"\x04" + bytes(65_537), "too-large"),
        (b"\x06" + A.raw + b"\0x", "direction"),
        (b"\x3f", "unknown"),
        (b"\x09short", "truncated"),
        (b"\x01" + A.raw + b"\x40" + bytes(64), "direction"),
    ],
)
def test_breaches_are_named(message: bytes, kind: str) -> None:
    """Each breach by a client is an error that says its kind."""
    w = world()
    with pytest.raises(WireError) as caught:
        w.hub.receive(w.join(A), message, w.now)
    assert caught.value.kind == kind


def test_noise_breaks_nothing() -> None:
    """Damaged frames, joins and ends in any order: only WireError comes out, and the books stay right."""
    w = world(queue_packets=20, client_rate=1 << 20)
    rng = random.Random(7)
    clients = [w.join(node_id) for node_id in KEYS[:6]]
    for _ in range(20_000):
        w.now += rng.random() / 50
        client = rng.choice(clients)
        roll = rng.random()
        if roll < 0.7:
            message = bytearray(encode(SendDatagrams(rng.choice(KEYS[:8]).raw, rng.randbytes(20)), client.dialect))
            if rng.random() < 0.5:
                message[rng.randrange(len(message))] = rng.randrange(256)
            try:
                w.hub.receive(client, bytes(message[: rng.randrange(len(message) + 1)]), w.now)
            except WireError:
                pass
        elif roll < 0.8:
            w.read(client)
        elif roll < 0.85:
            w.hub.unregister(client)
            clients.remove(client)
            clients.append(w.join(client.node_id, rng.choice(list(Dialect))))
        elif roll < 0.9:
            old = rng.choice(clients)
            clients.append(w.join(old.node_id))
            clients = [c for c in clients if c in set(w.hub.clients())]
        else:
            w.hub.tick(w.now)
        assert w.hub.queued_bytes == sum(client.queued_bytes for client in w.hub.clients())
    assert len(w.hub) == len(list(w.hub.clients()))
