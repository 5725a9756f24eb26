"""Where two nodes can be: behind each pair of NAT kinds, and in the odder nets that there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from tom_connect.testing.natlab import Lab, Nat, Router, Wire

KINDS: Final = (Nat.NONE, Nat.OPEN, Nat.MODERATE, Nat.STRICT)
PAIRS: Final = tuple(itertools.product(KINDS, KINDS))
RELAYED: Final = {
    (Nat.STRICT, Nat.STRICT): (
        "both NATs choose a random port for each destination, so both sides would have to guess: with 256 ports open "
        "and 2,048 tried, that meets once in a thousand attempts"
    )
}
"""Pairs that stay on the relay, with the reason."""
PROBING: Final = frozenset({(Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE)})
"""Pairs that meet by trying ports, which takes seconds."""

Routers = tuple[Router, Router]


def homes(lab: Lab, name: str, dialer: Nat, listener: Nat, wire: Wire | None = None) -> Routers:
    """Two routers on the internet."""
    return lab.router(f"{name}-a", dialer, wire=wire), lab.router(f"{name}-b", listener, wire=wire)


def same_router(lab: Lab, name: str, wire: Wire | None = None, *, hairpin: bool = False) -> Routers:
    """One LAN."""
    router = lab.router(name, hairpin=hairpin, wire=wire)
    return router, router


def same_router_hairpin(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """One LAN, whose router hairpins."""
    return same_router(lab, name, wire, hairpin=True)


def two_carriers(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """Two homes, each behind a carrier's NAT of its own."""
    carriers = homes(lab, f"{name}-carrier", Nat.MODERATE, Nat.MODERATE, wire)
    return lab.router(f"{name}-a", behind=carriers[0]), lab.router(f"{name}-b", behind=carriers[1])


def one_carrier(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """Two homes behind one carrier's NAT, which hairpins as RFC 6888 demands."""
    carrier = lab.router(f"{name}-carrier", hairpin=True, wire=wire)
    return lab.router(f"{name}-a", behind=carrier), lab.router(f"{name}-b", behind=carrier)


def remapped(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """Two homes whose routers give every host's port another one."""
    return lab.router(f"{name}-a", remap=True, wire=wire), lab.router(f"{name}-b", remap=True, wire=wire)


def restricted(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """Two homes whose routers filter by address alone."""
    return homes(lab, name, Nat.RESTRICTED, Nat.RESTRICTED, wire)


def ipv6_only(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """Two nets without IPv4, whose firewalls let in what was asked for."""
    one = lab.router(f"{name}-a", ipv4=False, ipv6="firewall", wire=wire)
    return one, lab.router(f"{name}-b", ipv4=False, ipv6="firewall", wire=wire)


def ipv4_and_dual(lab: Lab, name: str, wire: Wire | None = None) -> Routers:
    """A home with IPv4 alone, and one with both families."""
    return lab.router(f"{name}-a", wire=wire), lab.router(f"{name}-b", ipv6="firewall", wire=wire)


EXTRAS: Final[dict[str, Callable[[Lab, str, Wire | None], Routers]]] = {
    "same-router": same_router,
    "same-router-hairpin": same_router_hairpin,
    "two-carriers": two_carriers,
    "one-carrier": one_carrier,
    "remapped": remapped,
    "restricted": restricted,
    "ipv6-only": ipv6_only,
    "ipv4-and-dual": ipv4_and_dual,
}
"""Nets beside the matrix, by name."""
