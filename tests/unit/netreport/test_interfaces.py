"""Interfaces: which are left out, which come last, and what Linux's route tables say."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tom_connect.config import EndpointConfig
from tom_connect.netreport.interfaces import (
    DefaultRoute,
    InterfaceAddress,
    NetworkState,
    default_routes,
    network_state,
    source_addresses,
)

BUILT_IN = EndpointConfig().skip_interfaces
LO = InterfaceAddress("lo", 1, "127.0.0.1", 8)
ETH = InterfaceAddress("eth0", 2, "192.168.1.5", 24)
TAILSCALE = InterfaceAddress("tailscale0", 9, "100.100.1.2", 32)


def named(name: str, host: str = "172.20.0.1", prefix: int = 16) -> InterfaceAddress:
    return InterfaceAddress(name, 20, host, prefix)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("docker0", False),
        ("br-1a2b3c4d5e6f", False),
        ("br-lan", True),
        ("br0", True),
        ("veth1a2b3c4", False),
        ("virbr0", False),
        ("vmnet8", False),
        ("vboxnet0", False),
        ("lxdbr0", False),
        ("vEthernet (WSL)", False),
        ("VMware Network Adapter VMnet8", False),
        ("eth1", True),
        ("wlan0", True),
        ("en0", True),
        ("Wi-Fi", True),
        ("wg0", True),
        ("utun3", True),
    ],
)
def test_virtual_bridges_are_left_out(name: str, kept: bool) -> None:
    """Bridges to a machine's own containers and virtual machines are left out by their names, and nothing else is."""
    address = named(name)
    state = NetworkState((LO, ETH, address), (DefaultRoute(4, "eth0", "192.168.1.1"),), (ETH.host,))
    assert (address in state.kept(BUILT_IN)) is kept
    assert state.skipped_networks(BUILT_IN) == (() if kept else (ipaddress.ip_network("172.20.0.0/16"),))


def test_a_bridge_that_leads_to_the_internet_is_kept() -> None:
    """A host of virtual machines has its own address on a bridge; unless the user names it, it stays."""
    bridge = named("vmnet0", "192.168.1.5", 24)
    state = NetworkState((LO, bridge, named("docker0")), (), (bridge.host,))
    assert state.kept(BUILT_IN) == (LO, bridge)
    assert state.kept(("vmnet0",)) == (LO, named("docker0"))
    assert state.kept((*BUILT_IN, "vmnet*0")) == (LO,)


def test_the_only_interface_is_kept() -> None:
    """Where there is nothing but an interface of a virtual bridge's name, it is the network."""
    state = NetworkState((LO, named("veth0")))
    assert state.kept(BUILT_IN) == (LO, named("veth0"))
    assert state.kept(("veth*", "x")) == (LO, named("veth0"))


def test_tunnels_come_last() -> None:
    """Addresses of virtual private networks are kept, behind all others."""
    state = NetworkState((TAILSCALE, named("utun4"), ETH))
    assert state.kept(BUILT_IN) == (ETH, TAILSCALE, named("utun4"))


def test_a_network_that_is_also_elsewhere_is_not_left_out() -> None:
    """Where a bridge has the same network as an interface that is kept, addresses in it may be real."""
    state = NetworkState((ETH, named("docker0", "192.168.0.1", 16), named("docker1")), (), (ETH.host,))
    assert state.skipped_networks(BUILT_IN) == (ipaddress.ip_network("172.20.0.0/16"),)


ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
lo\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
"""
ZERO = "00000000000000000000000000000000"
ROUTE6 = f"""\
fd000000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0
{ZERO} 00 {ZERO} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
"""


def test_linux_route_tables(tmp_path: Path) -> None:
    """Of several default routes the one with the least metric counts, in each family; unreachable ones don't."""
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ipv6_route").write_text(ROUTE6)
    assert default_routes(tmp_path) == (DefaultRoute(4, "eth0", "192.0.2.1"), DefaultRoute(6, "eth0", "fe80::1"))
    (tmp_path / "route").write_text("\n".join(line for line in ROUTE.splitlines() if line[:3] not in ("eth", "wla")))
    assert default_routes(tmp_path)[0] == DefaultRoute(4, "tun0", "")


@pytest.mark.parametrize("text", ["", "\n", "x", "Iface\neth0 zz 0 0\n", "Iface\neth0 00000000 01 3 0 0 0 0"])
def test_strange_route_tables(tmp_path: Path, text: str) -> None:
    """Tables that are missing, cut off or of another form give no route and no error."""
    assert default_routes(tmp_path) == ()
    (tmp_path / "route").write_text(text)
    (tmp_path / "ipv6_route").write_text(text)
    assert default_routes(tmp_path) == ()


def test_this_machine() -> None:
    """What is said of this machine agrees with itself: ways out are interfaces, sources are addresses of them."""
    state = network_state()
    names = {address.interface for address in state.addresses}
    assert {route.interface for route in state.routes} <= names | {"lo"}
    assert all(state.owner_of(source) is not None for source in source_addresses())
    assert state == network_state()
