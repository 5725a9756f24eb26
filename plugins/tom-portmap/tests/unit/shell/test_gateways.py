"""The default gateway in what each system shows of its routes."""

from __future__ import annotations

import sys

import pytest

from tom_portmap import gateways
from tom_portmap.gateways import (
    MAX_GATEWAYS,
    Gateway,
    default_gateways,
    parse_linux_ipv4,
    parse_linux_ipv6,
    parse_netstat,
    parse_windows,
)

LINUX4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
tun1\t00000000\t0100080A\t0003\t0\t0\t50\t00000080\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""
ANY6 = f"{'0' * 32} 00"
LINUX6 = f"""\
{ANY6} {ANY6} fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
{ANY6} {ANY6} 20010db8000000000000000000000001 00000100 00000001 00000000 00000003     eth1
fe800000000000000000000000000000 40 {ANY6} 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
{ANY6} {ANY6} 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
"""
MACOS = """\
Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.1.1        UGScg                 en0
default            link#22            UCSIg         bridge100      !
127                127.0.0.1          UCS                   lo0
192.168.1          link#11            UCS                   en0      !

Internet6:
Destination                             Gateway                                 Flags               Netif Expire
default                                 fe80::1%en0                             UGcg                  en0
default                                 fe80::%utun0                            UGcIg               utun0
::1                                     ::1                                     UHL                   lo0
"""
WINDOWS = """\
Schnittstellenliste
 12...00 15 5d 01 02 03 ......Hyper-V Virtual Ethernet Adapter

IPv4-Routentabelle
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0      192.168.1.1    192.168.1.20     25
          0.0.0.0          0.0.0.0   Auf Verbindung        10.8.0.2     35
        127.0.0.0        255.0.0.0   Auf Verbindung       127.0.0.1    331

IPv6-Routentabelle
 If Metrik Netzwerkziel             Gateway
 12    281 ::/0                     fe80::1
  1    331 ::1/128                  Auf Verbindung
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the sample is from a little-endian machine")
def test_the_table_of_linux() -> None:
    """Default routes with a gateway and their metrics; tunnels without one and half defaults are left out."""
    assert parse_linux_ipv4(LINUX4.splitlines()) == [Gateway(600, "192.168.1.1"), Gateway(100, "10.0.0.1")]


def test_the_ipv6_table_of_linux() -> None:
    """A link-local gateway has its interface with it."""
    found = parse_linux_ipv6(LINUX6.splitlines())
    assert found == [Gateway(0x400, "fe80::1%eth0"), Gateway(0x100, "2001:db8::1")]
    assert [gateway.version for gateway in found] == [6, 6]


def test_netstat_of_macos() -> None:
    """The first row wins; what is no address is no gateway."""
    hosts = [gateway.host for gateway in sorted(parse_netstat(MACOS.splitlines()))]
    assert hosts[:2] == ["192.168.1.1", "fe80::1%en0"]
    assert "link#22" not in hosts


def test_route_print_of_windows() -> None:
    """Whatever language its headings are in; the number of the interface is the scope of a link-local gateway."""
    assert parse_windows(WINDOWS.splitlines()) == [Gateway(25, "192.168.1.1"), Gateway(281, "fe80::1%12")]


@pytest.mark.parametrize("parse", [parse_linux_ipv4, parse_linux_ipv6, parse_netstat, parse_windows])
def test_anything_else_gives_no_gateway(parse: object) -> None:
    """Other systems' tables, and none at all."""
    assert callable(parse)
    for text in ("", "garbage\n\n default x\n", "default default default default default\n"):
        assert parse(text.splitlines()) == []


async def test_few_gateways_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of a family, the best, each once, though there be a thousand routes; without tables none."""
    monkeypatch.setattr(gateways, "_proc_net", lambda: None)
    many = [Gateway(1000 - number, f"10.0.{number % 200}.1") for number in range(1000)]
    monkeypatch.setattr(gateways, "_printed", lambda: many)
    found = await default_gateways()
    assert found == sorted(many)[:MAX_GATEWAYS]

    def fail() -> list[Gateway]:
        raise OSError("no such command")

    monkeypatch.setattr(gateways, "_printed", fail)
    assert await default_gateways() == []


async def test_this_machine_is_asked_without_an_error() -> None:
    """Whatever it has: texts of addresses, at most eight."""
    found = await default_gateways()
    assert len(found) <= 2 * MAX_GATEWAYS
    assert all(gateway.host for gateway in found)
