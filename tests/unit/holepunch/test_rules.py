"""Rates, the address filter, and the choice of the best path."""

from __future__ import annotations

import pytest

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.holepunch.addrfilter import SOURCE_CALL, SOURCE_PEER, AddressFilter, normal
from tom_connect.holepunch.limits import KeyedBuckets, TokenBucket
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.holepunch.pathstate import FIRST_SAMPLE, PathState, best
from tom_connect.keys import SecretKey


def test_a_token_bucket_keeps_its_rate() -> None:
    """A burst at once, then the rate; a clock that stands still or steps back adds nothing."""
    bucket = TokenBucket(rate=10.0, burst=5.0)
    assert [bucket.take(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert not bucket.take(-5.0)
    assert sum(bucket.take(t / 100) for t in range(11, 1011)) == pytest.approx(100, abs=6)


def test_keyed_buckets_are_bounded() -> None:
    """The key not used for longest is forgotten; others keep their level."""
    buckets: KeyedBuckets[int] = KeyedBuckets(rate=0.0, burst=1.0, limit=3)
    assert [buckets.take(key, 0.0) for key in (1, 2, 3, 1, 2, 3)] == [True] * 3 + [False] * 3
    buckets.take(4, 0.0)
    assert len(buckets) == 3
    assert not buckets.take(3, 0.0)
    assert buckets.take(1, 0.0)


PUBLIC = ["8.8.8.8:53", "203.0.113.1:1", "[2606:4700::1]:443", "[2001:db8::1]:1"]
PRIVATE = ["10.1.2.3:1", "172.16.0.1:1", "192.168.1.1:1", "100.64.0.1:1", "[fd00::1]:1"]
OWN = ["127.0.0.1:1", "[::1]:1", "169.254.9.9:1", "[fe80::1]:1", "[fec0::1]:1"]
NEVER = ["0.0.0.0:1", "224.0.0.251:5353", "239.1.1.1:1", "255.255.255.255:1", "240.0.0.1:1", "[::]:1", "[ff02::fb]:1"]


def judged(addrs: list[str], local: bool, source: str, trusted: bool = False) -> set[bool]:
    rule = AddressFilter(local)
    return {rule.probeable(normal(SocketAddr.parse(a)), source, trusted=trusted) for a in addrs}


@pytest.mark.parametrize(
    ("addrs", "record", "call", "peer", "trusted"),
    [
        (PUBLIC, True, True, True, True),
        (PRIVATE, False, True, True, True),
        (OWN, False, False, True, True),
        (NEVER, False, False, False, False),
        (["8.8.8.8:0"], False, False, False, False),
        (["[::ffff:10.0.0.1]:1"], False, True, True, True),
        (["[::ffff:127.0.0.1]:1"], False, False, True, True),
    ],
)
def test_who_may_name_what(addrs: list[str], record: bool, call: bool, peer: bool, trusted: bool) -> None:
    """Records name public addresses, sealed calls private ones too, a peer's own packets and the caller any unicast."""
    assert judged(addrs, False, "dht") == {record}
    assert judged(addrs, False, SOURCE_CALL) == {call}
    assert judged(addrs, False, SOURCE_PEER) == {peer}
    assert judged(addrs, False, "caller", trusted=True) == {trusted}
    # Where local addresses are allowed, all that can be sent to may be named.
    assert judged(addrs, True, "dht") == judged(addrs, True, SOURCE_CALL) == {trusted}


def test_what_is_published_is_what_may_be_probed_from_a_record() -> None:
    """Publishing and probing follow the same rule; private addresses are offered in sealed calls only."""
    rule = AddressFilter(False)
    for text in PUBLIC + PRIVATE + OWN + NEVER:
        addr = SocketAddr.parse(text)
        assert rule.publishable(addr) == rule.probeable(addr, "dht", trusted=False)
        assert rule.offerable(addr) == (text in PUBLIC + PRIVATE)


def test_mapped_addresses_are_ipv4() -> None:
    """An IPv4-mapped IPv6 address can't get past the rules, since it becomes what it is."""
    assert normal(SocketAddr("::ffff:192.0.2.1", 5)) == SocketAddr("192.0.2.1", 5)
    assert normal(SocketAddr("2001:DB8:0::1", 5)) == SocketAddr("2001:db8::1", 5)


def path(addr: str, rtt: float | None = None, proven: bool = True) -> PathState:
    where: Path
    if addr == "relay":
        where = RelayPath(RelayUrl.parse("https://r.test/"), SecretKey(bytes(32)).node_id)
    else:
        where = SocketAddr.parse(addr)
    state = PathState(path=where, source="test", given=False, added=0.0, proven=proven, proven_at=0.0)
    if rtt is not None:
        state.measured(rtt)
    return state


def test_best_path_rules() -> None:
    """Proven only; direct before relay; IPv6 three milliseconds ahead; five to replace what is in use."""
    v4, v6, relay = path("192.0.2.1:1", 0.020), path("[2001:db8::1]:1", 0.022), path("relay", 0.001)
    now = 10.0
    assert best(None, [], now)[0] is None
    assert best(None, [path("192.0.2.1:1", 0.001, proven=False)], now)[0] is None
    assert best(None, [relay, v4, v6], now)[0] is v6
    assert best(None, [relay, v4, path("[2001:db8::1]:1", 0.024)], now)[0] is v4
    assert best(v4, [relay, v4, v6], now)[0] is v4
    assert best(relay, [relay, v4], now)[0] is v4
    assert best(v4, [relay, v4], now)[0] is v4
    faster = path("192.0.2.2:1", 0.014)
    assert best(v4, [v4, faster], now)[0] is faster
    assert best(v4, [v4, path("192.0.2.2:1", 0.0155)], now)[0] is v4
    v4.proven = False
    assert best(v4, [relay, v4], now)[0] is relay


def test_an_unmeasured_path_gets_a_second() -> None:
    """A path that QUIC has validated is not replaced before it had time for a measurement."""
    fresh, measured = path("192.0.2.1:1"), path("192.0.2.2:1", 0.5)
    assert best(fresh, [fresh, measured], FIRST_SAMPLE / 2)[0] is fresh
    assert best(fresh, [fresh, measured], FIRST_SAMPLE * 2)[0] is measured
    assert best(fresh, [fresh, path("192.0.2.2:1")], FIRST_SAMPLE * 2)[0] is fresh
    # One sample may have been taken while the loop was busy.
    once, faster = path("192.0.2.1:1", 0.100), path("192.0.2.2:1", 0.050)
    assert best(once, [once, faster], FIRST_SAMPLE / 2)[0] is once
    once.measured(0.100)
    assert best(once, [once, faster], FIRST_SAMPLE / 2)[0] is faster


def test_rtt_is_the_least_of_the_last_samples() -> None:
    """One late answer of a busy loop does not make a path slow; three do."""
    state = path("192.0.2.1:1")
    rtts = []
    for sample in (0.010, 0.200, 0.012, 0.050, 0.060, 0.070):
        state.measured(sample)
        rtts.append(state.rtt)
    assert rtts == [0.010, 0.010, 0.010, 0.012, 0.012, 0.050]
