"""The prober and QUIC address discovery: when it is asked, kept and left."""

from __future__ import annotations

import pytest

from tests.unit.netreport.natworld import INSIDE, PUBLIC, World, cone, qad, stun, symmetric
from tests.unit.netreport.quicpair import SERVER
from tom_connect.addr import SocketAddr
from tom_connect.netreport.observations import SUSPECT_TRUST
from tom_connect.netreport.prober import QAD_HEDGE, QAD_RETRY, REFRESH
from tom_connect.netreport.report import Mapping

LOCAL = [INSIDE]
A = stun("a", 1)


def test_a_relay_that_has_qad_alone_tells_our_address() -> None:
    """It is asked at once, and its round-trip time is known."""
    world = World()
    world.prober.set_targets([qad()], world.now)
    world.run(1.0)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(SERVER),)
    assert 0 < world.prober.rtts[qad()] < 1


@pytest.mark.parametrize("seed", range(10))
def test_loss_delays_it_alone(seed: int) -> None:
    """Over a network that loses a tenth each way the address is known within a few attempts."""
    world = World(seed, loss=0.1)
    world.prober.set_targets([qad()], world.now)
    world.run(90.0)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(SERVER),)


def test_the_connection_is_kept_and_tells_a_rebound_nat_by_itself() -> None:
    """One connection serves for minutes; when the NAT maps anew the next packet shows it, and STUN is asked again."""
    world = World()
    world.prober.set_targets([qad(), A], world.now)
    world.run(300.0)
    assert len(set(world.qad.values())) == 1
    assert world.observations.verdict(4, LOCAL).mapping is Mapping.ENDPOINT_INDEPENDENT
    world.mapping = lambda _dest: SocketAddr(PUBLIC, 777)
    world.run(2 * REFRESH[1])
    assert world.observations.verdict(4, LOCAL).confirmed == (SocketAddr(PUBLIC, 777),)
    assert len(set(world.qad.values())) == 1


def test_a_doubt_has_the_server_tell_at_once() -> None:
    """A connection that is silent learns within seconds of a rebound NAT when there is reason to ask."""
    world = World()
    world.prober.set_targets([qad()], world.now)
    world.run(2.0)
    world.mapping = lambda _dest: SocketAddr(PUBLIC, 777)
    world.prober.doubt(world.now)
    world.run(1.0)
    assert world.observations.verdict(4, [INSIDE]).reflexive == (SocketAddr(PUBLIC, 777),)


def test_stun_has_a_head_start() -> None:
    """A relay that has both is asked by STUN first, which costs next to nothing."""
    both = stun("192.0.2.9", 9)
    service = qad()
    target = type(service)(service.kind, both.server, service.addr)
    world = World()
    world.prober.set_targets([both, target], world.now)
    world.run(QAD_HEDGE - 0.01)
    assert {dest for _, dest in world.sent} == {both.addr}
    world.run(0.02)
    assert {dest for _, dest in world.sent} == {both.addr, SERVER}


def test_two_ports_of_one_relay_tell_a_symmetric_nat() -> None:
    """One relay with both services is enough."""
    world = World(mapping=symmetric)
    world.prober.set_targets([stun("192.0.2.9", 9), qad()], world.now)
    world.run(2.0)
    assert world.observations.verdict(4, LOCAL).mapping is Mapping.ENDPOINT_DEPENDENT


@pytest.mark.parametrize(
    "target", [qad(ca=None), qad(host="192.0.2.77")], ids=["unknown authority", "another host's certificate"]
)
def test_an_invalid_certificate_is_refused(target: object) -> None:
    """No address is taken from it, the reason is kept, and it is asked again after growing pauses."""
    world = World()
    world.prober.set_targets([target], world.now)  # type: ignore[list-item]
    world.run(600.0)
    assert world.observations.verdict(4, LOCAL).reflexive == ()
    assert "lost" in world.prober.problems[target]  # type: ignore[index]
    assert target in world.prober.refusals  # so that UDP is not taken for blocked
    attempts = len(set(world.qad.values()))
    assert 3 <= attempts <= 600 / QAD_RETRY[0] / 3


def test_a_relay_without_tls_needs_no_valid_certificate() -> None:
    """What it says is worth as much as an answer by STUN, which nothing authenticates either."""
    target = qad(ca=None, host="192.0.2.77", verify=False)
    world = World()
    world.prober.set_targets([target], world.now)
    world.run(2.0)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(SERVER),)


def test_a_silent_server_is_given_up_and_tried_again() -> None:
    """After a while without an answer the report can be complete; when it is back it is heard."""
    world = World()
    world.down.add(SERVER)
    world.prober.set_targets([qad()], world.now)
    world.run(6.0)
    assert world.prober.settled and not world.prober.answered and not world.prober.refusals
    world.down.clear()
    world.run(2 * QAD_RETRY[0])
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(SERVER),)


def test_a_changed_network_gets_a_new_connection() -> None:
    """The answer comes within round trips, not with the next keep-alive."""
    world = World()
    world.prober.set_targets([qad()], world.now)
    world.run(1.0)
    world.mapping = lambda _dest: SocketAddr("198.51.100.7", 9)
    world.prober.network_changed(world.now)
    world.run(SUSPECT_TRUST / 2)
    assert world.observations.verdict(4, LOCAL).reflexive == (SocketAddr("198.51.100.7", 9),)


def test_no_connection_is_kept_that_nobody_needs() -> None:
    """Out of use it is closed, so that nothing is sent; in use again it is made anew."""
    world = World()
    world.prober.set_targets([qad()], world.now)
    world.run(1.0)
    world.in_use = False
    world.run(REFRESH[1] + 5.0)
    count = len(world.sent)
    world.run(300.0)
    assert len(world.sent) == count
    assert world.observations.verdict(4, LOCAL).reflexive == ()
    world.in_use = True
    world.run(REFRESH[1] + 1.0)
    assert world.observations.verdict(4, LOCAL).confirmed == (cone(SERVER),)


def test_leaving_says_goodbye() -> None:
    """A closed prober has told the server, which keeps nothing for it, and no timer is left."""
    world = World()
    world.prober.set_targets([qad()], world.now)
    world.run(1.0)
    world.prober.close(world.now)
    world.run(0.1)
    assert world.prober.get_timer() is None
    assert all(quic.termination is not None for quic in world.qad.values())
    assert not world.prober.receive_quic(b"12345678", bytes(30), SERVER, world.now)
