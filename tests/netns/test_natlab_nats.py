"""The lab's own NATs and firewalls do what they are named after, by IPv4 and by IPv6."""

from __future__ import annotations

import socket

import pytest

from tests.netns.datagrams import OpenSocket, come_before, tell
from tom_connect.addr import SocketAddr, is_local
from tom_connect.testing.natlab import Lab, LabError, Nat
from tom_connect.testing.natlab.probe import Behaviour, Dependence, probe

ANY, ADDRESS, BOTH = Dependence.NOTHING, Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT
KINDS = {
    Nat.NONE: (ANY, ANY),
    Nat.OPEN: (ANY, ANY),
    Nat.RESTRICTED: (ANY, ADDRESS),
    Nat.MODERATE: (ANY, BOTH),
    Nat.STRICT: (BOTH, BOTH),
}


@pytest.mark.parametrize("hairpin", [False, True], ids=["plain", "hairpin"])
@pytest.mark.parametrize("remap", [False, True], ids=["kept", "remapped"])
@pytest.mark.parametrize("kind", Nat, ids=lambda kind: kind.value)
def test_each_kind_of_nat_is_what_it_says(natlab: Lab, kind: Nat, remap: bool, hairpin: bool) -> None:
    """A probe with plain sockets finds mapping, filtering, port preservation and hairpinning of each kind."""
    near, far = natlab.host("near"), natlab.host("far")
    router = natlab.router("router", kind, remap=remap, hairpin=hairpin)
    host, neighbour = natlab.host("host", router), natlab.host("neighbour", router)
    mapping, filtering = KINDS[kind]
    translates = kind is not Nat.NONE
    assert probe(host, near, far, neighbour) == Behaviour(
        mapping,
        filtering,
        translates=translates,
        keeps_ports=not translates or (not remap and kind is not Nat.STRICT),
        hairpins=hairpin or not translates,
    )


def test_public_addresses_pass_our_own_filter(natlab: Lab) -> None:
    """Addresses that a lab takes for public ones are such for tom-connect too, private ones are local."""
    home, office = natlab.router("home", ipv6="firewall"), natlab.router("office", Nat.NONE)
    carrier = natlab.router("carrier")
    laptop, server, relay = natlab.host("laptop", home), natlab.host("server", office), natlab.host("relay")
    customer = natlab.router("customer", behind=carrier)
    public = [home.wan, home.wan6, laptop.addr6, server.addr, relay.addr, relay.addr6]
    assert not any(is_local(SocketAddr(addr, 1)) for addr in public)
    assert all(is_local(SocketAddr(addr, 1)) for addr in (laptop.addr, customer.wan))


def test_inside_addresses_cannot_be_reached_from_outside(natlab: Lab, udp: OpenSocket) -> None:
    """A router without a mapping lets nothing in, not even to a host whose private address is known."""
    outside = udp(natlab.host("outside"))
    inside = udp(natlab.host("inside", natlab.router("router", Nat.OPEN)))
    outside.sendto(b"private", inside.getsockname())
    mapped = tell(inside, outside)
    outside.sendto(b"mapped", mapped)
    assert come_before(inside, b"mapped") == set()


def test_carrier_grade_nat_adds_its_own_behaviour(natlab: Lab) -> None:
    """A home router behind a carrier's strict one has an address of RFC 6598, and its hosts meet a strict NAT."""
    near, far = natlab.host("near"), natlab.host("far")
    carrier = natlab.router("carrier", Nat.STRICT)
    home = natlab.router("home", Nat.OPEN, behind=carrier)
    assert home.wan.startswith("100.64.")
    found = probe(natlab.host("host", home), near, far)
    assert (found.mapping, found.filtering, found.translates) == (BOTH, BOTH, True)


@pytest.mark.parametrize("hairpin", [False, True])
def test_customers_of_one_carrier_meet_if_it_hairpins(natlab: Lab, udp: OpenSocket, hairpin: bool) -> None:
    """Two homes behind one carrier reach each other at their mapped addresses where the carrier hairpins, else not."""
    outside = udp(natlab.host("outside"))
    carrier = natlab.router("carrier", Nat.MODERATE, hairpin=hairpin)
    homes = [natlab.router(name, Nat.MODERATE, behind=carrier) for name in ("one", "two")]
    a, b = (udp(natlab.host(f"host-{number}", home)) for number, home in enumerate(homes))
    at_a, at_b = tell(a, outside), tell(b, outside)
    assert at_a[0] == at_b[0] == carrier.wan
    b.sendto(b"opens b's home router", at_a)
    a.sendto(b"from a", at_b)
    outside.sendto(b"last", at_b)
    assert come_before(b, b"last") == ({b"from a"} if hairpin else set())


def test_a_router_that_rejects_tracks_what_it_answers(natlab: Lab, udp: OpenSocket) -> None:
    """Where unsolicited packets are answered, who opens too early is later seen another port of ours (a known trap)."""
    outside = udp(natlab.host("outside"))
    drops, rejects = natlab.router("drops"), natlab.router("rejects", reject=True)
    for router in (drops, rejects):
        inside = udp(natlab.host(f"behind-{router.name}", router))
        stranger = udp(natlab.host(f"stranger-of-{router.name}"))
        mapped = tell(inside, outside)
        stranger.sendto(b"too early", mapped)
        # The router has dealt with it when it has dealt with what came after it.
        outside.sendto(b"last", mapped)
        assert come_before(inside, b"last") == set()
        assert (tell(inside, stranger) == mapped) == (router is drops)


def test_a_packet_with_a_low_ttl_opens_only_its_own_router(natlab: Lab, udp: OpenSocket) -> None:
    """A packet that dies on the way leaves no trace at the other router, but lets answers into its own."""
    outside = udp(natlab.host("outside"))
    near, far = natlab.router("near"), natlab.router("far", reject=True)
    a, b = udp(natlab.host("a", near)), udp(natlab.host("b", far))
    at_a, at_b = tell(a, outside), tell(b, outside)
    a.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 3)
    a.sendto(b"dies on the way", at_b)
    a.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
    # b's packet gets through a's router, and leaves from the port that a was told: both show what the text says.
    b.sendto(b"hello", at_a)
    data, source = a.recvfrom(100)
    assert (data, source) == (b"hello", at_b)


@pytest.mark.parametrize("firewall", ["open", "firewall"])
def test_ipv6_firewalls(natlab: Lab, udp: OpenSocket, firewall: str) -> None:
    """By IPv6 nothing is translated; a firewall drops what nobody inside asked for and passes answers."""
    outside, stranger = (udp(natlab.host(name), version=6) for name in ("outside", "stranger"))
    router = natlab.router("router", ipv6="open" if firewall == "open" else "firewall")
    inside = udp(natlab.host("inside", router), version=6)
    here = inside.getsockname()
    assert tell(inside, outside) == here[:2]
    stranger.sendto(b"unasked", here)
    outside.sendto(b"last", here)
    assert come_before(inside, b"last") == ({b"unasked"} if firewall == "open" else set())


def test_nets_of_one_family(natlab: Lab, udp: OpenSocket) -> None:
    """A net without IPv4 has IPv6 alone, the usual one IPv4 alone, and a host says which address it lacks."""
    six = natlab.host("six", natlab.router("only6", ipv4=False, ipv6="firewall"))
    four = natlab.host("four", natlab.router("only4"))
    both = natlab.host("both")
    tell(udp(six, version=6), udp(both, version=6))
    tell(udp(four), udp(both))
    with pytest.raises(LabError, match="six has no IPv4"):
        _ = six.addr
    with pytest.raises(LabError, match="four has no IPv6"):
        _ = four.addr6
    for host, family, target in ((six, socket.AF_INET, both.addr), (four, socket.AF_INET6, both.addr6)):
        with host.socket(family) as sock, pytest.raises(OSError, match="unreachable"):
            sock.sendto(b"x", (target, 9))


def test_ipv6_behind_a_carrier_is_routed_through(natlab: Lab, udp: OpenSocket) -> None:
    """A home behind a carrier has public IPv6 addresses that are reached through both routers."""
    carrier = natlab.router("carrier", ipv6="open")
    home = natlab.router("home", behind=carrier, ipv6="open")
    inside, outside = (udp(natlab.host("inside", home), version=6), udp(natlab.host("outside"), version=6))
    tell(outside, inside)
    tell(inside, outside)
