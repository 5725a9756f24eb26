"""What happens to networks while two nodes talk, one by one: how long traffic stops, on a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from tests.sim.nodes import STUN_PORT, Flow, Node, Stun
from tom_connect.abc import PathInfo
from tom_connect.holepunch.events import PathDoubted, PathSelected
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.keys import NodeId
from tom_connect.testing.fakenet import FakeNet, Host, Link, Nat
from tom_connect.testing.fakerelay import FakeRelay


class Pair:
    """Two nodes at home, and a café to which each may go, with a relay and a direct path between them."""

    def __init__(self, seed: int, delay: float = 0.010, loss: float = 0.0, jitter: float = 0.0) -> None:
        def link() -> Link:
            return Link(delay=delay / 2, loss=loss / 2, jitter=jitter)

        self.net = FakeNet(seed)
        self.relay = FakeRelay(self.net, link=Link(delay=0.001))
        stun = Stun(self.net)
        self.homes = [self.net.router(f"home {name}", Nat.MODERATE, link=link()) for name in "ab"]
        self.cafes = [self.net.router(f"cafe {name}", Nat.MODERATE, link=link()) for name in "ab"]
        self.a, self.b = self.nodes = [
            Node(self.net.host(name, home), relays=[self.relay], stun=stun)
            for name, home in zip("ab", self.homes, strict=True)
        ]
        self.net.advance(2.0)
        self.flows: list[Flow] = [self.a.connect(self.b), self.b.connect(self.a)]

    def talk(self, seconds: float, interval: float = 0.05) -> None:
        for flow in self.flows:
            flow.busy(seconds, interval)

    def direct(self) -> list[bool]:
        return [flow.remote.active is not None and flow.remote.active.direct for flow in self.flows]

    def gap(self, flow: Flow, since: float) -> float:
        marks = [since, *(at for at in flow.arrivals if at >= since), self.net.now]
        return max(later - earlier for earlier, later in itertools.pairwise(marks))


@pytest.mark.parametrize("dead", ["both", "a", "b"])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("delay", [0.001, 0.010, 0.050, 0.100, 0.200])
def test_a_direct_path_that_goes_silent_is_left_in_time(delay: float, loss: float, dead: str) -> None:
    """At every delay and loss, whichever direction dies: the relay is asked, doubled on and switched to in time.

    The end that hears nothing asks within half a second of silence, at long round trips somewhat later. The other end
    learns it from that one. Neither misses data for longer than 2 s.
    """
    trip = 2 * delay
    for seed in range(2):
        pair = Pair(seed, delay, loss, jitter=delay / 10)
        net = pair.net
        pair.talk(60.0)
        net.advance(20.0)
        if pair.direct() != [True, True]:
            assert loss == 0.1
            continue
        cut = net.now
        mute = {"both": pair.nodes, "a": [pair.a], "b": [pair.b]}[dead]
        hosts = [node.host for node in mute]
        net.censor = lambda host, dst, hosts=hosts: host in hosts and dst.port != STUN_PORT  # type: ignore[misc]
        first: dict[tuple[str, int], float] = {}
        for node in pair.nodes:
            watch(node, first, cut)
            node.events.clear()
        net.advance(8.0)
        for node, peer, flow in zip(pair.nodes, reversed(pair.nodes), pair.flows, strict=False):
            deaf = peer in mute
            selected = next(e for e in node.events if isinstance(e, PathSelected) and isinstance(e.path, RelayPath))
            lossy = 1.0 if loss else 0.0
            if deaf:
                # What was on its way arrives until one delay after the cut.
                assert first[node.host.name, 0x04] <= delay + max(0.5, 1.25 * trip) + 0.1 + lossy
                assert first[node.host.name, 0x40] <= delay + 1.0 + lossy
            assert selected.at - cut <= 2.0 + lossy
            assert pair.gap(flow, cut) <= 1.5 + lossy


def watch(node: Node, first: dict[tuple[str, int], float], since: float) -> None:
    """Note when a node first sends a disco packet (4) and a QUIC packet (0x40) through a relay."""
    carry = node.carry

    def carried(path: Path, data: bytes) -> None:
        if isinstance(path, RelayPath):
            first.setdefault((node.host.name, data[0]), node.net.now - since)
        carry(path, data)

    node.carry = carried  # type: ignore[method-assign]


def rebind(pair: Pair, side: int) -> float:
    pair.homes[side].rebind()
    return pair.net.now


def new_address(pair: Pair, side: int) -> float:
    pair.homes[side].new_address()
    return pair.net.now


def move(pair: Pair, side: int) -> float:
    pair.nodes[side].host.move(pair.cafes[side])
    pair.nodes[side].noticed()
    return pair.net.now


def flap(pair: Pair, side: int) -> float:
    link, node, back = pair.nodes[side].host.link, pair.nodes[side], pair.net.now + 2.0
    link.up = False
    node.noticed()
    pair.net.at(back, lambda: (setattr(link, "up", True), node.noticed()))  # type: ignore[func-returns-value]
    return back


def silent_flap(pair: Pair, side: int) -> float:
    """Beyond the router, so that the host is not told."""
    link, back = pair.homes[side].link, pair.net.now + 2.0
    link.up = False
    pair.net.at(back, lambda: setattr(link, "up", True))
    return back


def block_udp(pair: Pair, side: int) -> float:
    pair.homes[side].block_udp = True
    return pair.net.now


def kill_relay(pair: Pair, _side: int) -> float:
    pair.relay.kill()
    return pair.net.now


def sleep(pair: Pair, side: int) -> float:
    node, back = pair.nodes[side], pair.net.now + 60.0
    node.host.sleep()
    pair.net.at(back, lambda: (node.host.wake(), node.noticed()))
    return back


def sleep_unnoticed(pair: Pair, side: int) -> float:
    """Nobody tells the node, and its clock has counted the sleep."""
    host, back = pair.nodes[side].host, pair.net.now + 60.0
    host.sleep()
    pair.net.at(back, lambda: host.wake(clock_stood=False))
    return back


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)], ids=["dialer", "listener", "both"])
@pytest.mark.parametrize(
    "change",
    [rebind, new_address, move, flap, silent_flap, block_udp, kill_relay, sleep, sleep_unnoticed],
)
def test_traffic_is_back_within_two_seconds(change: Callable[[Pair, int], float], sides: tuple[int, ...]) -> None:
    """Two seconds after connectivity has returned both ends get data again, without another pause."""
    for seed in range(4):
        pair = Pair(seed)
        pair.talk(150.0)
        pair.net.advance(10.0 + pair.net.rng.random())
        assert pair.direct() == [True, True]
        back = max(change(pair, side) for side in sides)
        pair.net.advance(back - pair.net.now + 15.0)
        for flow in pair.flows:
            assert pair.gap(flow, back) <= 2.0, (seed, flow.node.host.name)


def test_a_direct_path_comes_back_after_every_change() -> None:
    """Some time after a rebinding, a new address or a move the traffic is direct again at both ends."""
    for change in (rebind, new_address, move, flap, sleep):
        pair = Pair(1)
        pair.talk(200.0)
        pair.net.advance(10.0)
        back = change(pair, 0)
        pair.net.advance(back - pair.net.now + 60.0)
        assert pair.direct() == [True, True], change.__name__


@pytest.mark.parametrize("change", [rebind, new_address])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("delay", [0.010, 0.100])
def test_a_nat_that_has_forgotten_is_punched_again_at_once(
    change: Callable[[Pair, int], float], side: int, delay: float
) -> None:
    """Whoever loses a direct path asks where it is seen now, so both ends know it in the round that begins then."""
    for seed in range(3):
        pair = Pair(seed, delay)
        pair.talk(60.0)
        pair.net.advance(10.0 + 3 * seed)  # so that the next look at our address is not due just then
        assert pair.direct() == [True, True]
        change(pair, side)
        pair.net.advance(5.0)
        assert pair.direct() == [True, True], seed


def test_sparse_messages_raise_no_doubt() -> None:
    """A message a second that one end sends and the other only acknowledges: no doubt, no doubling, for minutes."""
    pair = Pair(3)
    pair.flows[0].busy(330.0, 1.0)
    pair.net.advance(30.0)
    assert pair.direct() == [True, True]
    for node in pair.nodes:
        node.events.clear()
        node.sent.clear()
    pair.net.advance(299.0)
    for node in pair.nodes:
        assert [event for event in node.events if isinstance(event, PathDoubted)] == []
        assert node.sent["relayed quic"] == 0


def test_traffic_after_a_long_pause_begins_on_two_paths() -> None:
    """NATs forget in a pause; the first packets go down the relay as well, so that none has to wait."""
    pair = Pair(4)
    pair.talk(10.0)
    pair.net.advance(10.0)
    assert pair.direct() == [True, True]
    pair.net.advance(200.0)
    start = pair.net.now
    pair.talk(5.0)
    pair.net.advance(5.0)
    for flow in pair.flows:
        assert pair.gap(flow, start) < 0.3


def test_a_peer_that_answers_pings_and_no_packets_costs_little() -> None:
    """Where the other end's connection is gone, its pongs calm each doubt, and doubts grow rarer."""
    pair = Pair(5)
    pair.talk(10.0)
    pair.net.advance(20.0)
    pair.flows[1].over = True
    sent = sum(pair.a.sent.values())
    pair.flows[0].busy(1.0, 0.5)
    pair.net.advance(60.0)
    assert sum(pair.a.sent.values()) - sent < 250


def test_a_selector_sees_every_proven_path_and_wins() -> None:
    """A plugin that prefers relays is shown direct and relay paths with all that is known of them, and is obeyed."""
    pair = Pair(6)
    shown: set[str] = set()

    def select(_node: NodeId, paths: Sequence[PathInfo]) -> PathInfo | None:
        shown.update(path.kind for path in paths)
        assert all(path.proven and path.source for path in paths)
        assert sum(path.active for path in paths) <= 1
        return next((path for path in paths if path.kind == "relay"), None)

    pair.a.core.selector = select
    pair.talk(60.0)
    pair.net.advance(30.0)
    assert shown == {"direct", "relay"}
    assert pair.direct()[0] is False
    active = next(info for info in pair.flows[0].remote.infos(pair.a.host.now()) if info.active)
    assert active.kind == "relay"
    pair.a.core.selector = None
    pair.net.advance(10.0)
    assert pair.direct() == [True, True]


def test_infos_tell_what_happened_on_each_path() -> None:
    """Loss, source and the reason of each path are told, and switches and outages are counted."""
    pair = Pair(7)
    pair.talk(60.0)
    pair.net.advance(20.0)
    remote = pair.flows[0].remote
    infos = {info.kind: info for info in remote.infos(pair.a.host.now()) if info.proven}
    assert infos["direct"].active and infos["direct"].why == "direct"
    assert infos["relay"].why == "answers, another one is used"
    assert infos["direct"].loss == infos["relay"].loss == 0.0
    assert infos["direct"].bytes_received > 0
    assert pair.a.core.why_relayed(remote, pair.a.host.now()) is None
    before = remote.switches
    host: Host = pair.b.host
    pair.net.censor = lambda sender, dst: sender is host and dst.port != STUN_PORT
    pair.net.advance(10.0)
    assert remote.switches == before + 1
    lost = next(i for i in remote.infos(pair.a.host.now()) if i.addr == infos["direct"].addr)
    assert not lost.proven
    assert lost.loss is not None and lost.loss > 0.2
    assert pair.a.core.why_relayed(remote, pair.a.host.now()) in ("punching", "punching_failed")
