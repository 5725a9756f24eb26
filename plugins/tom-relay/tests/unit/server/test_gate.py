"""What counts as one host."""

from __future__ import annotations

import pytest

from tom_relay.server.connection import host_of


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
