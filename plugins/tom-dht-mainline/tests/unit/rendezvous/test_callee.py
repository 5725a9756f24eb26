"""What announcements in a mailbox amount to."""

from __future__ import annotations

import math
import random

from tom_dht_mainline.core.rendezvous import callee
from tom_dht_mainline.core.rendezvous.callee import Callee, Caller

TARGET = bytes(range(20))
NODES = [(f"20.{number}.0.1", 6881) for number in range(8)]
CALLER = ("198.18.0.7", 4433)


def made() -> Callee:
    return Callee(TARGET, random.Random(1).randbytes)


def test_a_new_address_is_a_call() -> None:
    """At first nobody but one node says so."""
    assert made().named(NODES[0], [CALLER], (), 0.0) == [Caller(CALLER[0], (CALLER,), False)]


def test_an_address_that_stands_there_for_long_is_one_call() -> None:
    """Nodes name an announcement for 45 minutes, and each is polled all the time."""
    mailbox = made()
    calls = [mailbox.named(NODES[n % 2], [CALLER], (), float(n)) for n in range(2700)]
    assert sum(map(len, calls)) == 1


def test_several_networks_attest_an_ip() -> None:
    """When the third network names it, the call is told again, as attested; the number of nodes in one is no matter."""
    mailbox = made()
    same_network = ("20.0.0.77", 6881)
    assert mailbox.named(NODES[0], [CALLER], (), 0.0)[0].attested is False
    assert mailbox.named(same_network, [CALLER], (), 1.0) == []
    assert mailbox.named(NODES[1], [CALLER], (), 2.0) == []
    assert mailbox.named(NODES[2], [CALLER], (), 3.0) == [Caller(CALLER[0], (CALLER,), True)]


def test_another_port_of_a_known_caller_rings_for_all_its_addresses() -> None:
    """Who calls a second time from one address announces another port, and is tried at both."""
    mailbox = made()
    mailbox.named(NODES[0], [CALLER], (), 0.0)
    ring = (CALLER[0], 31337)
    (call,) = mailbox.named(NODES[0], [CALLER, ring], (), 60.0)
    assert call.addrs == (ring, CALLER)


def test_a_call_from_oneself_is_none() -> None:
    """What we announce ourselves, or somebody who names us, does not make us knock at our own door."""
    assert made().named(NODES[0], [CALLER], (CALLER,), 0.0) == []


def test_a_nat_that_shifts_ports_is_not_called_from_itself() -> None:
    """Where each destination sees us at another port, every address of our IP may be our own; others are callers."""
    own = ((CALLER[0], 0),)
    other = ("198.18.0.8", 7)
    assert made().named(NODES[0], [CALLER, (CALLER[0], 7), other], own, 0.0) == [Caller(other[0], (other,), False)]


def test_rubbish_is_bounded() -> None:
    """A hundred thousand invented addresses fill the tables and no more; of one IP a few are remembered."""
    mailbox = made()
    rng = random.Random(2)
    for turn in range(1000):
        now = turn * 10.0  # so slowly that each answer has some for which there is room
        peers = [(f"198.18.{rng.randrange(256)}.{rng.randrange(256)}", rng.randrange(1, 65536)) for _ in range(96)]
        peers += [("198.19.0.1", rng.randrange(1, 65536)) for _ in range(4)]
        for call in mailbox.named(NODES[turn % 8], peers, (), now):
            assert len(call.addrs) <= callee.ADDRESSES_OF_HOST
        assert len(mailbox._known) <= callee.MAX_KNOWN and len(mailbox._hosts) <= callee.MAX_HOSTS
    assert (len(mailbox._known), len(mailbox._hosts)) == (callee.MAX_KNOWN, callee.MAX_HOSTS)


def test_nodes_that_invent_addresses_leave_room_for_others() -> None:
    """Half of the nodes name a hundred new addresses each time: who really calls is noticed within a few polls.

    And of what they invent no more is looked at than there is room for.
    """
    mailbox = made()
    rng = random.Random(3)
    looked_at, waited = 0, []
    calling: tuple[str, int] | None = None
    for turn in range(1200):
        now = turn * 1.1
        if turn % 2:
            invented = [(f"198.19.{rng.randrange(256)}.{rng.randrange(256)}", 7) for _ in range(100)]
            looked_at += len(mailbox.named(NODES[turn % 8], invented, (), now))
            continue
        if turn % 60 == 0:
            calling, began = ("198.18.0.1", 1024 + turn), turn
        if calling is not None and mailbox.named(NODES[turn % 8], [calling], (), now):
            waited.append(turn - began)
            calling = None
    assert len(waited) == 20 and max(waited) <= 16
    assert looked_at <= callee.FRESH + callee.FRESH_RATE * 1200 * 1.1


def test_nodes_that_have_had_their_share_leave_room_for_those_that_have_not() -> None:
    """Half of the nodes have invented addresses for minutes: a caller is noticed with the first honest answer."""
    mailbox = made()
    rng = random.Random(4)
    turns = 0
    for call in range(3):
        for _ in range(60):
            turns += 1
            invented = [(f"198.19.{rng.randrange(256)}.{rng.randrange(256)}", 7) for _ in range(100)]
            mailbox.named(NODES[turns % 4], invented, (), turns * 1.1)
        assert mailbox.named(NODES[4 + call], [(f"198.18.0.{call}", 7)], (), turns * 1.1)


def test_which_addresses_have_room_is_drawn_by_lot() -> None:
    """Who sees to it that his come first in a list has no more of the room for it."""
    callers = [(f"198.18.{n}.1", 7) for n in range(100)]
    taken = [
        {call.host for call in Callee(TARGET, random.Random(seed).randbytes).named(NODES[0], callers, (), 0.0)}
        for seed in range(5)
    ]
    assert {len(hosts) for hosts in taken} == {math.ceil(callee.FRESH / callee.SHARE)}
    assert len(set.union(*taken)) > 2 * len(taken[0])


def test_addresses_without_room_are_calls_later() -> None:
    """What one answer names too many of is not forgotten: each is a call with a later answer."""
    mailbox = made()
    callers = [(f"198.18.{n}.1", 7) for n in range(40)]
    found: set[str] = set()
    for turn in range(200):
        calls = mailbox.named(NODES[turn % 8], callers, (), float(turn))
        found |= {call.host for call in calls}
    assert len(found) == 40


def test_who_announces_many_ports_waits_behind_others() -> None:
    """Where 64 IPs fill every answer with new ports, who calls from another IP is noticed by the third poll, mostly.

    The 64 must have been noticed themselves before: until then all of them are as new.
    """
    mailbox = made()
    rng = random.Random(4)
    noticed: dict[str, int] = {}
    for turn in range(1600):
        crowd = [(f"198.19.{rng.randrange(64)}.1", rng.randrange(1024, 65536)) for _ in range(99)]
        caller = f"198.18.{turn // 16}.1"
        if caller in {call.host for call in mailbox.named(NODES[turn % 8], [*crowd, (caller, 7)], (), turn * 1.1)}:
            noticed.setdefault(caller, turn % 16)
    late = sorted(noticed.get(f"198.18.{number}.1", 16) for number in range(10, 100))
    assert late[len(late) // 2] <= 2
    assert late[-1] <= 13


def crowded(mailbox: Callee, peers: list[tuple[str, int]], now: float) -> list[bool]:
    """What each of the nodes, asked in turn, makes of the mailbox."""
    return [mailbox.crowded(node, peers, now) for node in NODES]


def test_a_flooded_mailbox_is_left_for_one_near_by() -> None:
    """The new one can't be told beforehand and has the same nearest nodes; it moves no faster than stated."""
    mailbox = made()
    crowd = [(f"198.18.{n}.1", 7) for n in range(callee.CROWDED)]
    assert not any(crowded(mailbox, crowd[1:], 0.0))
    assert mailbox.mailbox == TARGET
    assert crowded(mailbox, crowd, 0.0).index(True) == callee.CROWDED_BY - 1
    first = mailbox.mailbox
    assert first != TARGET and first.startswith(TARGET[: callee.NEAR]) and len(first) == 20
    assert not any(crowded(mailbox, crowd, callee.MOVE_SOONEST - 1))
    assert any(crowded(mailbox, crowd, callee.MOVE_SOONEST))
    assert mailbox.mailbox not in (TARGET, first)


def test_a_few_nodes_that_invent_addresses_move_no_mailbox() -> None:
    """They would say the same of the next one; that others name few takes back what one of them said before."""
    mailbox = made()
    crowd = [(f"198.18.{n}.1", 7) for n in range(callee.CROWDED)]
    for turn in range(200):
        liar = turn % 8 in (0, 4)
        assert not mailbox.crowded(NODES[turn % 8], crowd if liar else [], turn * 1.1)
    assert mailbox.mailbox == TARGET


def test_what_nodes_said_long_ago_moves_no_mailbox() -> None:
    """Three nodes must call it flooded at one time, not each once in an hour."""
    mailbox = made()
    crowd = [(f"198.18.{n}.1", 7) for n in range(callee.CROWDED)]
    assert not any(mailbox.crowded(node, crowd, turn * callee.CROWDED_WITHIN) for turn, node in enumerate(NODES))
    assert mailbox.mailbox == TARGET
