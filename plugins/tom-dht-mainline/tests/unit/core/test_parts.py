"""The small parts: timers, RTTs, limits, stores, votes, caches, snapshots."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core import DhtConfig, DhtUsageError, Family, FamilySnapshot, ImmutableItem, Snapshot
from tom_dht_mainline.core.address import Networks, is_usable, pack_address, unpack_address
from tom_dht_mainline.core.counters import Counters
from tom_dht_mainline.core.external import ExternalAddress
from tom_dht_mainline.core.limits import Limits
from tom_dht_mainline.core.rtt import RttTable
from tom_dht_mainline.core.sizing import SizeEstimate, size_of
from tom_dht_mainline.core.storage import ItemStore, PeerStore, Tokens
from tom_dht_mainline.core.timers import TimerQueue

NODE = ("20.0.0.1", 1)


def test_timers_fire_in_order_and_cancelled_ones_never() -> None:
    """Due timers fire once, in order; those that they add wait for the next run."""
    queue, fired = TimerQueue(), []
    queue.at(2.0, lambda now: fired.append("b"))
    queue.at(1.0, lambda now: (fired.append("a"), queue.at(now, lambda _: fired.append("again"))))
    queue.at(1.5, lambda now: fired.append("never")).cancel()
    assert queue.next() == 1.0
    queue.run(2.5)
    assert fired == ["a", "b"]
    queue.run(2.5)
    assert fired == ["a", "b", "again"]
    assert queue.next() is None


def test_timeouts_follow_rtts() -> None:
    """Unknown: the initial time-out; then the spread of all nodes; then the node's own, within bounds."""
    config = DhtConfig()
    rtts = RttTable(config)
    assert rtts.timeout(NODE) == config.initial_timeout
    for n in range(50):
        rtts.add((f"20.0.1.{n}", 1), 0.05 + 0.001 * (n % 10))
    assert config.min_timeout <= rtts.timeout(NODE) < 0.2
    for _ in range(30):
        rtts.add(NODE, 0.6)
    assert 0.6 < rtts.timeout(NODE) < 0.9
    rtts.add(("20.0.0.2", 1), 100.0)
    assert rtts.timeout(("20.0.0.2", 1)) == config.max_timeout
    rtts.clear()
    assert rtts.timeout(NODE) == config.initial_timeout


def test_rtt_memory_is_bounded() -> None:
    """A flood of nodes does not grow the table without end."""
    rtts = RttTable(DhtConfig())
    for n in range(10_000):
        rtts.add((f"20.{n // 65536}.{n // 256 % 256}.{n % 256}", 1), 0.1)
    assert len(rtts._nodes) == 4096


def limits(**settings: object) -> tuple[Limits, Counters]:
    config, counters = DhtConfig(**settings), Counters()  # type: ignore[arg-type]
    return Limits(config, counters, Networks(config.trusted_networks)), counters


def test_query_rate_per_host() -> None:
    """A host gets its burst and then its rate; another host is not affected; an IPv6 /64 is one host."""
    limit, counters = limits(queries_per_ip=10.0, query_burst_per_ip=20)
    assert sum(limit.admit_query("20.0.0.1", 0.0) for _ in range(100)) == 20
    assert counters.dropped["rate-ip"] == 80
    assert sum(limit.admit_query("20.0.0.1", 1.0) for _ in range(100)) == 10
    assert limit.admit_query("20.0.0.2", 1.0)
    assert sum(limit.admit_query(f"2001:db8::{n:x}", 1.0) for n in range(1, 100)) == 20


def test_query_rate_in_all() -> None:
    """Even from ever new addresses no more queries are looked at than configured."""
    limit, counters = limits(queries_total=100.0)
    admitted = sum(limit.admit_query(f"20.{n // 256}.{n % 256}.1", n / 10_000) for n in range(10_000))
    assert admitted <= 200
    assert counters.dropped["rate-total"] >= 9_800


def test_reply_bytes_per_prefix() -> None:
    """A /24 gets its budget of bytes, however its hosts share it; loopback is free."""
    limit, counters = limits(reply_bytes_per_prefix=1000.0, reply_burst_per_prefix=5000)
    assert sum(limit.admit_reply(f"20.0.0.{n % 250}", 500, 0.0) for n in range(100)) == 10
    assert counters.dropped["reply-budget"] == 90
    assert limit.admit_reply("20.0.1.1", 500, 0.0)
    assert all(limit.admit_reply("127.0.0.1", 500, 0.0) for _ in range(100))


def test_limit_memory_is_bounded() -> None:
    """A flood of spoofed sources does not grow the table without end."""
    limit, _ = limits(queries_total=1e9)
    for n in range(30_000):
        limit.admit_query(f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.1", 0.0)
    assert len(limit._hosts._levels) <= 8192


def test_tokens_are_bound_and_expire() -> None:
    """A token serves its IP and target for 5 to 10 minutes, no other, and no rubbish does."""
    tokens = Tokens(random.Random(1), 0.0)
    token = tokens.issue("20.0.0.1", b"t" * 20, 0.0)
    assert tokens.accepts(token, "20.0.0.1", b"t" * 20, 299.0)
    assert not tokens.accepts(token, "20.0.0.2", b"t" * 20, 1.0)
    assert not tokens.accepts(token, "20.0.0.1", b"u" * 20, 1.0)
    for rubbish in (None, 7, b"", b"x" * 8, b"x" * 500):
        assert not tokens.accepts(rubbish, "20.0.0.1", b"t" * 20, 1.0)
    assert tokens.accepts(token, "20.0.0.1", b"t" * 20, 301.0)
    assert not tokens.accepts(token, "20.0.0.1", b"t" * 20, 700.0)
    late = tokens.issue("20.0.0.1", b"t" * 20, 800.0)
    assert not tokens.accepts(late, "20.0.0.1", b"t" * 20, 5000.0)


def test_items_expire_after_two_hours_and_room_is_shared() -> None:
    """An item lives 2 h from its last put; a network may hold an eighth; the oldest put goes first."""
    store = ItemStore(DhtConfig(max_items=80))
    items = [ImmutableItem.create(n) for n in range(200)]
    kept = [store.put(item.target, item, "20.0.0.1", 0.0, unlimited=False) for item in items[:20]]
    assert kept == [True] * 10 + [False] * 10
    assert store.put(items[0].target, items[0], "20.0.0.1", 7000.0, unlimited=False)
    assert store.get(items[0].target, 7300.0) == items[0]
    assert store.get(items[1].target, 7300.0) is None
    for n, item in enumerate(items[20:]):
        assert store.put(item.target, item, f"20.1.{n}.1", 7300.0, unlimited=False)
    assert len(store) == 80
    assert store.get(items[199].target, 7300.0) == items[199]
    store.expire(99_999.0)
    assert len(store) == 0
    assert store._owned == {}


def test_peers_expire_and_are_bounded() -> None:
    """45 minutes, 50 a reply, the configured number each, 8 ports a host, infohashes by age."""
    store = PeerStore(DhtConfig(max_infohashes=3, max_peers_per_infohash=100), random.Random(1))
    a = b"a" * 20
    assert [store.announce(a, ("20.0.0.1", 1 + n), 0.0, unlimited=False) for n in range(10)] == [True] * 8 + [False] * 2
    assert store.announce(a, ("20.0.0.1", 1), 1.0, unlimited=False)
    for n in range(200):
        store.announce(a, (f"20.1.{n}.1", 80), 2.0, unlimited=False)
    assert len(store._peers[a]) == 100
    assert len(store.peers(a, Family.IPV4, 2.0)) == 50
    assert store.peers(a, Family.IPV6, 2.0) == []
    assert store.peers(a, Family.IPV4, 2703.0) == []
    for n in range(5):
        store.announce(bytes((n,)) * 20, ("20.0.0.9", 9), 3.0, unlimited=False)
    assert len(store) == 3
    store.expire(10_000.0)
    assert len(store) == 0


def test_external_address_needs_voters_and_searches() -> None:
    """Four networks from two searches must agree; one network has one voice; a majority decides."""
    external = ExternalAddress()
    me = ("30.1.2.3", 6881)
    for n in range(10):
        assert not external.vote(("20.0.0.9", n), ("66.6.6.6", 1), n, 0.0, by_address=False)
    for n in range(5):
        assert not external.vote((f"20.1.{n}.1", 1), me, 7, 0.0, by_address=False)
    assert external.vote(("20.1.9.1", 1), me, 8, 0.0, by_address=False)
    assert external.address == me


def test_differing_ports_give_port_zero() -> None:
    """Behind a NAT that maps by destination no port of ours is worth telling."""
    external = ExternalAddress()
    changed = [
        external.vote((f"20.1.{n}.1", 1), ("30.1.2.3", 1000 + n), n % 3, 0.0, by_address=False) for n in range(8)
    ]
    assert any(changed)
    assert external.address == ("30.1.2.3", 0)


def test_votes_grow_old() -> None:
    """After a move the new address wins once the old votes are outnumbered or stale."""
    external = ExternalAddress()
    for n in range(6):
        external.vote((f"20.1.{n}.1", 1), ("30.1.2.3", 5), n, 0.0, by_address=False)
    for n in range(6):
        external.vote((f"20.2.{n}.1", 1), ("31.1.2.3", 5), n, 2000.0, by_address=False)
    assert external.address == ("31.1.2.3", 5)


@given(st.integers(50, 100_000), st.integers(0, 2**32))
def test_size_estimate(size: int, seed: int) -> None:
    """From the 20 closest of uniform ids the size comes out within a factor of 2."""
    rng, estimate = random.Random(seed), SizeEstimate()
    for target in range(32):
        # The closest 20 of n uniform points: sums of exponential gaps.
        at, distances = 0.0, []
        for _ in range(20):
            at += rng.expovariate(1.0) * 2.0**160 / size
            distances.append(int(at))
        estimate.add(target.to_bytes(20, "big"), distances)
    assert size / 2 < estimate.nodes() < size * 2


def test_no_estimate_without_nodes() -> None:
    """An empty lookup says nothing."""
    estimate = SizeEstimate()
    estimate.add(bytes(20), [])
    assert estimate.nodes() == 0


def test_a_crowd_is_told_by_what_other_targets_say() -> None:
    """However often a crowded target is looked up, it does not change how many nodes there should be around it."""
    estimate = SizeEstimate()
    far, crowded = [n << 150 for n in range(1, 9)], [n << 100 for n in range(1, 9)]
    assert not estimate.is_crowded(b"target", 8, crowded[-1])
    for _ in range(40):
        estimate.add(b"target", crowded)
    assert not estimate.is_crowded(b"target", 8, crowded[-1])
    estimate.add(b"another", far)
    assert estimate.is_crowded(b"target", 8, crowded[-1])
    assert not estimate.is_crowded(b"target", 8, far[-1])


def test_targets_in_one_region_tell_nothing_of_each_other() -> None:
    """A mailbox near a record's target has the same crowd around it, and must not make it look like many nodes."""
    estimate = SizeEstimate()
    record = bytes(range(20))
    mailbox = record[:12] + bytes(8)
    estimate.add(mailbox, [n << 100 for n in range(1, 9)])
    assert estimate.nodes(besides=record) == 0 and estimate.nodes(besides=bytes(20)) > 0


def test_a_crowd_elsewhere_does_not_make_a_dht_look_large() -> None:
    """Nodes put at one place far from a target are at one distance from it: such a look-up tells nothing."""
    there = 1 << 154
    assert size_of([there + n for n in range(8)]) == 0
    assert size_of([there >> 1, *(there + (n << 140) for n in range(5)), there << 1]) == 0
    assert size_of([n << 155 for n in range(1, 9)]) == 28


@pytest.mark.parametrize(
    ("addr", "usable"),
    [
        (("1.2.3.4", 1), True),
        (("1.2.3.4", 0), False),
        (("0.0.0.0", 1), False),
        (("224.0.0.1", 1), False),
        (("255.255.255.255", 1), False),
        (("127.0.0.1", 1), True),
        (("2001:db8::1", 1), True),
        (("::", 1), False),
        (("ff02::1", 1), False),
        (("::ffff:1.2.3.4", 1), False),
    ],
)
def test_usable_addresses(addr: tuple[str, int], usable: bool) -> None:
    """No port 0, unspecified, multicast, broadcast or mapped address is ever sent to."""
    assert is_usable(addr) is usable


@given(st.ip_addresses(), st.integers(0, 65535))
def test_compact_addresses_round_trip(ip: object, port: int) -> None:
    """Compact form and back is the same address for both families."""
    addr = (str(ip), port)
    unpacked = unpack_address(pack_address(addr))
    assert unpacked is not None
    assert pack_address(unpacked) == pack_address(addr)
    assert unpack_address(b"12345") is None


def test_snapshot_round_trip() -> None:
    """What is saved reads back the same."""
    part = FamilySnapshot(b"i" * 20, ("30.1.2.3", 6881), ((b"n" * 20, "20.0.0.1", 1),))
    v6 = FamilySnapshot(b"j" * 20, None, ((b"m" * 20, "2001:db8::1", 2),))
    snapshot = Snapshot({Family.IPV4: part, Family.IPV6: v6})
    assert Snapshot.from_plain(snapshot.to_plain()) == snapshot


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    plain
    | st.fixed_dictionaries({"ipv4": st.fixed_dictionaries({"node_id": plain, "external": plain, "nodes": plain})})
)
def test_damaged_snapshots_are_one_clear_error(data: object) -> None:
    """A file that was cut or edited gives a snapshot or a DhtUsageError, nothing else."""
    try:
        Snapshot.from_plain(data)
    except DhtUsageError:
        return
    assert isinstance(data, dict)


def test_a_damaged_snapshot_says_what_to_do() -> None:
    """The message tells to delete the file."""
    with pytest.raises(DhtUsageError, match="delete it"):
        Snapshot.from_plain({"ipv4": 1})


@pytest.mark.parametrize(
    "settings",
    [{"version": b"TM"}, {"ipv4": False, "ipv6": False}, {"k": 0}, {"quorum": -1}, {"trusted_networks": ("x",)}],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    """Settings that can't work are refused when made."""
    with pytest.raises(DhtUsageError):
        DhtConfig(**settings)  # type: ignore[arg-type]
