"""Which addresses a lab uses; each lab has all of them, since nothing leaves its namespaces.

The public ones come from ranges kept for benchmarks and documentation (RFC 2544, RFC 3849), so that a packet that
escaped would reach nobody. `ipaddress` says of both that they are not global; tom-connect's own filter treats them
as public. Each public host and router has a network of its own, IPv4 /24 and IPv6 /48, as most households have: whoever
counts by networks, as nodes of the DHT do (BEP 42, routing tables), would otherwise take all of a lab for one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

import attrs

from tom_connect.testing.natlab.namespaces import LabError

GATEWAY4: Final = "198.18.0.1"
"""The internet's end of every public link."""
GATEWAY6: Final = "fe80::1"
"""The upper end of every link, by IPv6."""

INTERNET6: Final = "2001:db8::1"
"""Where the internet itself answers by IPv6, as it does at GATEWAY4."""

_NETWORKS4: Final = 255
"""Public /24 networks but the internet's own, after which each gets a second address."""

IPv4Network = ipaddress.IPv4Network
IPv6Network = ipaddress.IPv6Network


def _numbers(first: int, last: int) -> Iterator[int]:
    return iter(range(first, last + 1))


@attrs.define(eq=False)
class AddressPlan:
    """Hands out addresses, never one twice. Each method raises LabError when its range is used up."""

    _hosts: Iterator[int] = attrs.field(factory=lambda: _numbers(0, 253 * _NETWORKS4 - 1))
    _hosts6: Iterator[int] = attrs.field(factory=lambda: _numbers(0x1000, 0x7FFF))
    _routed: Iterator[int] = attrs.field(factory=lambda: _numbers(1, 254))
    _routed6: Iterator[int] = attrs.field(factory=lambda: _numbers(0x8000, 0xFFFF))
    _private: Iterator[int] = attrs.field(factory=lambda: _numbers(1, 254))
    _carrier: Iterator[int] = attrs.field(factory=lambda: _numbers(0, 254))

    def public4(self) -> str:
        """A public IPv4 address of 198.18.0.0/16: 198.18.1.2, 198.18.2.2 and so on, each in another /24 up to 255."""
        of_network, network = divmod(self._next(self._hosts), _NETWORKS4)
        return f"198.18.{1 + network}.{2 + of_network}"

    def public6(self) -> str:
        """A public IPv6 address of 2001:db8::/32, in a /48 of its own: 2001:db8:1000::1, 2001:db8:1001::1 and so on."""
        return f"2001:db8:{self._next(self._hosts6):x}::1"

    def routed4(self) -> IPv4Network:
        """A public /24 of 198.19.0.0/16, for a net without NAT."""
        return IPv4Network(f"198.19.{self._next(self._routed)}.0/24")

    def routed6(self) -> IPv6Network:
        """A public /64 of 2001:db8::/32, in a /48 of its own: 2001:db8:8000::/64, 2001:db8:8001::/64 and so on."""
        return IPv6Network(f"2001:db8:{self._next(self._routed6):x}::/64")

    def private4(self) -> IPv4Network:
        """A private /24 of 192.168.0.0/16."""
        return IPv4Network(f"192.168.{self._next(self._private)}.0/24")

    def carrier4(self) -> IPv4Network:
        """A /24 of 100.64.0.0/16, which carriers use inside (RFC 6598)."""
        return IPv4Network(f"100.64.{self._next(self._carrier)}.0/24")

    @staticmethod
    def _next(numbers: Iterator[int]) -> int:
        try:
            return next(numbers)
        except StopIteration:
            raise LabError("the lab has no addresses of this kind left") from None
