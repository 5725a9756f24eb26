"""Whom the prober asks, when, and what comes of it; on a virtual clock."""

from __future__ import annotations

import pytest

from tests.unit.netreport.natworld import INSIDE, PUBLIC, World, cone, stun, symmetric
from tom_connect.addr import SocketAddr
from tom_connect.netreport.observations import SERVER_TRUST, SUSPECT_TRUST
from tom_connect.netreport.prober import FIRST_RTO, MAX_TARGETS, REFRESH, REQUESTS
from tom_connect.netreport.report import Mapping
from tom_connect.netreport.stun import BindingRequest, binding_success

A, B, C = stun("a", 1), stun("b", 2), stun("c", 3)
LOCAL = [INSIDE]
OUTSIDE = SocketAddr(PUBLIC, 50_000)
ANOTHER_PORT, ELSEWHERE = SocketAddr(PUBLIC, 50_001), SocketAddr("203.0.113.2", 50_000)
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


def test_a_doubt_has_everybody_asked_at_once_but_not_often() -> None:
    """A NAT that was rebound is found right after the doubt; doubts without end cost no more than a round in 5 s."""
    world = World()
    world.prober.set_targets([A, B, C], world.now)
    world.run(1.0)
    world.mapping = lambda _dest: SocketAddr(PUBLIC, 777)
    world.prober.doubt(world.now)
    world.run(0.5)
    assert world.observations.verdict(4, LOCAL).confirmed == (SocketAddr(PUBLIC, 777),)
    before = len(world.sent)
    for _ in range(100):
        world.prober.doubt(world.now)
        world.run(0.5)
    assert 3 * 8 <= len(world.sent) - before <= 3 * 11


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
    world.prober.network_changed(world.now)
    assert world.prober.lets_in(4) is None
    world.run(0.2)
    world.prober.check_filtering(4, cone(A.addr), world.now)
    world.run(2.0)
    assert world.prober.lets_in(4) is not filtered


@pytest.mark.parametrize(
    ("seen", "mapping"),
    [
        ((OUTSIDE, OUTSIDE), Mapping.ENDPOINT_INDEPENDENT),
        ((OUTSIDE, ANOTHER_PORT), Mapping.ENDPOINT_DEPENDENT),
        ((OUTSIDE, ELSEWHERE), Mapping.UNKNOWN),
    ],
    ids=["easy", "hard", "two addresses"],
)
def test_one_server_with_two_ports_tells_how_a_nat_maps(seen: tuple[SocketAddr, SocketAddr], mapping: Mapping) -> None:
    """Both ports are asked at once and over another socket than ours, which is enough for the verdict on ours."""
    server = stun("o", 9, other=3479)
    world = World()
    world.prober.set_targets([server], world.now)
    check = world.prober.check_mapping(4)
    assert check is not None and world.prober.check_mapping(4) is None
    asked = [(BindingRequest.decode(data), dest) for data, dest in check.start(world.now)]
    assert [dest for _request, dest in asked] == [server.addr, SocketAddr(server.addr.host, 3479)]
    for (request, dest), addr in zip(asked, seen, strict=True):
        assert world.prober.mapping(4) is Mapping.UNKNOWN
        assert check.receive(binding_success(request.transaction_id, addr), dest, world.now + 0.1)
    assert check.done and check.get_timer() is None
    assert world.prober.mapping(4) is mapping
    world.run(0.2)
    assert {dest for _at, dest in world.sent} == {server.addr}
    verdict = world.observations.verdict(4, LOCAL, world.prober.mapping(4))
    assert verdict.mapping is mapping
    assert bool(verdict.confirmed) is (mapping is not Mapping.ENDPOINT_DEPENDENT)
    world.prober.network_changed(world.now)
    again = world.prober.check_mapping(4)
    assert again is not None and world.prober.mapping(4) is mapping
    again.start(world.now)
    while (at := again.get_timer()) is not None:
        again.handle_timer(at)
    assert world.prober.mapping(4) is Mapping.UNKNOWN


def test_how_a_nat_maps_is_asked_of_the_next_server_if_one_is_silent() -> None:
    """Each is asked three times and given up; nobody is asked twice before the network changes."""
    world = World()
    world.prober.set_targets([stun("o", 8, other=3479), A, stun("p", 9, other=3479)], world.now)
    asked = []
    while (check := world.prober.check_mapping(4)) is not None:
        sends = list(check.start(0.0))
        while (at := check.get_timer()) is not None:
            assert not check.done and at < 2.0
            sends += check.handle_timer(at)
        assert check.done and check.result is Mapping.UNKNOWN
        asked.append([dest for _data, dest in sends])
    assert asked == [3 * [SocketAddr(f"192.0.2.{n}", 3478), SocketAddr(f"192.0.2.{n}", 3479)] for n in (8, 9)]
    assert world.prober.check_mapping(6) is None


def test_a_server_without_a_second_port_is_not_asked_for_it() -> None:
    """Then nothing is known about filtering."""
    world = World()
    world.prober.set_targets([A], world.now)
    world.run(1.0)
    world.prober.check_filtering(4, cone(A.addr), world.now)
    world.run(5.0)
    assert world.prober.lets_in(4) is None
    assert len(world.sent) == 1
