"""Port probing between simulated NATs: what it reaches, what it costs, and whom nobody can aim it at."""

from __future__ import annotations

from collections import Counter
from math import inf
from statistics import median

import pytest

from tests.sim.punchworld import PunchNode, World
from tests.sim.test_punching import TRAP, dial, homes
from tom_connect.addr import SocketAddr
from tom_connect.holepunch import ports
from tom_connect.holepunch.disco import Mapping, Ping, PortProbing, PortStep, encode_message
from tom_connect.holepunch.path import RelayPath, ViaSocket
from tom_connect.testing.fakenat import Depends
from tom_connect.testing.fakenet import Host, Link, Nat

STRICT_TRAP = Nat(mapping=Depends.ADDRESS_AND_PORT, preserve=False, tracks_unsolicited=True)


def seconds_to_direct(world: World, one: Nat, two: Nat, **wire: float) -> float:
    a, b = homes(world, one, two, **wire)
    start = dial(a, b, 16.0)
    return max(a.direct_at(b), b.direct_at(a)) - start


@pytest.mark.parametrize("pair", [(Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE)], ids=["easy", "hard"])
def test_nearly_every_pair_is_direct_within_15_seconds(pair: tuple[Nat, Nat]) -> None:
    """Of 60 dials of each end at least 59 are direct within 15 s, with a median below 2 s."""
    times = [seconds_to_direct(World.make(seed), *pair, delay=0.01) for seed in range(60)]
    assert sum(time > 15.0 for time in times) <= 1
    assert median(times) < 2.0


def test_routers_with_the_trap_are_no_hindrance() -> None:
    """Where either router remembers unsolicited packets, nearly all dials are direct within 15 s all the same."""
    times = [seconds_to_direct(World.make(seed), TRAP, STRICT_TRAP, delay=0.01) for seed in range(30)]
    assert sum(time > 15.0 for time in times) <= 1


def test_bad_wires_make_it_slower_at_most() -> None:
    """With 5% loss each way on both wires, nearly all dials are direct within 15 s."""
    wire = {"delay": 0.02, "jitter": 0.01, "loss": 0.05}
    times = [seconds_to_direct(World.make(seed), Nat.MODERATE, Nat.STRICT, **wire) for seed in range(30)]
    assert sum(time > 15.0 for time in times) <= 2


@pytest.mark.parametrize("inner", [1, 2, 4])
def test_a_strict_nat_far_away_is_opened_too(inner: int) -> None:
    """Through a carrier's strict NAT some of the first openings get, and most dials are direct within 15 s. Where even
    those die before it, openings in full follow soon."""
    times = []
    for seed in range(20):
        world = World.make(seed)
        router = world.net.router("carrier", Nat.STRICT, link=Link(delay=0.01))
        for number in range(inner):
            router = world.net.router(f"inner {number}", Nat.MODERATE, behind=router)
        hard = world.node("a", router)
        easy = world.node("b", world.home("two", Nat.MODERATE, Link(delay=0.01)))
        start = dial(hard, easy, 16.0)
        times.append(hard.direct_at(easy) - start)
    assert sum(time > 15.0 for time in times) <= 2
    reached = inner + 2 <= max(ports.OPENING_TTLS)
    assert median(times) < 2.0 if reached else median(times) > ports.FULL_OPENINGS[0]


def test_only_the_socket_that_won_stays_open() -> None:
    """After success one further socket is left, and traffic, heartbeats and a second NAT mapping all go through it."""
    world = World.make(3)
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    dial(a, b, 120.0)
    assert a.kind(b) == b.kind(a) == "direct"
    assert len(a.further) == 1
    active = a.remotes[b.id].active
    assert active is not None
    assert isinstance(active.path, ViaSocket)
    assert active.path.via in a.further
    assert a.core.why_relayed(a.remotes[b.id], a.now) is None
    assert not b.further


def test_the_socket_that_won_closes_when_its_path_is_gone() -> None:
    """When the hard end's router forgets the mapping, traffic goes by the relay, and another attempt makes a path."""
    world = World.make(3)
    strict = world.net.router("one", Nat.STRICT, link=Link(delay=0.01))
    a = world.node("a", strict)
    b = world.node("b", world.home("two", Nat.MODERATE, Link(delay=0.01)))
    a.dial(b)
    a.talk(b, 300.0)
    world.net.advance(15.0)
    assert a.kind(b) == "direct"
    won = set(a.further)
    strict.rebind()
    world.net.advance(5.0)
    assert a.kind(b) == b.kind(a) == "relay" or a.further.keys() - won
    world.net.advance(80.0)
    assert a.kind(b) == b.kind(a) == "direct"
    assert len(a.further) == 1
    assert not won & a.further.keys()


def test_no_socket_is_left_when_nobody_deals_with_the_node_any_more() -> None:
    """A node that is released in the middle of an attempt, or after one, leaves no socket."""
    for seconds in (0.7, 10.0):
        world = World.make(3)
        a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
        dial(a, b, seconds)
        assert a.further
        a.core.release(a.remotes[b.id], a.now)
        world.net.advance(61.0)
        a.core.tick(a.now)
        assert not a.further
        assert not a.core.ports.busy_with(b.id)


def test_a_program_near_its_limit_of_sockets_gets_by_with_fewer() -> None:
    """With 64 sockets attempts are made; with fewer than are worth it there is none, and the other end is told."""
    world = World.make(1)
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    a.max_sockets = 64
    dial(a, b, 3.0)
    assert a.kind(b) == "direct" or len(a.further) == 64
    world = World.make(1)
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    a.max_sockets = ports.FEWEST - 1
    sent = probes(b, "one")
    dial(a, b, 8.0)
    assert not a.further
    assert sent[0] < 0.2 * ports.RATE
    assert a.kind(b) == "relay"


# --- who can't be aimed at ------------------------------------------------------------------------------------


def packets_to(world: World) -> Counter[str]:
    """Counts the packets that hosts send, by the address that they go to, from now on."""
    sent: Counter[str] = Counter()
    send = world.net.send

    def counted(host: Host, data: bytes, src: SocketAddr, dst: SocketAddr, *, ttl: int = 64) -> None:
        sent[dst.host] += 1
        send(host, data, src, dst, ttl=ttl)

    world.net.send = counted  # type: ignore[method-assign]
    return sent


def probes(node: PunchNode, _router: str) -> list[int]:
    """Counts the pings of port probing that a node sends from now on."""
    count = [0]
    probe = node.core.ports_link.probe

    def counted(*args: object, **options: object) -> None:
        count[0] += 1
        probe(*args, **options)  # type: ignore[arg-type]

    node.core.ports_link.probe = counted  # type: ignore[method-assign]
    return count


def test_a_hard_end_that_names_a_victims_ip_gets_no_probe_sent_there() -> None:
    """An authentic peer that offers port probing at an IP that no relay attests is refused after a while."""
    world = World.make()
    liar, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    victim = world.net.host("victim")
    liar.core.set_own_nat(Mapping.DEPENDENT, victim.addr(1), liar.now)
    sent = packets_to(world)
    dial(liar, b, 120.0)
    assert sent[victim.v4 or ""] == 0
    assert b.kind(liar) == "relay"
    assert not b.core.ports.busy_with(liar.id)


def test_an_easy_end_that_names_a_victims_address_gets_no_opening_sent_there() -> None:
    """An authentic peer that accepts with an address that no relay attests makes us open no socket."""
    world = World.make()
    a, liar = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    victim = world.net.host("victim")
    liar.core.set_own_nat(Mapping.INDEPENDENT, victim.addr(443), liar.now)
    sent = packets_to(world)
    dial(a, liar, 60.0)
    assert sent[victim.v4 or ""] == 0
    assert not a.further


def test_a_made_up_source_address_attests_nothing() -> None:
    """An authentic ping that seems to come from the victim, then an offer to probe it: the victim gets a few pings."""
    world = World.make()
    liar, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    victim = world.net.host("victim")
    liar.core.set_own_nat(Mapping.DEPENDENT, victim.addr(1), liar.now)
    sent = packets_to(world)
    liar.dial(b)
    liar.talk(b, 30.0)
    world.net.advance(0.5)
    for _ in range(5):
        packet, _stamp = liar.core.sealer.seal(b.id, encode_message(Ping(world.net.rng.randbytes(12))))
        b.receive(packet, victim.addr(7777))
        world.net.advance(0.3)
    world.net.advance(30.0)
    assert 0 < sent[victim.v4 or ""] <= 20


def test_without_a_relay_that_attests_there_is_no_probing() -> None:
    """Where the relay says nothing, both ends stay relayed and nobody sends probes or openings."""
    world = World.make()
    world.attests = False
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    sent = probes(a, ""), probes(b, "")
    dial(a, b, 60.0)
    assert a.kind(b) == "relay"
    assert [count[0] for count in sent] == [0, 0]


def test_one_ip_gets_a_bounded_number_of_probes_over_all_peers() -> None:
    """Six peers behind one router, attested, whose attempts all fail: their IP gets its budget and no more."""
    world = World.make()
    home = world.home("one", Nat.STRICT, Link(delay=0.01))
    target = world.node("target", world.home("two", Nat.MODERATE, Link(delay=0.01)))
    liars = [world.node(f"liar{i}", home) for i in range(6)]
    sent = probes(target, "")
    for liar in liars:
        # It opens nothing, so that every attempt runs to its end.
        liar.max_sockets = 1000
        liar.open = lambda via, liar=liar: True  # type: ignore[method-assign, misc]
        liar.close = lambda via: None  # type: ignore[method-assign]
        liar.dial(target)
        liar.talk(target, 180.0)
    world.net.advance(180.0)
    assert ports.TARGET_BURST <= sent[0] <= ports.TARGET_BURST + 180 * ports.TARGET_RATE + 1


def test_a_flood_of_offers_is_answered_rarely_and_leaves_nothing() -> None:
    """A peer that makes a thousand offers is answered a few times, and the tables stay small."""
    world = World.make()
    liar, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    world.attests = False
    dial(liar, b, 2.0)
    passed = world.relay.passed
    questions: list[RelayPath] = []
    b.core.ports_link.attest = questions.append
    outer = liar.seen_at[0].host
    for i in range(1000):
        offer = PortProbing(i.to_bytes(12, "big"), PortStep.OFFER, SocketAddr(outer, 0))
        packet, _stamp = liar.core.sealer.seal(b.id, encode_message(offer))
        b.receive(packet, RelayPath(world.relay.url, liar.id))
        world.net.advance(0.01)  # in time too: a burst at one moment would be bounded by less
    world.net.advance(10.0)
    assert world.relay.passed - passed < 60
    assert len(questions) <= ports.OFFER_BURST + 20 * ports.OFFER_RATE + 3  # a call of its own may ask too
    assert not b.core.ports.busy_with(liar.id)


def test_offers_that_nobody_answers_end() -> None:
    """A peer that knows nothing of port probing gets a few offers an attempt, and no socket is opened."""
    world = World.make()
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    heard = Counter[PortStep]()

    def ignore(_node: object, message: PortProbing, _now: float, *, sendable: bool) -> None:
        heard[message.step] += 1

    b.core.ports.received = ignore  # type: ignore[method-assign, assignment]
    dial(a, b, 60.0)
    assert 0 < heard[PortStep.OFFER] <= 3 * len(ports.OFFER_RETRY)
    assert not a.further


@pytest.mark.parametrize("off", ["a", "b"])
def test_an_end_that_does_not_want_it_stops_both(off: str) -> None:
    """Switched off on either end there is no probe and no socket; the end that wants none says why it is relayed."""
    world = World.make()
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    unwilling = a if off == "a" else b
    unwilling.core.ports.enabled = False
    sent = probes(a, ""), probes(b, "")
    dial(a, b, 30.0)
    assert [count[0] for count in sent] == [0, 0]
    assert a.kind(b) == "relay"
    other = b if unwilling is a else a
    assert unwilling.core.why_relayed(unwilling.remotes[other.id], unwilling.now) == "port_probing_off"


def test_two_strict_ends_do_not_try() -> None:
    """Both NATs map by destination: nobody offers, and both know why they are relayed."""
    world = World.make()
    a, b = homes(world, Nat.STRICT, Nat.STRICT, delay=0.01)
    sent = probes(a, ""), probes(b, "")
    dial(a, b, 30.0)
    assert [count[0] for count in sent] == [0, 0]
    for one, two in ((a, b), (b, a)):
        assert one.core.why_relayed(one.remotes[two.id], one.now) == "symmetric_both"


def test_nothing_is_probed_where_ordinary_punching_succeeds() -> None:
    """A strict NAT against one that lets in any port of an address is direct without a single probe."""
    world = World.make()
    a, b = homes(world, Nat.STRICT, Nat.RESTRICTED, delay=0.05)
    sent = probes(a, ""), probes(b, "")
    start = dial(a, b, 10.0)
    assert a.direct_at(b) - start < inf
    assert [count[0] for count in sent] == [0, 0]


def test_why_a_connection_is_relayed() -> None:
    """The reason follows what happens: punching, port probing, no UDP, nothing to ask, a peer without disco, config."""
    world = World.make(11)
    a, b = homes(world, Nat.STRICT, Nat.MODERATE, delay=0.01)
    a.dial(b)
    a.talk(b, 600.0)
    reasons = []
    for _ in range(400):
        world.net.advance(0.005)
        why = a.core.why_relayed(a.remotes[b.id], a.now)
        if not reasons or reasons[-1] != why:
            reasons.append(why)
    assert reasons[:3] == [None, "punching", "port_probing"]

    world = World.make()
    a, b = homes(world, Nat.MODERATE, Nat.MODERATE, delay=0.01)
    for node in (a, b):
        node.core.set_own_candidates([], node.now, (world.relay.url,))
    a.dial(b, record=False)
    a.talk(b, 600.0)
    world.net.advance(30.0)
    remote = a.remotes[b.id]
    assert a.core.why_relayed(remote, a.now) == "no_candidates"
    a.core.set_own_nat(Mapping.UNKNOWN, None, a.now, blocked=True)
    assert a.core.why_relayed(remote, a.now) == "blocked_udp"
    a.core.direct = False
    assert a.core.why_relayed(remote, a.now) == "refused_by_config"
    a.core.direct, a.core.udp_blocked = True, False
    remote.speaks_disco = False
    assert a.core.why_relayed(remote, a.now) == "peer_without_disco"
