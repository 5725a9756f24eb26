"""Links of a lab, and what they hang on: the internet, or a router's LAN."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import attrs

from tom_connect.testing.natlab.addresses import GATEWAY4, GATEWAY6, INTERNET6, AddressPlan, IPv4Network, IPv6Network
from tom_connect.testing.natlab.namespaces import LabError, ip, settle
from tom_connect.testing.natlab.wire import Wire

IPNetwork = IPv4Network | IPv6Network


#: Routing tables of the internet, one for each round that a packet makes.
_HOP_TABLE: Final = 1000


@attrs.define(eq=False)
class Link:
    """One end is a device in a node's namespace, the other one in the namespace that it hangs on.

    `number` is unique in the lab; `addr` and `addr6` are the node's, with the lengths of their prefixes, `gateway` is
    the other side's IPv4 address, reached at `gateway_mac`; by IPv6 it is always GATEWAY6.
    """

    number: int
    namespace: str
    device: str
    far_namespace: str
    far_device: str
    wired: bool
    addr: str | None = None
    addr6: str | None = None
    length: int = 32
    length6: int = 128
    gateway: str = GATEWAY4
    gateway_mac: str = ""

    @property
    def mac(self) -> str:
        """The link-layer address of the node's end."""
        return mac_address(self.number, 1)

    @property
    def far_mac(self) -> str:
        """The link-layer address of the other end."""
        return mac_address(self.number, 2)

    def raised(self) -> list[str]:
        """The `ip` commands that bring the node's end up."""
        # Neighbours are given, not asked for: the kernel's table of them is one for all namespaces, and overflows.
        lines = ["link set lo up", f"link set {self.device} up"]
        if self.addr is not None:
            lines += [
                f"address replace {self.addr}/{self.length} dev {self.device}",
                f"neighbour replace {self.gateway} lladdr {self.gateway_mac} dev {self.device} nud permanent",
                f"route replace default via {self.gateway} dev {self.device} onlink",
            ]
        if self.addr6 is not None:
            lines += [
                f"address replace {self.addr6}/{self.length6} dev {self.device} nodad",
                f"neighbour replace {GATEWAY6} lladdr {self.gateway_mac} dev {self.device} nud permanent",
                f"route replace default via {GATEWAY6} dev {self.device}",
            ]
        return lines

    def known(self, device: str) -> list[str]:
        """The `ip` commands by which the other side knows the node's link-layer address behind a device of its own."""
        return [
            f"neighbour replace {addr} lladdr {self.mac} dev {device} nud permanent"
            for addr in (self.addr, self.addr6)
            if addr is not None
        ]


def mac_address(number: int, end: int) -> str:
    """A locally administered address for one end of a link.

    Given, not left to chance: a bridge's own address changes as ports join, and neighbours go stale.
    """
    return f"02:00:{number >> 8 & 255:02x}:{number & 255:02x}:00:{end:02x}"


@attrs.define(eq=False)
class Cabling:
    """Makes and removes the devices of links: a veth pair, or a wire for a link that is to be slow or bad."""

    lay: Callable[[Link, Wire], None]
    take_up: Callable[[Link], None]
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def number(self) -> int:
        """A number that no other link or bridge of the lab has."""
        return next(self._numbers)

    def connect(self, namespace: str, device: str, far_namespace: str, wire: Wire | None) -> Link:
        """Make a link whose devices are down and have no addresses."""
        number = self.number()
        link = Link(number, namespace, device, far_namespace, f"port{number}", wire is not None)
        if wire is not None:
            self.lay(link, wire)
        else:
            one = f"name {device} address {link.mac} netns {namespace}"
            other = f"name {link.far_device} address {link.far_mac} netns {far_namespace}"
            ip([f"link add {one} type veth peer {other}"])
        return link

    def disconnect(self, link: Link) -> None:
        """Remove a link."""
        if link.wired:
            self.take_up(link)
        else:
            ip([f"link del {link.far_device}"], link.far_namespace)


class Upstream(Protocol):
    """What a node hangs on."""

    @property
    def has_ipv4(self) -> bool:
        """Whether it gives IPv4 addresses."""

    @property
    def has_ipv6(self) -> bool:
        """Whether it gives IPv6 addresses."""

    def attach(self, namespace: str, device: str, wire: Wire | None, *, ipv4: bool = True, ipv6: bool = True) -> Link:
        """Make a link with addresses and default routes, of the families that both sides have."""

    def restore(self, link: Link) -> None:
        """Set up both ends of a link, also one that was down."""

    def readdress(self, link: Link) -> None:
        """Give the node another IPv4 address."""

    def delegate(self, link: Link, network: IPNetwork) -> None:
        """Route a network to the node."""


@attrs.define(eq=False)
class Internet:
    """A namespace that routes between public addresses, each on a link of its own.

    Packets pass `hops` routers on their way: they run in circles in the namespace, each round costs a TTL of one.
    """

    namespace: str
    plan: AddressPlan
    cabling: Cabling
    hops: int = 1
    has_ipv4: bool = True
    has_ipv6: bool = True

    def __attrs_post_init__(self) -> None:
        lines = ["link set lo up", *(f"address add {addr} dev lo" for addr in (f"{GATEWAY4}/32", f"{INTERNET6}/128"))]
        for hop in range(1, self.hops):
            lines += self._circle(hop)
        ip(lines, self.namespace)
        if self.hops > 1:
            for version in (4, 6):
                ip(self._rules(), self.namespace, version=version)

    def _circle(self, hop: int) -> list[str]:
        number = self.cabling.number()
        mac, out, back = mac_address(number, 2), f"hop{hop}", f"hop{hop}-back"
        lines = [
            f"link add name {out} address {mac_address(number, 1)} type veth peer name {back} address {mac}",
            f"link set {out} up",
            f"link set {back} up",
        ]
        for via in ("169.254.0.1", GATEWAY6):
            lines.append(f"neighbour add {via} lladdr {mac} dev {out} nud permanent")
            lines.append(f"route add default via {via} dev {out} onlink table {_HOP_TABLE + hop}")
        return lines

    def _rules(self) -> list[str]:
        """Which routes count: those into a round, and after the last one the real ones."""
        last = self.hops - 1
        return [
            "rule add iif lo priority 100 lookup main",  # what the internet itself sends, such as ICMP
            f"rule add iif hop{last}-back priority 200 lookup main",
            *(f"rule add iif hop{hop}-back priority 200 lookup {_HOP_TABLE + hop + 1}" for hop in range(1, last)),
            f"rule add priority 300 lookup {_HOP_TABLE + 1}",
        ]

    def attach(self, namespace: str, device: str, wire: Wire | None, *, ipv4: bool = True, ipv6: bool = True) -> Link:
        """Make a link with addresses and default routes, of the families that both sides have."""
        link = self.cabling.connect(namespace, device, self.namespace, wire)
        link.gateway_mac = link.far_mac
        link.addr = self.plan.public4() if ipv4 else None
        link.addr6 = self.plan.public6() if ipv6 else None
        self.restore(link)
        return link

    def restore(self, link: Link) -> None:
        """Set up both ends of a link, also one that was down."""
        port = link.far_device
        lines = [f"link set {port} up", f"address replace {GATEWAY6}/64 dev {port} nodad", *link.known(port)]
        lines += [f"route replace {addr} dev {port}" for addr in (link.addr, link.addr6) if addr is not None]
        ip(lines, self.namespace)
        ip(link.raised(), link.namespace)
        settle(link.namespace, link.device)
        settle(self.namespace, port)

    def readdress(self, link: Link) -> None:
        """Give the node another IPv4 address."""
        old, link.addr = link.addr, self.plan.public4()
        ip([f"route del {old} dev {link.far_device}"], self.namespace)
        ip([f"address del {old}/{link.length} dev {link.device}"], link.namespace)
        self.restore(link)

    def delegate(self, link: Link, network: IPNetwork) -> None:
        """Route a network to the node."""
        via = link.addr if network.version == 4 else link.addr6
        ip([f"route replace {network} via {via} dev {link.far_device} onlink"], self.namespace)

    def add_addresses(self, link: Link, addrs: Sequence[str]) -> None:
        """Give the node further IPv4 addresses, and route them to it; those that it has already it keeps."""
        ip([f"address replace {addr}/32 dev {link.device}" for addr in addrs], link.namespace)
        ip([f"route replace {addr} via {link.addr} dev {link.far_device} onlink" for addr in addrs], self.namespace)


@attrs.define(eq=False)
class Lan:
    """The inside of a router: a bridge that hosts, or routers of its customers, hang on.

    `up` routes a network of this one's to the router that the Lan belongs to.
    """

    namespace: str
    device: str
    cabling: Cabling
    network: IPv4Network | None
    network6: IPv6Network | None
    up: Callable[[IPNetwork], None]
    _number: int = attrs.field(init=False)
    _hosts: Iterator[int] = attrs.field(init=False, factory=lambda: iter(range(2, 255)))
    _leases: dict[str, int] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._number = self.cabling.number()
        name = self.device
        lines = [
            f"link add name {name} address {self.mac} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
            f"link set {name} up",
        ]
        if self.network is not None:
            lines.append(f"address add {self.network[1]}/{self.network.prefixlen} dev {name}")
        if self.network6 is not None:
            lines.append(f"address add {GATEWAY6}/64 dev {name} nodad")
            lines.append(f"address add {self.network6[1]}/64 dev {name} nodad")
        ip(lines, self.namespace)

    @property
    def mac(self) -> str:
        """The link-layer address of the router on this net."""
        return mac_address(self._number, 3)

    @property
    def has_ipv4(self) -> bool:
        """Whether it gives IPv4 addresses."""
        return self.network is not None

    @property
    def has_ipv6(self) -> bool:
        """Whether it gives IPv6 addresses."""
        return self.network6 is not None

    def attach(self, namespace: str, device: str, wire: Wire | None, *, ipv4: bool = True, ipv6: bool = True) -> Link:
        """Make a link with addresses and default routes, of the families that both sides have."""
        link = self.cabling.connect(namespace, device, self.namespace, wire)
        link.gateway_mac = self.mac
        host = self._leases.get(namespace) or self._lease(namespace)
        if ipv4 and self.network is not None:
            link.addr, link.length = str(self.network[host]), self.network.prefixlen
            link.gateway = str(self.network[1])
        if ipv6 and self.network6 is not None:
            link.addr6, link.length6 = str(self.network6[host]), 64
        self.restore(link)
        return link

    def restore(self, link: Link) -> None:
        """Set up both ends of a link, also one that was down."""
        port = link.far_device
        ip([f"link set {port} master {self.device}", f"link set {port} up", *link.known(self.device)], self.namespace)
        ip(link.raised(), link.namespace)
        settle(link.namespace, link.device)
        # The port first: the bridge has a carrier once a port has.
        settle(self.namespace, port, self.device)

    def readdress(self, link: Link) -> None:
        """Give the node another IPv4 address."""
        if self.network is None:
            raise LabError("a net without IPv4 has no other IPv4 address to give")
        old, link.addr = link.addr, str(self.network[self._lease(link.namespace)])
        ip([f"neighbour del {old} dev {self.device}"], self.namespace)
        ip([f"address del {old}/{link.length} dev {link.device}"], link.namespace)
        self.restore(link)

    def delegate(self, link: Link, network: IPNetwork) -> None:
        """Route a network to the node."""
        via = link.addr if network.version == 4 else link.addr6
        ip([f"route replace {network} via {via} dev {self.device} onlink"], self.namespace)
        self.up(network)

    def _lease(self, namespace: str) -> int:
        # Kept, as by a DHCP server: who comes back has the address that it had.
        host = next(self._hosts, None)
        if host is None:
            raise LabError(f"no address left on {self.device} of {self.namespace}")
        self._leases[namespace] = host
        return host


DEVICE_WAN: Final = "wan"
"""The outer device of a router."""
DEVICE_HOST: Final = "eth0"
"""The device of a host."""
