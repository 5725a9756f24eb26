"""Two nodes behind simulated NATs, connected by a relay, and how fast they get a direct path."""

from __future__ import annotations

import pytest

from tests.sim.punchworld import PunchNode, World
from tom_connect.holepunch import core as core_module
from tom_connect.holepunch import puncher
from tom_connect.holepunch.disco import CallMeMaybe, Mapping, encode_message
from tom_connect.holepunch.path import RelayPath
from tom_connect.testing.fakenet import FakeNet, Firewall, Link, Nat

TRAP = Nat(tracks_unsolicited=True)
KINDS = {"none": None, "open": Nat.OPEN, "restricted": Nat.RESTRICTED, "moderate": Nat.MODERATE, "trap": TRAP}
ALL = {**KINDS, "strict": Nat.STRICT}


def homes(world: World, one: Nat | None, two: Nat | None, **wire: float) -> tuple[PunchNode, PunchNode]:
    """A node in each of two homes."""
    a = world.node("a", world.home("one", one, Link(**wire)))
    b = world.node("b", world.home("two", two, Link(**wire)))
    return a, b


def dial(a: PunchNode, b: PunchNode, seconds: float = 20.0) -> float:
    """Dial and talk for so long; returns when that began."""
    start = a.net.now
    a.dial(b)
    a.talk(b, seconds)
    a.net.advance(seconds)
    return start


@pytest.mark.parametrize("one", ALL)
@pytest.mark.parametrize("two", ALL)
def test_every_pair_that_can_be_punched_is_direct_in_two_round_trips_more(one: str, two: str) -> None:
    """With 10 ms wires the relay connects within 120 ms, and all are direct within 300 but pairs with a strict NAT.

    Those are where the other NAT lets in any port of an address; the rest is for port probing.
    """
    a, b = homes(World.make(), ALL[one], ALL[two], delay=0.010)
    start = dial(a, b, 10.0)
    assert a.connected_at[b.id] - start <= 0.120
    if "strict" not in (one, two) or {one, two} & {"none", "open", "restricted"}:
        assert a.direct_at(b) - start <= 0.300
        assert b.direct_at(a) - start <= 0.300


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("one", ["moderate", "trap"])
def test_bad_wires_delay_a_direct_path_but_prevent_none(seed: int, one: str) -> None:
    """With 10% loss, jitter that reorders and doubled packets, both ends are direct within seconds."""
    wire = {"delay": 0.01, "jitter": 0.02, "loss": 0.05, "duplicate": 0.05}
    a, b = homes(World.make(seed), KINDS[one], Nat.MODERATE, **wire)
    a.dial(b)
    a.talk(b, 60.0)
    a.net.advance(60.0)
    assert a.kind(b) == b.kind(a) == "direct"
    assert a.direct_at(b) - a.connected_at[b.id] < 5.0


@pytest.mark.parametrize("opens", [True, False])
def test_a_router_that_remembers_unsolicited_packets_is_no_trap(opens: bool) -> None:
    """Opening first gets through at once; without it the first knock spoils the whole round."""
    world = World.make()
    a = world.node("a", world.home("one", Nat.MODERATE, Link(delay=0.01)), opens=opens)
    b = world.node("b", world.home("two", TRAP, Link(delay=0.01)), opens=opens)
    start = dial(a, b, puncher.ROUNDS[0] / 2)
    if opens:
        assert a.direct_at(b) - start < 0.3
    assert a.kind(b) == b.kind(a) == ("direct" if opens else "relay")


@pytest.mark.parametrize("seed", range(10))
def test_both_may_dial_at_once(seed: int) -> None:
    """When each dials the other at about the same time, both have a direct path soon, through routers with the trap."""
    world = World.make(seed)
    a, b = homes(world, TRAP, TRAP, delay=0.01, jitter=0.005)
    start = world.net.now
    a.dial(b)
    world.net.at(start + world.net.rng.random() * 0.1, lambda: b.dial(a))
    a.talk(b, 90.0)
    world.net.advance(90.0)
    assert a.kind(b) == b.kind(a) == "direct"
    assert max(a.direct_at(b), b.direct_at(a)) - start < 2 * puncher.ROUNDS[0]


def test_a_dead_relay_delays_a_public_node_by_half_a_second() -> None:
    """A record with a relay that does not answer: the direct address of a public node is still found in a second."""
    world = World.make()
    a, b = homes(world, Nat.MODERATE, None, delay=0.01)
    world.relay.kill()
    a.dial(b)
    start = world.net.now
    world.net.advance(1.0)
    assert a.direct_at(b) - start < 1.0


def test_an_address_that_the_caller_gave_is_asked_in_full_at_once() -> None:
    """No opening stands between a dial and the public node whose address and relay the caller gave."""
    world = World.make()
    a, b = homes(world, Nat.MODERATE, None, delay=0.01)
    start = world.net.now
    remote = a.dial(b, record=False)
    a.core.add_candidates(remote, [b.seen_at[0]], "caller", a.now, trusted=True)
    a.pump()
    world.net.advance(0.05)
    assert a.direct_at(b) - start < 0.03


def test_hosts_in_one_lan_meet_there() -> None:
    """Two hosts behind one router without hairpinning are direct at once, by private addresses told sealed."""
    world = World.make()
    home = world.home("one", Nat.MODERATE, Link(delay=0.01))
    a, b = world.node("a", home), world.node("b", home)
    start = dial(a, b)
    assert a.direct_at(b) - start < 0.2
    active = a.remotes[b.id].active
    assert active is not None
    assert str(active.path) == str(b.host.addr(b.socket.port))


def test_one_carrier_with_hairpinning() -> None:
    """Two homes behind one carrier's NAT, which passes packets between its outside addresses, are direct."""
    world = World.make()
    carrier = world.net.router("carrier", Nat(hairpin=True), link=Link(delay=0.01))
    homes = [world.net.router(name, Nat.MODERATE, behind=carrier) for name in ("one", "two")]
    a, b = (world.node(name, home) for name, home in zip("ab", homes, strict=True))
    dial(a, b)
    assert a.kind(b) == b.kind(a) == "direct"


def test_two_carriers() -> None:
    """Each home behind a carrier's NAT of its own: the openings die before the carriers, and the knocks still meet."""
    world = World.make()
    nodes = []
    for name in "ab":
        carrier = world.net.router(f"carrier {name}", Nat.MODERATE, link=Link(delay=0.01))
        nodes.append(world.node(name, world.net.router(f"home {name}", Nat.MODERATE, behind=carrier)))
    a, b = nodes
    start = dial(a, b)
    assert a.direct_at(b) - start < 1.0
    assert b.direct_at(a) - start < 1.0


@pytest.mark.parametrize("known", [True, False])
def test_two_carriers_with_the_trap(known: bool) -> None:
    """Carriers' routers that remember what they refuse are opened in time where they are known of; else the first round
    is spoiled, and the second one opens further."""
    for seed in range(8):
        world = World.make(seed)
        nodes = []
        for name in "ab":
            carrier = world.net.router(f"carrier {name}", TRAP, link=Link(delay=0.01))
            nodes.append(world.node(name, world.net.router(f"home {name}", Nat.MODERATE, behind=carrier)))
            if known:
                nodes[-1].core.set_own_nat(Mapping.INDEPENDENT, nodes[-1].seen_at[0], world.net.now, carrier=True)
        a, b = nodes
        start = dial(a, b, 60.0)
        took = max(a.direct_at(b), b.direct_at(a)) - start
        assert took < (0.5 if known else 1.1 * puncher.ROUNDS[0] + 5.0)


def test_ipv6_behind_firewalls() -> None:
    """Where only IPv6 is common and both firewalls let in answers alone, both knock at once and are direct."""
    world = World.make()
    a, b = (
        world.node(name, world.net.router(name * 2, Nat.STRICT, ipv6=Firewall(), link=Link(delay=0.01)))
        for name in "ab"
    )
    start = dial(a, b)
    assert a.direct_at(b) - start < 0.3
    active = a.remotes[b.id].active
    assert active is not None
    assert active.ipv6


def test_mixed_families_stay_relayed_without_noise() -> None:
    """A node with IPv4 alone and one with IPv6 alone stay relayed, and hardly a packet is sent for it."""
    world = World.make()
    a = world.node("a", world.net.router("one", Nat.MODERATE, link=Link(delay=0.01)))
    b = world.node("b", world.net.router("two", None, ipv4=False, ipv6=Firewall(), link=Link(delay=0.01)))
    world.net.advance(1.0)
    sent = world.net.counters["sent"]
    dial(a, b, 60.0)
    assert a.kind(b) == b.kind(a) == "relay"
    assert world.net.counters["sent"] - sent < 100


def test_a_new_candidate_of_either_end_starts_a_round_at_once() -> None:
    """A pair that stays relayed for lack of an address is direct as soon as one end learns one."""
    for who in (0, 1):
        world = World.make()
        pair = homes(world, Nat.MODERATE, Nat.MODERATE, delay=0.01)
        late = pair[who]
        late.core.set_own_candidates([], late.now, (world.relay.url,))
        a, b = pair
        a.dial(b, record=False)
        a.talk(b, 30.0)
        world.net.advance(10.0)
        assert a.kind(b) == "relay"
        at = world.net.now
        late.offer()
        world.net.advance(5.0)
        assert max(a.direct_at(b), b.direct_at(a)) - at < 0.5


def test_rounds_grow_rare_while_nothing_helps_and_end_with_the_traffic() -> None:
    """An hour of a pair that can't be punched costs few packets a minute; without traffic there is none at all."""
    world = World.make()
    a, b = homes(world, Nat.STRICT, Nat.STRICT, delay=0.01)
    a.dial(b)
    a.talk(b, 3600.0)
    world.net.advance(60.0)
    sent = world.net.counters["sent"]
    world.net.advance(3540.0)
    rounds = 3540 / puncher.ROUNDS[-1] + len(puncher.ROUNDS)
    assert world.net.counters["sent"] - sent < rounds * 2 * 3 * 12
    world.net.advance(60.0)
    sent, passed = world.net.counters["sent"], world.relay.passed
    world.net.advance(3600.0)
    assert (world.net.counters["sent"], world.relay.passed) == (sent, passed)


def test_rounds_end_when_a_direct_path_is_there() -> None:
    """A direct connection makes neither calls nor rounds."""
    world = World.make()
    a, b = homes(world, Nat.MODERATE, Nat.MODERATE, delay=0.01)
    a.dial(b)
    a.talk(b, 1800.0)
    world.net.advance(30.0)
    passed = world.relay.passed
    world.net.advance(1770.0)
    heartbeats = 2 * 2 * 1770 / 5
    assert world.relay.passed - passed <= heartbeats * 1.2
    assert a.kind(b) == "direct"


@pytest.mark.parametrize("new_ports", [False, True])
def test_after_a_path_is_lost_a_round_begins_at_once(new_ports: bool) -> None:
    """When a router forgets its mappings under traffic, the pair is direct again within seconds."""
    world = World.make()
    home = world.net.router("one", Nat.MODERATE, link=Link(delay=0.01))
    a = world.node("a", home)
    b = world.node("b", world.home("two", Nat.MODERATE, Link(delay=0.01)))
    a.dial(b)
    a.talk(b, 60.0)
    world.net.advance(10.0)
    home.rebind(new_ports=new_ports)
    world.net.advance(3.0)
    assert a.kind(b) == "relay" or not new_ports
    # What the network report does when a path was lost.
    a.ask_mirrors()
    world.net.advance(1.0)
    a.offer()
    world.net.advance(3.0)
    assert a.kind(b) == b.kind(a) == "direct"


def test_a_call_that_comes_before_the_handshake_is_done_is_not_lost() -> None:
    """A stranger's call is kept, unanswered, and acted upon in the moment in which its key is proven."""
    world = World.make()
    a, b = homes(world, Nat.MODERATE, Nat.MODERATE, delay=0.01)
    b.accepting = False
    a.dial(b)
    world.net.advance(0.2)
    assert list(b.core._held) == [a.id]
    assert a.id not in b.remotes
    b.receive(b"\x42" + a.id.raw, RelayPath(world.relay.url, a.id))
    world.net.advance(0.3)
    assert not b.core._held
    assert a.kind(b) == b.kind(a) == "direct"


def test_calls_of_strangers_are_bounded() -> None:
    """A thousand strangers that call leave a bounded table, no answer and no ping."""
    world = World.make()
    a = world.node("a", None)
    for i in range(core_module.HELD_CALLS + 50):
        stranger = core_module.DiscoCore(core_module.SecretKey(i.to_bytes(32, "big")))
        call = CallMeMaybe(bytes(12), (world.mirrors[0].addr,))
        packet, _stamp = stranger.sealer.seal(a.id, encode_message(call))
        a.core.receive(packet, RelayPath(world.relay.url, stranger.node_id), a.now + i)
    assert 0 < len(a.core._held) <= core_module.HELD_CALLS
    assert not [path for path, _data in a.core.outbox if path == world.mirrors[0].addr]


def test_an_end_that_never_calls_costs_its_peer_little() -> None:
    """A peer that answers no call with one of its own, and is published nowhere, is called and pinged rarely."""
    world = World.make()
    a, b = homes(world, Nat.MODERATE, Nat.MODERATE, delay=0.01)
    b.core._call = lambda *_args: None  # type: ignore[method-assign]
    sent = world.net.counters["sent"]
    a.dial(b, record=False)
    a.talk(b, 300.0)
    world.net.advance(300.0)
    assert a.kind(b) == b.kind(a) == "relay"
    assert world.net.counters["sent"] - sent < 200


def test_fake_net_is_the_same_for_one_seed() -> None:
    """Two runs with one seed end alike, to the last packet: what fails here can be looked into."""
    counters = []
    for _ in range(2):
        a, b = homes(World.make(5), Nat.MODERATE, TRAP, delay=0.01, loss=0.1, jitter=0.01)
        dial(a, b, 20.0)
        counters.append((dict(a.net.counters), a.direct_at(b), b.direct_at(a)))
    assert counters[0] == counters[1]
    assert isinstance(a.net, FakeNet)


def test_an_address_that_the_caller_gave_is_punched_in_rounds_like_others() -> None:
    """A given address behind a router with the trap: the dial's knock spoils its round, and the next one works."""
    world = World.make()
    a, b = homes(world, Nat.MODERATE, TRAP, delay=0.01)
    start = world.net.now
    remote = a.dial(b)
    a.core.add_candidates(remote, [b.seen_at[0]], "caller", a.now, trusted=True)
    a.pump()
    a.talk(b, 120.0)
    world.net.advance(120.0)
    assert a.kind(b) == b.kind(a) == "direct"
    assert a.direct_at(b) - start < 2 * puncher.ROUNDS[0]
