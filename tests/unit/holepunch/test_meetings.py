"""Pings while a call of ours waits: often, held back until the other has opened, and within limits."""

from __future__ import annotations

from collections.abc import Iterator

from tom_connect.addr import SocketAddr
from tom_connect.holepunch import disco, meeting, meetings
from tom_connect.holepunch.core import DiscoCore
from tom_connect.holepunch.disco import Mapping
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.keys import SecretKey

A, B = SecretKey(b"a" * 32), SecretKey(b"b" * 32)
THERE = SocketAddr("198.18.0.9", 4433)
ELSEWHERE = SocketAddr("198.18.0.9", 9999)


def caller() -> tuple[DiscoCore, RemotePaths]:
    """A core that has been told an address of a node, and calls it at 0.0."""
    core = DiscoCore(A)
    core.openers = []
    remote = core.acquire(B.node_id, 0.0)
    core.meetings.begin(remote, 0.0)
    core.add_candidates(remote, [THERE], "dht", 0.0, trusted=False)
    core.meetings.opened(B.node_id, 0.0)
    return core, remote


def sent(core: DiscoCore, until: float) -> Iterator[tuple[float, str, SocketAddr]]:
    """What leaves until then: when, how far, and where to."""
    now = 0.0
    while True:
        core.tick(now)
        assert core.openers is not None
        yield from ((now, "opener", addr) for addr, *_ in core.openers)
        yield from ((now, "full", path) for path, _ in core.outbox if isinstance(path, SocketAddr))
        core.openers.clear()
        core.outbox.clear()
        due = core.next_due()
        if due is None or due > until:
            return
        now = due


def test_pings_open_only_until_the_node_may_have_said_something() -> None:
    """With nothing known of the node, full pings begin after `UNTOLD` seconds."""
    core, _ = caller()
    packets = list(sent(core, 5.0))
    assert packets[0][:2] == (0.0, "opener")
    assert min(at for at, kind, _ in packets if kind == "full") == meeting.UNTOLD


def test_a_node_that_says_that_its_nat_filters_is_waited_for() -> None:
    """Then full pings begin after several polls at the earliest."""
    core, _ = caller()
    core.meetings.learned(B.node_id, 0.0, filtered=True)
    assert min(at for at, kind, _ in sent(core, 10.0) if kind == "full") == meeting.FILTERED


def test_a_node_without_nat_is_pinged_at_once() -> None:
    """Nothing can be spoiled there."""
    core, _ = caller()
    core.meetings.learned(B.node_id, 0.0, filtered=False)
    assert all(kind == "full" for _, kind, _ in sent(core, 1.0))


def test_behind_a_nat_that_shifts_ports_nothing_is_held_back() -> None:
    """No knock can reach us there, and a hole towards the node is of no use."""
    core, _ = caller()
    core.set_own_nat(Mapping.DEPENDENT, SocketAddr("198.18.0.2", 0), 0.0)
    assert all(kind == "full" for _, kind, _ in sent(core, 1.0))


def test_a_knock_ends_the_opening() -> None:
    """The node has let us in: its address gets a full ping in the same moment."""
    core, _ = caller()
    core.meetings.learned(B.node_id, 0.0, filtered=True)
    list(sent(core, 1.0))
    core.receive(disco.KNOCK, THERE, 1.1)
    core.tick(1.1)
    assert [path for path, _ in core.outbox] == [THERE]


def test_a_knock_from_a_port_that_nobody_named_is_answered_by_a_ping() -> None:
    """A node whose NAT shifts ports can be found by nothing else; it has opened there, so the first ping is in full."""
    core, remote = caller()
    core.meetings.learned(B.node_id, 0.0, filtered=True)
    list(sent(core, 0.1))
    core.receive(disco.KNOCK, ELSEWHERE, 0.1)
    core.tick(0.1)
    assert ELSEWHERE in remote.paths
    assert [path for path, _ in core.outbox] == [ELSEWHERE]


def test_knocks_that_nobody_waits_for_do_nothing() -> None:
    """Without a call of ours, or after it, a knock sends nothing and makes no candidate."""
    core, remote = caller()
    core.meetings.end(B.node_id)
    list(sent(core, 20.0))
    core.receive(disco.KNOCK, ELSEWHERE, 30.0)
    assert ELSEWHERE not in remote.paths
    assert not core.outbox


def test_forged_knocks_are_bounded() -> None:
    """Ten thousand knocks from invented addresses lead to a few dozen pings."""
    core, remote = caller()
    pings = len(list(sent(core, 0.1)))
    for number in range(10_000):
        core.receive(disco.KNOCK, SocketAddr(f"198.18.{1 + (number >> 8)}.{number & 255}", 7), 0.2)
        core.tick(0.2)
    pings += len(core.outbox) + len(core.openers or ())
    assert pings < 60
    assert len(remote.paths) <= 32


def test_a_call_that_leads_nowhere_costs_a_bounded_number_of_pings() -> None:
    """One address gets no more than stated, and nothing at all once the call is over."""
    core, _ = caller()
    packets = list(sent(core, 600.0))
    whole = meetings.BURST + meetings.RATE * meeting.LASTS + 12
    assert 30 < len(packets) < whole
    assert core.meetings.on(core.paths_of(B.node_id)) is False  # type: ignore[arg-type]


def test_knocks_of_every_wrong_shape_are_counted() -> None:
    """Short, long and later ones are no knocks."""
    core, _ = caller()
    core.outbox.clear()
    for data in (disco.KNOCK[:1], disco.KNOCK[:-1], disco.KNOCK + b"\0", b"\x07\x02" + bytes(14)):
        core.receive(data, ELSEWHERE, 0.0)
    assert core.counters["disco: knock"] == 4
