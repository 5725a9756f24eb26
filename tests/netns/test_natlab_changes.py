"""What a lab changes while it runs: mappings, addresses, nets, and links that are down, blocked or cut."""

from __future__ import annotations

import socket

import pytest

from tests.netns.datagrams import PATIENCE, OpenSocket, come_before, tell
from tom_connect.testing.natlab import Host, Lab, Nat, Wire


def listening(host: Host) -> socket.socket:
    """A TCP server's socket in a host."""
    made = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind((host.addr, 0))
    made.listen()
    return made


def test_blocked_udp_leaves_tcp(natlab: Lab, udp: OpenSocket) -> None:
    """A router that blocks UDP lets TCP through, and UDP again when it is told so."""
    router, outside = natlab.router("router", block_udp=True), natlab.host("outside")
    host = natlab.host("inside", router)
    inside, outer = udp(host), udp(outside)
    inside.sendto(b"blocked", outer.getsockname())
    with listening(outside) as server, host.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(server.getsockname())
    router.block_udp(False)
    inside.sendto(b"last", outer.getsockname())
    assert come_before(outer, b"last") == set()
    router.block_udp()
    inside.sendto(b"blocked again", outer.getsockname())
    router.block_udp(False)
    inside.sendto(b"last", outer.getsockname())
    assert come_before(outer, b"last") == set()


@pytest.mark.parametrize("kind", [Nat.OPEN, Nat.RESTRICTED, Nat.MODERATE, Nat.STRICT], ids=lambda kind: kind.value)
def test_rebinding_forgets_mappings(natlab: Lab, udp: OpenSocket, kind: Nat) -> None:
    """After a rebinding the old mapped address is dead, and packets leave from another port."""
    router = natlab.router("router", kind)
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    before = tell(inside, outside)
    for _ in range(5):
        router.rebind()
        outside.sendto(b"to the old port", before)
        after = tell(inside, outside)
        outside.sendto(b"last", after)
        assert come_before(inside, b"last") == set()
        assert after[0] == before[0]
        if kind is not Nat.STRICT:  # its ports are random, also the same one may come
            assert after != before
        before = after


def test_rebinding_can_keep_ports(natlab: Lab, udp: OpenSocket) -> None:
    """A router that rebinds with the same ports lets nothing in until the host has sent."""
    router = natlab.router("router")
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    before = tell(inside, outside)
    router.rebind(keep_ports=True)
    outside.sendto(b"too early", before)
    assert tell(inside, outside) == before
    outside.sendto(b"last", before)
    assert come_before(inside, b"last") == set()


def test_a_new_address_replaces_the_old_one(natlab: Lab, udp: OpenSocket) -> None:
    """After a new dial-in packets leave from the new outer address, and the old one leads nowhere."""
    router = natlab.router("router", Nat.OPEN)
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    before = tell(inside, outside)
    assert before[0] == router.wan
    router.new_address()
    outside.sendto(b"to the old address", before)
    after = tell(inside, outside)
    assert after[0] == router.wan != before[0]
    outside.sendto(b"last", after)
    assert come_before(inside, b"last") == set()


def test_a_router_without_nat_keeps_its_network_under_a_new_address(natlab: Lab, udp: OpenSocket) -> None:
    """A public network stays reachable when the router in front of it gets another address."""
    router = natlab.router("router", Nat.NONE)
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    router.new_address()
    tell(outside, inside)
    tell(inside, outside)


def test_a_home_behind_a_carrier_gets_a_new_address(natlab: Lab, udp: OpenSocket) -> None:
    """Behind a carrier too a router gets another address of the carrier's net, and works with it."""
    home = natlab.router("home", behind=natlab.router("carrier"))
    inside, outside = udp(natlab.host("inside", home)), udp(natlab.host("outside"))
    tell(inside, outside)
    before = home.wan
    home.new_address()
    assert home.wan != before
    tell(inside, outside)


def test_a_host_moves_between_nets(natlab: Lab, udp: OpenSocket) -> None:
    """A host that moves loses its address, gets one of the new net, and sockets bound to all addresses work on."""
    outside = udp(natlab.host("outside"))
    one, two = natlab.router("one"), natlab.router("two", ipv6="firewall")
    host = natlab.host("host", one)
    with host.socket() as sock:
        sock.bind(("", 0))
        assert tell(sock, outside)[0] == one.wan
        before = host.addr
        host.move(two)
        assert host.addr != before
        assert tell(sock, outside)[0] == two.wan
        assert before not in host.run(["ip", "address"]).stdout
        assert host.addr6 in host.run(["ip", "address"]).stdout
        host.move(None)
        assert tell(sock, outside)[0] == host.addr
        host.move(one)
        assert host.addr == before
        assert tell(sock, outside)[0] == one.wan


def test_a_flap_takes_addresses_and_routes_away(natlab: Lab, udp: OpenSocket) -> None:
    """While an interface is down nothing can be sent, and what comes is lost; afterwards all is as before."""
    outside, router = udp(natlab.host("outside")), natlab.router("router", ipv6="firewall")
    host = natlab.host("host", router)
    with host.socket() as sock:
        sock.bind(("", 0))
        mapped, before = tell(sock, outside), (host.addr, host.addr6)
        host.flap(down=True)
        with pytest.raises(OSError, match="unreachable"):
            sock.sendto(b"x", outside.getsockname())
        assert host.addr not in host.run(["ip", "address"]).stdout
        outside.sendto(b"lost", mapped)
        host.flap(down=False)
        assert (host.addr, host.addr6) == before
        assert tell(sock, outside) == mapped
        sock.settimeout(PATIENCE)
        outside.sendto(b"last", mapped)
        assert come_before(sock, b"last") == set()
    tell(udp(host, version=6), udp(natlab.host("other"), version=6))


def test_a_cut_link_swallows_packets_without_a_sign(natlab: Lab, udp: OpenSocket) -> None:
    """On a cut link sending succeeds and nothing arrives, in either direction, until it is mended."""
    outside, router = udp(natlab.host("outside")), natlab.router("router")
    host = natlab.host("host", router)
    inside = udp(host)
    mapped = tell(inside, outside)
    for node in (router, host):
        with natlab.cut(node):
            inside.sendto(b"lost", outside.getsockname())
            outside.sendto(b"lost", mapped)
            assert "state UP" in host.run(["ip", "link", "show", "eth0"]).stdout
        inside.sendto(b"last", outside.getsockname())
        assert come_before(outside, b"last") == set()
        outside.sendto(b"last", mapped)
        assert come_before(inside, b"last") == set()


@pytest.mark.parametrize("wire", [None, Wire()], ids=["plain", "wire"])
def test_a_cut_between_two_leaves_others_alone(natlab: Lab, udp: OpenSocket, wire: Wire | None) -> None:
    """A cut between two nodes stops what they send each other, by both families, and nothing else."""
    router = natlab.router("router", Nat.NONE, ipv6="open", wire=wire)
    inside, here, there = natlab.host("inside", router), natlab.host("here", wire=wire), natlab.host("there")
    sockets = [(udp(host), udp(host, version=6)) for host in (inside, here, there)]
    cut = natlab.cut(here, router)
    for ours, near, far in zip(*sockets, strict=True):
        ours.sendto(b"cut", near.getsockname())
        near.sendto(b"cut", ours.getsockname())
        tell(ours, far)
        tell(far, ours)
        tell(near, far)
        far.sendto(b"last", near.getsockname())
        assert come_before(near, b"last") == set()
    cut.mend()
    cut.mend()
    for ours, near, _ in zip(*sockets, strict=True):
        tell(ours, near)
        tell(near, ours)
