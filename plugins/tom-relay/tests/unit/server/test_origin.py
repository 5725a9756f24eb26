"""Where a client comes from, and what counts as one host."""

from __future__ import annotations

import ipaddress

import pytest
from multidict import CIMultiDict

from tom_relay.server.origin import host_of, public_origin

PROXIES = (ipaddress.ip_network("127.0.0.1/32"), ipaddress.ip_network("203.0.113.0/28"))


@pytest.mark.parametrize(
    ("peername", "host"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        ("/run/socket", ""),
        (None, ""),
        ((), ""),
    ],
)
def test_hosts_are_ipv4_addresses_and_ipv6_networks(peername: object, host: str) -> None:
    """An IPv6 host owns a /64, so all of it counts as one; what is no address counts together."""
    assert host_of(peername) == host


@pytest.mark.parametrize(
    ("peer", "headers", "origin"),
    [
        # Directly.
        ("198.51.100.7", {}, "198.51.100.7"),
        ("::ffff:198.51.100.7", {}, "198.51.100.7"),
        ("2001:db8::7", {}, "2001:db8::7"),
        # A proxy may stand here and say nothing.
        ("127.0.0.1", {}, None),
        ("::1", {}, None),
        ("172.17.0.1", {}, None),
        ("fe80::1%eth0", {}, None),
        ("ff02::1", {}, None),
        # A proxy that nobody vouches for, or a client that plays one.
        ("198.51.100.7", {"X-Forwarded-For": "198.51.100.99"}, None),
        ("198.51.100.7", {"x-real-ip": "198.51.100.99"}, None),
        ("198.51.100.7", {"Forwarded": "for=198.51.100.99"}, None),
        ("198.51.100.7", {"Via": "1.1 proxy"}, None),
        # A proxy of ours: the last hop that is not ours, whatever its client claimed before.
        ("203.0.113.5", {"X-Forwarded-For": "198.51.100.7"}, "198.51.100.7"),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.66, 198.51.100.7,203.0.113.5"}, "198.51.100.7"),
        ("127.0.0.1", {"X-Forwarded-For": "198.51.100.7, 10.0.0.1"}, None),
        ("127.0.0.1", {"X-Forwarded-For": "198.51.100.7, nonsense"}, None),
        ("127.0.0.1", {"X-Forwarded-For": "198.51.100.7,"}, None),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, None),
        ("127.0.0.1", {"Forwarded": "for=198.51.100.7"}, None),
        ("127.0.0.1", {"X-Forwarded-For": "198.51.100.7" + ",127.0.0.1" * 40}, None),
    ],
)
def test_an_origin_is_told_only_if_it_is_certain(peer: str, headers: dict[str, str], origin: str | None) -> None:
    """The connection's address, or what a trusted proxy adds; nothing that a client could make up."""
    values = [value for name, value in headers.items() if name == "X-Forwarded-For"]
    found = public_origin((peer, 4433), CIMultiDict(headers), values, PROXIES)
    assert (found and str(found)) == origin


def test_the_last_of_several_headers_counts() -> None:
    """A proxy may add a header of its own after the client's."""
    values = ["192.0.2.66", "198.51.100.7"]
    headers = CIMultiDict(("X-Forwarded-For", value) for value in values)
    assert str(public_origin(("127.0.0.1", 1), headers, values, PROXIES)) == "198.51.100.7"
    assert public_origin("/run/socket", headers, values, PROXIES) is None
