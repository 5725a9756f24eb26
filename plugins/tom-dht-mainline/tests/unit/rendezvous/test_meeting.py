"""Two nodes behind simulated NATs meet through a simulated DHT, for every kind of NAT, with loss and wrong clocks."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import attrs
import pytest

from tom_connect.addr import SocketAddr
from tom_connect.holepunch import meeting, meetings
from tom_connect.holepunch.core import ADDRESS_BURST
from tom_connect.holepunch.disco import KIND_SEALED
from tom_connect.testing.fakenet import Nat

from .world import POLL, Peer, World

pytestmark = pytest.mark.simulated

KINDS = {"none": None, "open": Nat.OPEN, "moderate": Nat.MODERATE, "strict": Nat.STRICT}
NEED_PORTS = {("moderate", "strict"), ("strict", "moderate"), ("strict", "strict")}
PLAIN = [(a, b) for a in KINDS for b in KINDS if (a, b) not in NEED_PORTS]
TRAP = attrs.evolve(Nat.MODERATE, tracks_unsolicited=True)


def pair(world: World, caller: Nat | None, callee: Nat | None, *, clock: float = 0.0) -> tuple[Peer, Peer]:
    """A caller that is cold, and a callee that has been reachable for a while."""

    def home(name: str, kind: Nat | None) -> Peer:
        router = None if kind is None else world.net.router(f"{name}-router", kind)
        return Peer(world, name, router, calls=name == "callee")

    there = home("callee", callee)
    world.net.advance(10.0)
    there.publish(clock=clock)
    world.net.advance(5.0)
    here = home("caller", caller)
    world.net.advance(3.0)
    return here, there


def met(world: World, here: Peer, there: Peer, limit: float = 20.0) -> float | None:
    """Seconds from the call to a direct path, None if there was none in time."""
    began = world.net.now
    here.call(there.id)
    if not world.until(lambda: bool(here.proven), limit):
        return None
    return here.proven[0][0] - began


@pytest.mark.parametrize("kinds", PLAIN, ids="-".join)
def test_a_pair_that_needs_no_port_probing_meets(kinds: tuple[str, str]) -> None:
    """Without loss it takes a look-up, at most two polls, and two trips through the NATs."""
    world = World.make(1)
    took = met(world, *pair(world, KINDS[kinds[0]], KINDS[kinds[1]]))
    assert took is not None and took < 2 * POLL + 1.5


def test_two_home_routers_meet_quickly_on_the_whole() -> None:
    """Over many worlds: the median within 1.5 s, all within 5 s, with 2% of packets lost on every link."""
    times = []
    for seed in range(8):
        world = World.make(seed, loss=0.02)
        took = met(world, *pair(world, Nat.MODERATE, Nat.MODERATE))
        assert took is not None
        times.append(took)
    assert sorted(times)[len(times) // 2] < 1.5
    assert max(times) < 5.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("caller", "callee"),
    [(TRAP, TRAP), (TRAP, Nat.MODERATE), (Nat.MODERATE, TRAP), (TRAP, None), (None, TRAP)],
    ids=["both", "caller", "callee", "caller of none", "callee of none"],
)
def test_routers_that_remember_unasked_packets_are_not_woken_too_early(
    seed: int, caller: Nat | None, callee: Nat | None
) -> None:
    """Nobody's packet reaches the other's router before that one's own has gone out: else it would shift the port."""
    world = World.make(seed)
    here, there = pair(world, caller, callee)
    took = met(world, here, there)
    assert took is not None and took < 2 * POLL + 1.5
    assert there.seen_at == here.proven[0][1]


@pytest.mark.parametrize("clock", [-3600.0, 3600.0], ids=["behind", "ahead"])
def test_a_clock_that_is_wrong_by_an_hour_is_no_matter(clock: float) -> None:
    """Nothing in the protocol is told by the time of day."""
    world = World.make(3)
    took = met(world, *pair(world, Nat.MODERATE, Nat.MODERATE, clock=clock))
    assert took is not None and took < 2 * POLL + 1.5


def test_both_call_at_once() -> None:
    """Both ends are callers and callees: each gets its path."""
    world = World.make(4)
    here, there = pair(world, Nat.MODERATE, Nat.MODERATE)
    here._wants_calls = True
    here.publish()
    world.net.advance(5.0)
    there.call(here.id)
    here.call(there.id)
    assert world.until(lambda: bool(here.proven and there.proven), 10.0)


def test_a_callee_that_has_left_costs_a_bounded_number_of_packets() -> None:
    """Its record still stands there: what goes to its address is pings, no more than stated, and then nothing."""
    world = World.make(5)
    here, there = pair(world, Nat.MODERATE, Nat.MODERATE)
    left_from, sent = there.seen_at, []
    there.host.sleep()
    real = here.socket

    def send(data: bytes, addr: SocketAddr, **options: int) -> object:
        if addr == left_from:
            sent.append(data[0])
        return real.send(data, addr, **options)

    here.socket = SimpleNamespace(send=send)  # type: ignore[assignment]
    assert met(world, here, there, limit=120.0) is None
    remote = here.disco.acquire(there.id, world.net.now)
    assert not here.disco.meetings.on(remote)
    # Whatever was pinged so often gets a few as any other candidate once the call is over.
    assert 30 < len(sent) <= meetings.BURST + meetings.RATE * meeting.LASTS + ADDRESS_BURST
    assert set(sent) == {KIND_SEALED}
    for _ in range(2):  # as the dial does that has failed, and for the look at it above
        here.disco.release(remote, world.net.now)
    del sent[:]
    world.net.advance(600.0)
    assert not sent


def test_a_mailbox_full_of_rubbish_is_left_for_another() -> None:
    """Two hundred strangers announce themselves; the callee moves, says so, and is called at its new place."""
    world = World.make(6)
    here, there = pair(world, Nat.MODERATE, Nat.MODERATE)
    old = there.callee.mailbox
    for number in range(200):
        for node in world.nodes:
            node.core._server.peers.announce(old, (f"20.{number}.1.1", 7), world.net.now, unlimited=True)
    assert world.until(lambda: there.callee.mailbox != old, 10 * POLL)
    world.net.advance(5.0)
    took = met(world, here, there)
    assert took is not None and took < 2 * POLL + 1.5


def test_being_reachable_costs_at_most_60_packets_a_minute() -> None:
    """Polls and look-ups of the mailbox's nodes together in each minute of an hour, beside the DHT's own upkeep."""
    world = World.make(7)
    _, there = pair(world, Nat.MODERATE, Nat.MODERATE)
    world.net.advance(30.0)
    (watch,) = [op for op in there.core._context.running if hasattr(op, "interval")]
    sent = [watch.queries_sent]
    for _ in range(60):
        world.net.advance(60.0)
        sent.append(watch.queries_sent)
    minutes = [after - before for before, after in itertools.pairwise(sent)]
    assert max(minutes) <= 60
    assert sum(minutes) > 50 * 60
