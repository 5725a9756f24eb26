"""What changes of the network mean, on a clock that the tests turn."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.netreport.interfaces import DefaultRoute, InterfaceAddress, NetworkState
from tom_connect.netreport.netwatch.core import LATE, LONGEST, SETTLE, SLEPT, NetworkWatchCore

WIFI4 = InterfaceAddress("wlan0", 3, "192.168.1.5", 24)
WIFI6 = InterfaceAddress("wlan0", 3, "2001:db8:1::5", 64)
TEMPORARY = InterfaceAddress("wlan0", 3, "2001:db8:1::7e3f", 64)
CABLE4 = InterfaceAddress("eth0", 2, "192.168.1.9", 24)
DOCKER = InterfaceAddress("docker0", 7, "172.17.0.1", 16)
ROUTE4 = DefaultRoute(4, "wlan0", "192.168.1.1")
ROUTE6 = DefaultRoute(6, "wlan0", "fe80::1")
HOME = NetworkState((WIFI4, WIFI6), (ROUTE4, ROUTE6), (WIFI4.host, WIFI6.host))
OFFLINE = NetworkState()


def at(*addresses: InterfaceAddress, sources: tuple[str, ...] = HOME.sources) -> NetworkState:
    return attrs.evolve(HOME, addresses=addresses, sources=sources)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (at(WIFI4, WIFI6, DOCKER), "172.17.0.1 on docker0 is new"),
        (at(WIFI4, WIFI6, TEMPORARY), "2001:db8:1::7e3f on wlan0 is new"),
        (
            at(WIFI4, WIFI6, TEMPORARY, sources=(WIFI4.host, TEMPORARY.host)),
            "2001:db8:1::7e3f on wlan0 is new",
        ),
        (at(WIFI4, WIFI6, CABLE4), "192.168.1.9 on eth0 is new"),
    ],
    ids=["docker", "temporary", "temporary in use", "cable without a route"],
)
def test_minor_changes(after: NetworkState, why: str) -> None:
    """Addresses that come beside those in use change nothing for the paths that are in use."""
    core = NetworkWatchCore(HOME, 0.0)
    change = core.looked(after)
    assert change is not None and not change.major
    assert change.why == (why,)
    assert core.looked(after) is None


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (OFFLINE, "default route IPv4: wlan0 192.168.1.1 -> none"),
        (attrs.evolve(HOME, routes=(attrs.evolve(ROUTE4, gateway="192.168.1.254"), ROUTE6)), "192.168.1.254"),
        (at(WIFI4, WIFI6, CABLE4, sources=(CABLE4.host, WIFI6.host)), "address in use: 192.168.1.5 -> 192.168.1.9"),
        (at(WIFI6, sources=(WIFI6.host,)), "address in use: 192.168.1.5 -> none"),
        (at(attrs.evolve(WIFI4, index=9), WIFI6), "192.168.1.5: wlan0 is another interface now"),
        (at(WIFI4, TEMPORARY, sources=(WIFI4.host, TEMPORARY.host)), "2001:db8:1::5 -> 2001:db8:1::7e3f"),
    ],
    ids=["offline", "gateway", "another interface", "address gone", "same address, new interface", "IPv6 address gone"],
)
def test_major_changes(after: NetworkState, why: str) -> None:
    """Where packets to the Internet leave another way than before, the change is major; and so is the way back."""
    core = NetworkWatchCore(HOME, 0.0)
    change = core.looked(after)
    assert change is not None and change.major and change.state == after
    assert why in ", ".join(change.why)
    back = core.looked(HOME)
    assert back is not None and back.major


def test_a_second_family_is_major() -> None:
    """IPv6 that comes after IPv4 opens new ways, so paths are asked again."""
    core = NetworkWatchCore(NetworkState((WIFI4,), (ROUTE4,), (WIFI4.host,)), 0.0)
    change = core.looked(HOME)
    assert change is not None and change.major


def test_the_address_that_we_are_bound_to_matters() -> None:
    """An address that is not the way out matters where a socket of ours is bound to it."""
    for in_use, major in (((DOCKER.host,), True), ((WIFI4.host,), False)):
        core = NetworkWatchCore(at(WIFI4, WIFI6, DOCKER), 0.0)
        change = core.looked(HOME, in_use)
        assert change is not None and change.major is major
        change = core.looked(at(WIFI4, WIFI6, DOCKER), in_use)
        assert change is not None and change.major is major


def test_a_link_that_was_lost_and_is_back() -> None:
    """Losing and regaining the link of the interface in use is major though nothing else differs; of others it is
    nothing."""
    core = NetworkWatchCore(at(WIFI4, WIFI6, DOCKER), 0.0)
    state = core.state
    core.woken(1.0, [(7, False), (99, False), (3, True)])
    assert core.looked(state) is None
    core.woken(2.0, [(3, False)])
    change = core.looked(state)
    assert change is not None and change.why == ("wlan0: its link was lost or came back",) * 2
    core.woken(3.0, [(3, False)])
    assert core.looked(state) is None
    core.woken(4.0, [(3, True)])
    change = core.looked(state)
    assert change is not None and change.major
    core.woken(5.0, [(3, False), (3, True)])
    change = core.looked(state)
    assert change is not None and change.major


def test_a_burst_is_one_look() -> None:
    """A look is wanted after a short quiet, and not put off for ever by a network that never rests."""
    core = NetworkWatchCore(HOME, 0.0)
    assert core.next_look() == float("inf")
    core.woken(10.0)
    assert core.next_look() == pytest.approx(10.0 + SETTLE)
    core.woken(10.04)
    assert core.next_look() == pytest.approx(10.04 + SETTLE)
    for step in range(100):
        core.woken(10.04 + step / 100)
    assert core.next_look() == pytest.approx(10.0 + LONGEST)
    core.looked(HOME)
    assert core.next_look() == float("inf")


@given(st.lists(st.tuples(st.floats(0, 0.3), st.sampled_from([HOME, OFFLINE, at(WIFI4, WIFI6, DOCKER)])), max_size=30))
def test_the_last_change_is_never_lost(steps: list[tuple[float, NetworkState]]) -> None:
    """Whatever comes in whatever rhythm, at rest the core has told of the state in which the network came to rest."""
    core = NetworkWatchCore(HOME, 0.0)
    now, network, told = 0.0, HOME, HOME
    for pause, state in [*steps, (1.0, None)]:
        end = now + pause
        while core.next_look() <= end:
            now = core.next_look()
            change = core.looked(network)
            told = told if change is None else change.state
        now = end
        if state is not None:
            network = state
            core.woken(now)
    assert told == network


@pytest.mark.parametrize("slept", [SLEPT, 60.0, 86_400.0])
def test_sleep_is_seen_by_the_boot_clock(slept: float) -> None:
    """Where one clock counted on while the other stood still, the machine slept, and a look is wanted at once."""
    core = NetworkWatchCore(HOME, 100.0, 500.0)
    core.expect(101.0)
    assert core.clocks(101.0, 501.0) == 0.0
    assert core.next_look() == float("inf")
    assert core.clocks(102.0, 502.0 + slept) == pytest.approx(slept)
    assert core.next_look() <= 102.0
    change = core.looked(HOME)
    assert change is not None and change.major and change.slept == pytest.approx(slept)
    assert core.clocks(103.0, 503.0 + slept) == 0.0
    assert core.looked(HOME) is None


def test_sleep_is_seen_by_a_late_timer() -> None:
    """Without a second clock a timer that is very late tells of it; a busy second or two does not."""
    core = NetworkWatchCore(HOME, 100.0)
    core.expect(101.0)
    assert core.clocks(103.5) == 0.0
    core.expect(104.5)
    assert core.clocks(104.5 + LATE) == pytest.approx(LATE)
    assert core.looked(HOME) is not None


def test_clocks_that_drift_are_no_sleep() -> None:
    """Milliseconds between the clocks, in either direction, are no sleep however often they come."""
    core = NetworkWatchCore(HOME, 0.0, 0.0)
    boot = 0.0
    for second in range(1, 1000):
        boot += 1.01 if second % 2 else 0.99
        core.expect(float(second))
        assert core.clocks(float(second), boot) == 0.0
