"""What announcements in a mailbox amount to."""

from __future__ import annotations

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


def test_rubbish_is_bounded() -> None:
    """A million invented addresses are remembered no longer than there is room, with a few for each IP."""
    mailbox = made()
    rng = random.Random(2)
    for turn in range(2000):
        peers = [(f"198.{rng.randrange(18, 20)}.{rng.randrange(256)}.1", rng.randrange(1, 65536)) for _ in range(100)]
        for call in mailbox.named(NODES[turn % 8], peers, (), float(turn)):
            assert len(call.addrs) <= callee.ADDRESSES_OF_HOST
    assert len(mailbox._known) <= callee.MAX_KNOWN
    assert len(mailbox._hosts) <= callee.MAX_HOSTS


def test_a_flooded_mailbox_is_left_for_one_near_by() -> None:
    """The new one can't be told beforehand and has the same nearest nodes; it moves no faster than stated."""
    mailbox = made()
    crowd = [(f"198.18.{n}.1", 7) for n in range(callee.CROWDED)]
    assert not mailbox.crowded(crowd[1:], 0.0)
    assert mailbox.mailbox == TARGET
    assert mailbox.crowded(crowd, 0.0)
    first = mailbox.mailbox
    assert first != TARGET and first.startswith(TARGET[: callee.NEAR]) and len(first) == 20
    assert not mailbox.crowded(crowd, callee.MOVE_SOONEST - 1)
    assert mailbox.crowded(crowd, callee.MOVE_SOONEST)
    assert mailbox.mailbox not in (TARGET, first)
