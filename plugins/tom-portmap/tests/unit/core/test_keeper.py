"""A mapping's life on a virtual clock, over networks good and bad."""

from __future__ import annotations

import random

import pytest

from tom_connect.addr import SocketAddr
from tom_portmap.core.keeper import CHECK_EVERY, RETRY_FIRST, RETRY_MOST, Keeper, Map, Probe, Release, State
from tom_portmap.core.values import Candidate, Grant, Probed

from .fakegateway import GATEWAY, LOCAL, NATPMP, PCP, PORT, FakeGateway, World

HOUR = 3600.0
ADDR = SocketAddr("11.0.0.1", PORT)
UPNP = Candidate("upnp", GATEWAY, LOCAL)


def held(world: World) -> bool:
    """Whether the mapping that is offered is one that the gateway has."""
    mapping = world.keeper.mapping
    return mapping is not None and world.gateway.maps(PORT, world.now) == mapping.port


@pytest.mark.parametrize("candidates", [(PCP,), (NATPMP,), (PCP, NATPMP)])
def test_a_mapping_is_held_for_days(candidates: tuple[Candidate, ...]) -> None:
    """By either protocol and by both: one mapping at once, at our own port, never without for two days."""
    world = World(FakeGateway(), *candidates)
    assert world.run(1.0, lambda: held(world))
    assert world.keeper.mapping == ADDR
    while world.now < 48 * HOUR:
        world.run(world.now + 60)
        assert held(world), world.now
    # Two hours, renewed at a half to five eighths of it.
    assert 48 / 1.25 <= world.gateway.granted <= 48 + 2
    assert list(world.gateway.table) == [PORT]


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_network_costs_time_and_no_mapping(seed: int) -> None:
    """With a third of the packets lost in each direction, delayed, doubled and reordered, one is held all the time."""
    world = World(FakeGateway(most=1200), PCP, NATPMP, seed=seed, loss=0.33)
    assert world.run(10 * 60, lambda: held(world))
    gaps = 0
    for _ in range(240):
        world.run(world.now + 60)
        gaps += not held(world)
    assert gaps <= 2  # three silences in a row end one, and a race brings another


def test_the_protocol_that_answers_is_used() -> None:
    """A gateway that knows only NAT-PMP refuses PCP, and is asked for a mapping once."""
    world = World(FakeGateway(speaks=frozenset({"nat-pmp"})), PCP, NATPMP)
    assert world.run(1.0, lambda: held(world))
    assert world.keeper.gateway == NATPMP
    assert world.gateway.granted == 1


def test_another_port_is_kept_where_ours_is_taken() -> None:
    """What the gateway gives is what is asked for at each renewal."""
    world = World(FakeGateway(taken=frozenset({PORT})), PCP)
    world.run(10 * HOUR)
    assert world.keeper.mapping == SocketAddr("11.0.0.1", PORT + 1)
    assert world.gateway.maps(PORT, world.now) == PORT + 1


@pytest.mark.parametrize("candidate", [PCP, NATPMP])
def test_a_gateway_that_restarts_gets_the_mapping_again(candidate: Candidate) -> None:
    """Its epoch went back: at the next look the mapping is asked for anew."""
    world = World(FakeGateway(), candidate)
    assert world.run(1.0, lambda: held(world))
    world.run(500)
    world.gateway.restart(world.now)
    assert not held(world)
    assert world.run(world.now + CHECK_EVERY + 1, lambda: held(world))
    assert world.keeper.mapping == ADDR


@pytest.mark.parametrize("candidate", [PCP, NATPMP])
def test_an_announced_restart_is_acted_on_at_once(candidate: Candidate) -> None:
    """Within two seconds the mapping is there again; a forger only costs a request a second."""
    world = World(FakeGateway(), candidate)
    assert world.run(1.0, lambda: held(world))
    world.run(100)
    world.gateway.restart(world.now)
    world.keeper.announced(GATEWAY, world.now)
    assert world.run(world.now + 2, lambda: held(world))
    sent = world.sent
    for _ in range(1000):
        world.keeper.announced(GATEWAY, world.now)
        world.keeper.announced("192.168.1.9", world.now)
        world.run(world.now + 0.01)
    assert 5 <= world.sent - sent <= 12
    assert held(world)


def test_a_gateway_that_announces_itself_while_it_is_looked_at_is_looked_at_again() -> None:
    """The look began while it was still starting and came to nothing: the next one does not wait."""
    keeper = Keeper(7200, random.Random(0))
    keeper.network_changed([UPNP], 0)
    (probe,) = keeper.actions()
    keeper.probed(probe.number, Probed(ADDR.ip), 0)
    (ask,) = keeper.actions()
    keeper.granted(ask.number, Grant(ADDR, 7200.0), 0)
    keeper.announced(GATEWAY, 50)
    keeper.handle_timer(50)
    (look,) = keeper.actions()
    keeper.announced(GATEWAY, 52)
    keeper.handle_timer(52)
    assert keeper.actions() == ()
    keeper.failed(look.number, "no answer", 54, silent=True)
    keeper.handle_timer(54)
    (look,) = keeper.actions()
    assert isinstance(look, Probe)
    keeper.probed(look.number, Probed(ADDR.ip), 55)
    timer = keeper.get_timer()
    assert timer is not None and timer >= 55 + CHECK_EVERY


def test_a_gateway_that_announces_itself_is_asked() -> None:
    """One that refused, or was not there yet, need not be waited for."""
    world = World(FakeGateway(result=2), PCP)
    world.run(5)
    world.gateway.result = 0
    world.keeper.announced("192.168.1.9", world.now)
    assert not world.run(world.now + 5, lambda: held(world))
    world.keeper.announced(GATEWAY, world.now)
    assert world.run(world.now + 2, lambda: held(world))


def test_another_external_address_is_told() -> None:
    """After a new dial-in of the router the next look finds out, and the new address is offered."""
    world = World(FakeGateway(), NATPMP)
    assert world.run(1.0, lambda: held(world))
    world.gateway.external = "11.0.0.2"
    new = SocketAddr("11.0.0.2", PORT)
    assert world.run(world.now + CHECK_EVERY + 1, lambda: world.keeper.mapping == new)


@pytest.mark.parametrize("external", ["192.168.0.7", "100.64.0.1", "10.0.0.1", "0.0.0.0", "169.254.1.1", "127.0.0.1"])
@pytest.mark.parametrize("candidate", [PCP, NATPMP])
def test_a_second_nat_is_named_and_its_mapping_is_not_offered(candidate: Candidate, external: str) -> None:
    """A private or shared external address leads nowhere: nothing is offered, nothing stays mapped, and it is said."""
    world = World(FakeGateway(external=external), candidate)
    world.run(25, lambda: world.keeper.mapping is not None)
    assert world.keeper.mapping is None
    assert world.keeper.state is State.IDLE
    assert world.keeper.problem is not None
    assert world.keeper.problem.startswith("double NAT") and external in world.keeper.problem
    assert world.keeper.outside == external
    assert not world.gateway.table


def test_a_gateway_that_comes_behind_a_nat_loses_its_mapping() -> None:
    """When its address becomes a shared one, what was offered is withdrawn and given back."""
    world = World(FakeGateway(), NATPMP)
    assert world.run(1.0, lambda: held(world))
    world.gateway.external = "100.64.0.1"
    world.run(world.now + CHECK_EVERY + 20)
    assert world.keeper.mapping is None
    assert world.keeper.problem is not None and "double NAT" in world.keeper.problem
    assert not world.gateway.table


def test_a_refusal_is_told_and_asked_again_later() -> None:
    """In words, with longer and longer pauses; and when it grants at last, the mapping is held."""
    world = World(FakeGateway(result=2), PCP, NATPMP)
    world.run(20)
    assert world.keeper.problem is not None
    assert "192.168.1.1 by pcp: it does not allow mappings" in world.keeper.problem
    before = world.sent
    world.run(24 * HOUR)
    assert world.sent - before < 4 * 24 * HOUR / RETRY_MOST * 1.3 + 40
    world.gateway.result = 0
    assert world.run(world.now + 1.2 * RETRY_MOST, lambda: held(world))
    assert world.keeper.problem is None


def test_no_gateway_is_said() -> None:
    """Without a default route there is nobody to ask; another network is asked at once."""
    world = World(FakeGateway())
    world.run(5)
    assert world.keeper.problem == "no gateway was found"
    world.change(PCP)
    assert world.run(world.now + 2, lambda: held(world))


def test_a_silent_gateway_is_left_and_found_again() -> None:
    """Three silences end a mapping long before its time; when the gateway is back, there is one again."""
    world = World(FakeGateway(), PCP)
    assert world.run(1.0, lambda: held(world))
    world.silent = True
    assert world.run(world.now + CHECK_EVERY + 60, lambda: world.keeper.mapping is None)
    world.run(world.now + 20)
    assert world.keeper.problem == "no gateway grants a mapping: 192.168.1.1 by pcp: no answer"
    world.silent = False
    assert world.run(world.now + 4 * RETRY_FIRST, lambda: held(world))


def test_a_renewal_that_is_not_heard_is_repeated() -> None:
    """After a silence the mapping is still offered, asked for again in seconds, and prolonged."""
    keeper = Keeper(7200, random.Random(0))
    keeper.network_changed([PCP], 0)
    (probe,) = keeper.actions()
    keeper.probed(probe.number, Probed(epoch=1), 0)
    (ask,) = keeper.actions()
    keeper.granted(ask.number, Grant(ADDR, 200.0, 1), 0)
    now = keeper.get_timer()
    assert now is not None and 100 <= now <= 125
    keeper.handle_timer(now)
    (ask,) = keeper.actions()
    keeper.failed(ask.number, "no answer", now + 7, silent=True)
    assert keeper.mapping == ADDR
    again = keeper.get_timer()
    assert again is not None and again <= now + 20
    keeper.handle_timer(again)
    (ask,) = keeper.actions()
    assert isinstance(ask, Map) and ask.suggested == ADDR
    keeper.granted(ask.number, Grant(ADDR, 200.0, int(again)), again)
    assert keeper.expires == again + 200


def test_another_network_withdraws_the_mapping_at_once() -> None:
    """A mapping of a gateway that is not ours any more is not offered for another moment."""
    world = World(FakeGateway(), PCP)
    assert world.run(1.0, lambda: held(world))
    world.change(Candidate("pcp", "10.0.0.1", "10.0.0.2"))
    assert world.keeper.mapping is None


def test_the_same_gateway_is_asked_again_when_the_network_changed() -> None:
    """It may be another one with the same address: what it grants is what is offered."""
    world = World(FakeGateway(), PCP)
    assert world.run(1.0, lambda: held(world))
    world.gateway = FakeGateway(external="11.0.0.9")
    world.change(PCP)
    assert world.run(world.now + 1, lambda: world.keeper.mapping == SocketAddr("11.0.0.9", PORT))


def test_a_network_that_changes_all_the_time_is_asked_once_a_second() -> None:
    """However often it is said to, and nothing is left behind."""
    world = World(FakeGateway(), PCP)
    other = Candidate("pcp", "10.0.0.1", "10.0.0.2")
    for number in range(1000):
        world.change(other if number % 2 else PCP)
        world.run(world.now + 0.01)
    assert world.sent < 100
    world.change(PCP)
    assert world.run(world.now + 30, lambda: held(world))


def test_a_grant_that_comes_too_late_is_given_back() -> None:
    """The network changed while the gateway thought: what it grants then is not kept."""
    keeper = Keeper(7200, random.Random(0))
    keeper.network_changed([PCP], 0)
    (probe,) = keeper.actions()
    keeper.probed(probe.number, Probed(epoch=1), 0.1)
    (ask,) = keeper.actions()
    assert isinstance(ask, Map)
    keeper.network_changed([UPNP], 2.0)
    keeper.granted(ask.number, Grant(ADDR, 7200.0), 2.1)
    assert keeper.mapping is None
    assert [action.candidate for action in keeper.actions() if isinstance(action, Release)] == [PCP]


def test_only_one_is_asked_for_the_mapping_at_a_time() -> None:
    """Protocols of one gateway share a table: the next is asked when the one before has refused."""
    keeper = Keeper(7200, random.Random(0))
    keeper.network_changed([PCP, NATPMP, UPNP], 0)
    probes = keeper.actions()
    assert [action.candidate for action in probes] == [PCP, NATPMP, UPNP]
    for probe in reversed(probes):
        keeper.probed(probe.number, Probed(SocketAddr("11.0.0.1", 1).ip), 0.1)
    asked = []
    for _ in range(3):
        (ask,) = keeper.actions()
        asked.append(ask.candidate)
        keeper.failed(ask.number, "no", 0.2, silent=False)
    assert asked == [UPNP, NATPMP, PCP]
    assert keeper.state is State.IDLE


def test_a_mapping_without_an_end_is_looked_at() -> None:
    """Some gateways know no lifetimes; that one is gone shows at a look, and it is asked for again."""
    keeper = Keeper(7200, random.Random(0))
    keeper.network_changed([UPNP], 0)
    (probe,) = keeper.actions()
    keeper.probed(probe.number, Probed(ADDR.ip), 0.1)
    (ask,) = keeper.actions()
    keeper.granted(ask.number, Grant(ADDR, None), 0.2)
    assert keeper.expires is None
    keeper.handle_timer(0.2 + CHECK_EVERY)
    (look,) = keeper.actions()
    assert isinstance(look, Probe) and look.held == Grant(ADDR, None)
    keeper.probed(look.number, Probed(ADDR.ip, gone=True), 301)
    (again,) = keeper.actions()
    assert isinstance(again, Map) and again.suggested == ADDR


@pytest.mark.parametrize("candidate", [PCP, NATPMP])
def test_closing_gives_the_mapping_back(candidate: Candidate) -> None:
    """One request, and nothing more is done afterwards."""
    world = World(FakeGateway(), candidate)
    assert world.run(1.0, lambda: held(world))
    (release,) = world.keeper.close()
    assert isinstance(release, Release) and release.candidate == candidate
    world._do(release)
    world.run(world.now + 1)
    assert not world.gateway.table
    assert world.keeper.mapping is None and world.keeper.get_timer() is None


def test_closing_gives_back_what_is_being_asked_for() -> None:
    """The answer may be on its way: by PCP and NAT-PMP it can be ended without knowing it."""
    keeper = Keeper(7200, random.Random(0))
    keeper.network_changed([PCP], 0)
    (probe,) = keeper.actions()
    keeper.probed(probe.number, Probed(epoch=1), 0.1)
    assert [type(action) for action in keeper.close()] == [Release]
    assert keeper.close() == ()


@pytest.mark.parametrize("seed", range(30))
def test_any_answers_in_any_order_do_no_harm(seed: int) -> None:
    """Answers, failures, changes and times at random: it never raises, never has much to do, and finds its way back."""
    rng = random.Random(seed)
    keeper = Keeper(7200, rng)
    candidates = [PCP, NATPMP, UPNP, Candidate("pcp", "10.0.0.1", "10.0.0.2")]
    now, pending = 0.0, []
    keeper.network_changed(candidates, now)
    for _ in range(2000):
        now += rng.choice([0.0, 0.1, 1.0, 60.0, 4000.0])
        external = rng.choice([ADDR, SocketAddr("11.0.0.2", 9), SocketAddr("10.0.0.1", 9)])
        number = rng.choice(pending).number if pending and rng.random() < 0.9 else rng.randrange(5000)
        match rng.randrange(6):
            case 0:
                keeper.network_changed(rng.sample(candidates, rng.randrange(5)), now)
            case 1:
                answer = Probed(
                    rng.choice([None, external.ip]), rng.choice([None, rng.randrange(99)]), rng.random() < 0.2
                )
                keeper.probed(number, answer, now)
            case 2:
                keeper.granted(number, Grant(external, rng.choice([None, 4.0, 7200.0])), now)
            case 3:
                keeper.failed(number, "no", now, silent=rng.random() < 0.5)
            case 4:
                keeper.announced(GATEWAY, now)
            case 5:
                keeper.handle_timer(now)
        given = keeper.actions()
        assert len(given) <= 8
        pending = [*pending, *given][-20:]
        assert (keeper.mapping is None) != (keeper.state is State.HELD)
        assert keeper.state is State.RACING or keeper.get_timer() is not None or pending
    for action in pending:
        keeper.failed(action.number, "no", now, silent=False)
    keeper.network_changed([], now + 10)
    keeper.network_changed([PCP], now + 20)
    keeper.handle_timer(now + 20)
    assert any(isinstance(action, (Probe, Map)) for action in keeper.actions())
