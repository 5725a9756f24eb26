"""Whom the prober asks, when, and what comes of it; on a virtual clock."""

from __future__ import annotations

import pytest

from tests.unit.netreport.natworld import INSIDE, PUBLIC, World, cone, stun, symmetric
from tom_connect.addr import SocketAddr
from tom_connect.netreport.observations import SERVER_TRUST, SUSPECT_TRUST
from tom_connect.netreport.prober import FIRST_RTO, MAX_TARGETS, REFRESH, REQUESTS
from tom_connect.netreport.report import Mapping

A, B, C = stun("a", 1), stun("b", 2), stun("c", 3)
LOCAL = [INSIDE]
GIVEN_UP = 5.0


def test_new_servers_are_asked_at_once() -> None:
    """Within a round trip the address is known, with the latency to each server."""
    world = World()
    world.prober.set_targets([A, B], world.now)
    assert not world.prober.settled
    world.run(0.2)
    assert world.prober.settled
    verdict = world.observations.verdict(4, LOCAL)
    assert verdict.confirmed == (cone(A.addr),)
    assert verdict.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert all(0.02 <= world.prober.rtts[target] <= 0.08 for target in (A, B))
    assert len(world.sent) == 2


def test_a_symmetric_nat_is_found_out() -> None:
    """Two servers see two ports."""
    world = World(mapping=symmetric)
    world.prober.set_targets([A, B], world.now)
    world.run(1.0)
    assert world.observations.verdict(4, LOCAL).mapping is Mapping.ENDPOINT_DEPENDENT


@pytest.mark.parametrize("seed", range(20))
def test_loss_costs_repetitions_alone(seed: int) -> None:
    """Over a network that loses a quarter each way the address is known within a round, or the next."""
    world = World(seed, loss=0.25)
    world.prober.set_targets([A, B, C], world.now)
    world.run(2 * REFRESH[1])
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(A.addr),)


def test_mappings_are_kept_while_in_use() -> None:
    """A server is asked again before a NAT forgets, one datagram each time, and never when nobody needs it."""
    world = World()
    world.prober.set_targets([A], world.now)
    world.run(300.0)
    gaps = [later - before for (before, _), (later, _) in zip(world.sent, world.sent[1:], strict=False)]
    assert REFRESH[0] <= min(gaps) and max(gaps) <= REFRESH[1]
    world.in_use = False
    world.run(30.0)
    count = len(world.sent)
    world.run(300.0)
    assert len(world.sent) == count


def test_what_is_not_confirmed_any_more_is_withdrawn() -> None:
    """A server that falls silent is believed for a while, given up, and heard again when it is back."""
    world = World()
    world.prober.set_targets([A], world.now)
    world.run(1.0)
    world.down.add(A.addr)
    world.run(30.0)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(A.addr),)
    assert A in world.prober.silent
    world.run(SERVER_TRUST)
    assert world.observations.verdict(4, LOCAL).reflexive == ()
    world.down.clear()
    world.run(REFRESH[1] + GIVEN_UP)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(A.addr),)


def test_a_silent_server_costs_a_few_datagrams() -> None:
    """It is asked with growing pauses, and then given up."""
    world = World()
    world.down.add(A.addr)
    world.prober.set_targets([A], world.now)
    world.run(GIVEN_UP)
    assert world.prober.settled and A in world.prober.silent
    assert len(world.sent) == REQUESTS
    assert world.sent[1][0] - world.sent[0][0] == pytest.approx(FIRST_RTO)


def test_a_changed_network_is_asked_about_at_once() -> None:
    """The old address is gone within seconds even if nobody answers any more; a new one takes its place at once."""
    world = World()
    world.prober.set_targets([A, B], world.now)
    world.run(1.0)
    world.mapping = lambda _dest: SocketAddr("198.51.100.7", 9)
    world.prober.network_changed(world.now)
    assert not world.prober.settled
    world.run(0.2)
    assert world.observations.verdict(4, LOCAL).confirmed == (SocketAddr("198.51.100.7", 9),)
    world.down |= {A.addr, B.addr}
    world.prober.network_changed(world.now)
    world.run(SUSPECT_TRUST + 0.1)
    assert world.observations.verdict(4, LOCAL).reflexive == ()


def test_one_changed_answer_makes_everybody_be_asked() -> None:
    """A NAT that was rebound is found at the next refresh, and no old word is left to contradict."""
    world = World()
    world.prober.set_targets([A, B, C], world.now)
    world.run(1.0)
    world.mapping = lambda _dest: SocketAddr(PUBLIC, 777)
    world.run(REFRESH[1] + 1.0)
    verdict = world.observations.verdict(4, LOCAL)
    assert (verdict.confirmed, verdict.reflexive) == ((SocketAddr(PUBLIC, 777),),) * 2


def test_a_server_that_lies_anew_each_time_keeps_nobody_busy() -> None:
    """Its changes start no more than one further round in five seconds, and it does not get its way."""
    world = World()
    world.prober.set_targets([A, B, C], world.now)
    world.run(1.0)
    before = len(world.sent)
    for step in range(300):
        world.lies[C.addr] = SocketAddr("198.51.100.66", 1 + step)
        world.run(1.0)
        assert world.observations.verdict(4, LOCAL).confirmed == (cone(A.addr),)
    assert len(world.sent) - before <= 3 * 300 / 5


def test_answers_from_elsewhere_count_for_nothing() -> None:
    """Neither another source nor another transaction is taken for an answer."""
    world = World()
    world.prober.set_targets([A], world.now)
    world.run(0.01)
    assert not world.prober.receive(bytes(32), A.addr, world.now)
    assert world.prober.counters["unexpected"] == 1
    assert world.observations.verdict(4, LOCAL).reflexive == ()


@pytest.mark.parametrize("hairpin", [True, False])
def test_hairpinning_is_found_out_once(hairpin: bool) -> None:
    """What we send to our own reflexive address comes back, or does not; that is asked once for an address."""
    world = World()
    world.hairpin = hairpin
    for _ in range(3):
        world.prober.check_hairpin(4, cone(A.addr), world.now)
        world.run(2.0)
    assert world.prober.hairpin(4) is hairpin
    assert world.prober.hairpin(6) is None
    assert 1 <= len(world.sent) <= 3


def test_more_about_a_server_changes_nothing_that_is_known() -> None:
    """A relay that has connected, and said which services it has, keeps its word, and is not asked again for that."""
    world = World()
    world.prober.set_targets([stun("a", 1, certain=False)], world.now)
    world.run(1.0)
    world.prober.set_targets([stun("a", 1, other=3479)], world.now)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(A.addr),)
    assert world.prober.settled
    world.run(1.0)
    assert len(world.sent) == 1
    assert world.prober.targets[0].server.certain
    world.prober.check_filtering(4, cone(A.addr), world.now)
    assert len(world.prober.take_outbox()) == 1


def test_targets_that_are_gone_have_no_say() -> None:
    """A relay that is not ours any more is not asked, and its word counts no more; the number of targets is bounded."""
    world = World()
    world.lies[B.addr] = SocketAddr("198.51.100.66", 1)
    world.prober.set_targets([A, B], world.now)
    world.run(1.0)
    assert world.observations.verdict(4, LOCAL).confirmed == ()
    world.prober.set_targets([A], world.now)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(A.addr),)
    world.prober.set_targets([], world.now)
    assert world.prober.get_timer() is None
    world.prober.set_targets([stun("x", n) for n in range(MAX_TARGETS + 9)], world.now)
    assert len(world.prober.targets) == MAX_TARGETS


@pytest.mark.parametrize("filtered", [True, False])
def test_a_server_shows_whether_the_nat_filters_by_port(filtered: bool) -> None:
    """Its other port, which was not sent to, reaches us or does not; that is asked once for an IP address of ours."""
    server = stun("o", 9, other=3479)
    world = World()
    world.port_filter = filtered
    world.prober.set_targets([server], world.now)
    world.prober.check_filtering(4, cone(A.addr), world.now)
    assert world.prober.lets_in(4) is None
    world.run(0.2)
    for _ in range(3):
        world.prober.check_filtering(4, cone(A.addr), world.now)
        world.run(2.0)
        assert world.prober.lets_in(4) is not filtered
    count = len(world.sent)
    world.prober.set_targets(
        [server, type(server)(server.kind, server.server, SocketAddr("192.0.2.9", 3479))], world.now
    )
    world.run(1.0)
    assert world.observations.verdict(4, LOCAL).mapping is Mapping.ENDPOINT_INDEPENDENT
    world.prober.network_changed(world.now)
    assert world.prober.lets_in(4) is None
    assert world.prober.targets == (server,)
    world.prober.check_filtering(4, cone(A.addr), world.now)
    assert world.prober.lets_in(4) is not filtered
    assert len(world.sent) - count <= 2


def test_a_server_without_a_second_port_is_not_asked_for_it() -> None:
    """Then nothing is known about filtering."""
    world = World()
    world.prober.set_targets([A], world.now)
    world.run(1.0)
    world.prober.check_filtering(4, cone(A.addr), world.now)
    world.run(5.0)
    assert world.prober.lets_in(4) is None
    assert len(world.sent) == 1
