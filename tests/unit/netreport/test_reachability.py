"""Whether strangers reach us, judged by what is known of the network."""

from __future__ import annotations

from typing import Any

import pytest

from tom_connect.addr import SocketAddr, is_local
from tom_connect.netreport.reachability import NOT_DIRECT, UNKNOWN, reachability
from tom_connect.netreport.report import FamilyReport, Filtering, Mapping, NetReport

PUBLIC, OUTSIDE, PRIVATE = (SocketAddr.parse(text) for text in ("198.19.1.2:4433", "198.19.9.9:5000", "10.0.0.2:4433"))
SIX = SocketAddr.parse("[2001:db8::1]:4433")
OPEN: dict[str, Any] = {"nat": True, "reflexive": (OUTSIDE,), "mapping": Mapping.ENDPOINT_INDEPENDENT}


def judged(local: tuple[SocketAddr, ...], mapped: tuple[SocketAddr, ...] = (), **ipv4: Any) -> tuple[Any, str | None]:
    report = NetReport(ipv4=FamilyReport(4, **ipv4), ipv6=FamilyReport(6, filtering=Filtering.UNKNOWN))
    found = reachability(report, local, mapped, lambda addr: not is_local(addr))
    return found.addrs, found.why_not


@pytest.mark.parametrize(
    ("local", "mapped", "facts", "addrs", "words"),
    [
        ((PRIVATE,), (), {}, (), UNKNOWN),
        ((PUBLIC,), (), {}, (PUBLIC,), None),
        ((PUBLIC,), (), {"nat": False, "reflexive": (PUBLIC,)}, (PUBLIC,), None),
        ((PUBLIC,), (), {"nat": False, "filtering": Filtering.ADDRESS_AND_PORT_DEPENDENT}, (), "firewall"),
        ((PRIVATE,), (), {"nat": True, "reflexive": (OUTSIDE,)}, (), "a NAT lets nobody in"),
        ((PRIVATE,), (), {**OPEN, "filtering": Filtering.ENDPOINT_INDEPENDENT}, (OUTSIDE,), None),
        ((PRIVATE,), (), {**OPEN, "filtering": Filtering.ADDRESS_DEPENDENT}, (), "a NAT lets nobody in"),
        ((PRIVATE,), (OUTSIDE,), {"nat": True}, (OUTSIDE,), None),
        ((PRIVATE,), (OUTSIDE,), {"nat": True, "carrier_nat": True}, (), "provider's own NAT"),
        ((PRIVATE, SIX), (), {"nat": True, "reflexive": (OUTSIDE,)}, (SIX,), None),
    ],
)
def test_what_reaches_us(
    local: tuple[SocketAddr, ...],
    mapped: tuple[SocketAddr, ...],
    facts: dict[str, Any],
    addrs: tuple[SocketAddr, ...],
    words: str | None,
) -> None:
    """There are addresses, or a reason that says what stands in the way."""
    found, why_not = judged(local, mapped, **facts)
    assert found == addrs
    assert (why_not is None) == bool(addrs)
    assert words is None or words in str(why_not)


def test_without_direct_packets_or_udp_nobody_does() -> None:
    """Neither a node that takes no direct packets nor one whose UDP is blocked is reached."""
    report = NetReport(udp_blocked=True)
    assert reachability(NetReport(), [PUBLIC], [], lambda _addr: True, direct=False).why_not == NOT_DIRECT
    assert "UDP" in str(reachability(report, [PUBLIC], [], lambda _addr: True).why_not)
