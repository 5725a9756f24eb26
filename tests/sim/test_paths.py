"""Two nodes and their paths over a bad network, on a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from tests.sim.pathworld import Link, Node, World, pair
from tom_connect.abc import PathInfo
from tom_connect.holepunch import pathrules as rules
from tom_connect.holepunch.events import PathAdded, PathLost, PathProven, PathRestored, PathSelected
from tom_connect.holepunch.puncher import CALL_RETRY
from tom_connect.keys import NodeId


def active(node: Node, peer: Node) -> str:
    state = node.remotes[peer.id].active
    return "none" if state is None else ("relay" if not state.direct else "v6" if state.ipv6 else "v4")


def at_rest() -> tuple[World, Node, Node]:
    """Two nodes whose paths are proven, some time after they have sent the last time."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 3.0)
    world.run(3 + rules.TRAFFIC + rules.HEARTBEAT)
    return world, a, b


def gaps(times: Sequence[float], start: float, end: float) -> float:
    """The longest time without an arrival."""
    marks = [start, *(t for t in times if start <= t <= end), end]
    return max(b - a for a, b in itertools.pairwise(marks))


@pytest.mark.parametrize("seed", range(8))
def test_both_find_every_path_over_a_bad_network(seed: int) -> None:
    """With a quarter of all packets lost, doubled and out of order, both ends prove both paths, one told of none."""
    world = World(seed)
    world.v4 = world.v6 = Link(delay=0.02, jitter=0.06, loss=0.25, duplicate=0.2)
    a, b = pair(world)
    a.tell(b)
    world.run(6)
    assert {type(e.path) and str(e.path) for e in a.of(PathProven)} == {str(addr) for addr in b.addrs.values()}
    assert b.remotes[a.id].active is not None
    assert {str(state.path) for state in b.remotes[a.id].paths.values()} <= {str(addr) for addr in a.addrs.values()}


def test_a_pong_says_where_we_are_seen() -> None:
    """Each end learns the address at which the other sees it, from both families."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.run(1)
    assert {o.addr for o in a.observed} == set(a.addrs.values())
    assert {o.by for o in a.observed} == {b.id}


def test_nothing_is_sent_without_traffic() -> None:
    """Once paths are proven and nobody sends, an hour passes without a single packet."""
    world, a, b = at_rest()
    before = sum(world.sent.values())
    world.run(3600)
    assert sum(world.sent.values()) == before
    assert a.of(PathLost) == b.of(PathLost) == []


def test_keep_alives_are_no_traffic() -> None:
    """An hour of a connection's keep-alives and their acknowledgments costs no ping, and raises no doubt."""
    world, a, b = at_rest()
    before = world.disco_sent
    world.every(20.0, world.now + 3600, lambda: world.keep_alive(a, b))
    world.run(3610)
    assert world.disco_sent == before
    assert a.remotes[b.id].doubts == b.remotes[a.id].doubts == 0


def test_a_lost_keep_alive_is_followed_by_a_search() -> None:
    """A path that dies while only keep-alives go is left as soon as QUIC has asked twice."""
    world, a, b = at_rest()
    used = active(a, b)
    (world.v4 if used == "v4" else world.v6).up = False
    world.every(20.0, world.now + 1, lambda: world.keep_alive(a, b))
    world.at(world.now + 0.3, lambda: a.send_quic(b))
    world.run(0.3 + 2.0)
    assert active(a, b) not in {used, "none"}


def test_heartbeats_under_traffic_are_few() -> None:
    """A minute of traffic on a healthy network costs a ping and pong per path and heartbeat, and no path is doubted."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 60.0)
    world.run(60)
    paths, ways = 2, 2
    assert world.disco_sent <= paths * ways * 2 * (60 / rules.HEARTBEAT + 4)
    assert len(a.of(PathSelected)) == 1
    assert max(a.quic_copies.values()) == sum(a.quic_copies.values())


def test_the_faster_path_wins_but_not_by_a_hair() -> None:
    """A path 1 ms faster does not replace the one in use; one 30 ms faster does, once."""
    for slower, switches in ((0.0005, False), (0.015, True)):
        world = World()
        world.v4, world.v6 = Link(delay=0.010 + slower), Link(delay=0.010, up=False)
        a, b = pair(world)
        a.tell(b)
        world.traffic(a, b, 20.0)
        world.run(1)
        assert active(a, b) == "v4"
        world.v6.up = True
        a.tell(b)
        world.run(19)
        assert active(a, b) == ("v6" if switches else "v4")
        assert len(a.of(PathSelected)) == (2 if switches else 1)


def test_ipv6_is_preferred_within_three_milliseconds() -> None:
    """Of two paths found at the same time, IPv6 wins although it is 2 ms slower."""
    world = World()
    world.v4, world.v6 = Link(delay=0.030), Link(delay=0.0275)
    a, b = pair(world)
    a.tell(b)
    world.run(2)
    assert active(a, b) == "v6"
    world = World()
    world.v4, world.v6 = Link(delay=0.010), Link(delay=0.040)
    a, b = pair(world)
    a.tell(b)
    world.run(2)
    assert active(a, b) == "v4"


def test_both_ends_come_to_use_one_path() -> None:
    """Where two paths are equally good and the ends began on different ones, one follows, once, and nobody doubts."""
    world = World()
    world.v4 = world.v6 = Link(delay=0.05)
    a, b = pair(world)
    a.tell(b)
    world.run(1)
    for node, peer, ipv6 in ((a, b, True), (b, a, False)):
        remote = node.remotes[peer.id]
        other = next(state for state in remote.paths.values() if state.ipv6 is ipv6)
        if remote.active is not other:
            remote._switch(other, "test", world.now)
        node.pump()
        node.events.clear()
    world.traffic(a, b, 20.0)
    world.run(20)
    assert active(a, b) == active(b, a)
    assert [e.why for e in a.of(PathSelected) + b.of(PathSelected)] == ["the peer uses it"]  # type: ignore[attr-defined]
    follower = a if a.of(PathSelected) else b
    other = b if follower is a else a
    assert follower.id.raw > other.id.raw
    assert len(follower.quic_copies) == 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("delay", [0.001, 0.05, 0.15])
def test_a_path_silent_under_traffic_is_left_within_two_seconds(seed: int, delay: float) -> None:
    """When the path in use dies, the other carries traffic within 2 s; no packet is missed for longer."""
    world = World(seed)
    world.v4 = Link(delay=delay, loss=0.02, jitter=0.005)
    world.v6 = Link(delay=delay + 0.02, loss=0.02, jitter=0.005)
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 30.0)
    world.run(5)
    assert active(a, b) == active(b, a) == "v4"
    cut = world.now
    world.v4.up = False
    world.run(5)
    for here, there in ((a, b), (b, a)):
        selected = [e for e in here.of(PathSelected) if e.at > cut]
        assert len(selected) == 1
        assert selected[0].at - cut < 2.0
        assert ":" in str(selected[0].path)
        assert [e.path for e in here.of(PathLost)] == [next(iter(there.addrs.values()))]
        assert gaps(here.quic_got, cut, world.now) < 2.0
    # Back again, it is proven anew but wins only by the ordinary rule.
    world.v4.up = True
    world.run(20)
    assert [e for e in a.of(PathProven) if e.at > cut]
    assert active(a, b) == "v4"
    assert len(a.of(PathSelected)) <= 3


def test_traffic_goes_down_both_paths_while_in_doubt() -> None:
    """Before the verdict the packets already travel on the other path too."""
    world = World()
    world.v6.delay = 0.02
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 20.0)
    world.run(3)
    world.v4.up = False
    cut = world.now
    world.run(5)
    verdict = next(e.at for e in a.of(PathSelected) if e.at > cut)
    assert any(cut < at < verdict for at in b.quic_got)


def test_an_outage_of_everything_ends_with_a_word() -> None:
    """After 20 s without any path, traffic resumes within about a second and the driver is told how long it was."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 60.0)
    world.run(5)
    world.v4.up = world.v6.up = False
    world.run(20)
    assert a.remotes[b.id].usable()
    world.v4.up = world.v6.up = True
    back = world.now
    world.run(3)
    restored = [event for event in a.of(PathRestored) if event.silent_for > 1]  # type: ignore[attr-defined]
    assert len(restored) == 1
    assert restored[0].at - back < 1.5
    assert 18 < restored[0].silent_for < 22  # type: ignore[attr-defined]
    assert gaps(b.quic_got, back, world.now) < 1.5


def test_an_outage_is_not_searched_for_ever() -> None:
    """A peer that is gone for good gets no more pings when the outage has lasted its time."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 5.0)
    world.run(5)
    world.v4.up = world.v6.up = False
    world.every(3.0, world.now + 60, lambda: a.send_quic(b))
    world.run(rules.OUTAGE + 60)
    before = sum(world.sent.values())
    world.run(600)
    assert sum(world.sent.values()) == before


@pytest.mark.parametrize("only", ["v4", "both"])
def test_a_peer_behind_a_new_nat_mapping_is_followed(only: str) -> None:
    """When the peer's address changes under traffic, the new one is pinged at once and followed in half a second."""
    world = World()
    world.v6.up = only == "both"
    world.v6.delay = 0.1
    a, b = pair(world)
    a.tell(b)
    world.traffic(a, b, 20.0)
    world.run(5)
    moved_at = world.now
    v4 = a.addrs[next(iter(a.addrs))]
    a.addrs[v4.family] = type(v4)("192.0.2.77", 7777)
    world.run(3)
    selected = [e for e in b.of(PathSelected) if e.at > moved_at]
    assert str(selected[0].path) == "192.0.2.77:7777"
    assert selected[0].at - moved_at < 0.6
    assert gaps(a.quic_got, moved_at, world.now) < 0.6


def test_direct_before_relay_and_back() -> None:
    """A relay carries traffic until a direct path is proven, takes over within 2 s when that dies, and yields again."""
    world = World()
    world.v6.up = False
    world.v4.delay = 0.2
    a, b = pair(world)
    a.remotes[b.id].add(b.relay(), "caller", world.now, given=True)
    world.traffic(a, b, 60.0)
    world.run(2)
    assert active(a, b) == active(b, a) == "relay"
    a.tell(b)
    world.run(3)
    assert active(a, b) == active(b, a) == "v4"
    world.v4.up = False
    cut = world.now
    world.run(5)
    assert active(a, b) == active(b, a) == "relay"
    assert gaps(a.quic_got, cut, world.now) < 2.0
    world.v4.up = True
    world.run(20)
    assert active(a, b) == "v4"


@pytest.mark.parametrize("seed", range(4))
def test_call_me_maybe_brings_private_addresses_over_a_relay(seed: int) -> None:
    """Candidates that were never published, told sealed through a relay that loses a third, lead to a direct path."""
    world = World(seed)
    world.relay.loss = 0.33
    a = world.node("a", "192.168.1.10:1000")
    b = world.node("b", "192.168.1.11:2000")
    a.hold(b)
    b.hold(a)
    a.core.set_own_candidates([*a.addrs.values()], world.now)
    b.core.set_own_candidates([*b.addrs.values()], world.now)
    a.remotes[b.id].add(b.relay(), "caller", world.now, given=True)
    a.tell(b, "192.168.1.11:2000")
    assert a.core.counters["candidate refused by the address filter"] == 1
    world.traffic(a, b, 20.0)
    world.run(20)
    assert active(a, b) == active(b, a) == "v4"


def test_call_me_maybe_is_sent_once_and_again_when_addresses_change() -> None:
    """A confirmed call-me-maybe is not repeated, new candidates are told at once, an unconfirmed one 4 times."""
    world = World()
    a, b = pair(world)
    own = list(a.addrs.values())
    size = 58 + 14 + 2 * 18 + 16
    a.core.set_own_candidates(own, world.now)
    a.tell(b)
    world.traffic(a, b, 90.0)
    world.run(30)
    assert world.sizes[size] == 1
    moved = type(own[0])("203.0.113.5", 555)
    a.core.set_own_candidates([moved, own[1]], world.now)
    world.run(1)
    assert moved in b.remotes[a.id].paths
    assert world.sizes[size] == 2
    world.v4.up = world.v6.up = False
    a.core.set_own_candidates(own, world.now)
    world.run(30)
    assert world.sizes[size] == 2 + len(CALL_RETRY)


def test_a_plugin_chooses_among_proven_paths() -> None:
    """A path selector's choice is used; None leaves it to the rule, and what it makes up is ignored."""
    world = World()
    world.v6.delay = 0.05
    a, b = pair(world)
    wishes: list[str | None] = ["v6"]

    def select(node_id: NodeId, paths: Sequence[PathInfo]) -> PathInfo | None:
        assert node_id == b.id
        if wishes[0] is None:
            return None
        return next(info for info in paths if (":" in getattr(info.addr, "host", "")) == (wishes[0] == "v6"))

    a.core.selector = select
    a.tell(b)
    world.traffic(a, b, 60.0)
    world.run(2)
    assert active(a, b) == "v6"
    wishes[0] = None
    world.run(6)
    assert active(a, b) == "v4"


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_of_weather(seed: int) -> None:
    """Paths come and go for an hour: whenever one has been up for 4 s, traffic flows, and tables stay small."""
    world = World(seed)
    world.v4 = Link(delay=0.02, jitter=0.01, loss=0.03)
    world.v6 = Link(delay=0.03, jitter=0.01, loss=0.03)
    a, b = pair(world)
    a.tell(b)
    b.tell(a)
    world.traffic(a, b, 1200.0, interval=0.1)
    world.run(5)
    good_since = world.now
    for _ in range(120):
        flip = world.rng.choice([world.v4, world.v6])
        flip.up = not flip.up
        if not (world.v4.up or world.v6.up):
            good_since = float("inf")
        elif good_since == float("inf"):
            good_since = world.now
        start = world.now
        world.run(world.rng.choice([3.0, 8.0, 15.0]))
        if good_since < float("inf"):
            end = world.now
            # From the moment a path is there, at most the search interval and the verdict pass.
            if end - start > 7:
                assert gaps(b.quic_got, start + 6.0, end) < 1.0, (seed, start)
    assert len(a.remotes[b.id].paths) <= 4
    assert len(a.of(PathAdded)) <= 4
