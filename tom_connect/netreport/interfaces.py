"""The network interfaces of this machine, their addresses, and the routes that lead out of it."""

from __future__ import annotations

import contextlib
import fnmatch
import ipaddress
import pathlib
import socket
from collections.abc import Sequence
from typing import Final, Literal

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.config.endpoint import VIRTUAL_INTERFACES

MAX_ADDRESSES = 32
"""Addresses of one machine that are considered; container hosts have hundreds."""
_MAX_ROUTES_BYTES: Final = 1 << 20
_ABROAD: Final = ((socket.AF_INET, "198.41.0.4"), (socket.AF_INET6, "2001:503:ba3e::2:30"))
"""Addresses to which only a route to the whole Internet leads (those of a.root-servers.net). Nothing is sent there:
connecting a UDP socket asks the kernel for its route and no more."""
_TUNNELS: Final = ("tun*", "utun*", "tap*", "wg*", "ppp*", "ipsec*", "tailscale*", "ts*", "zt*", "nordlynx*", "proton*")
"""Virtual private networks. They may be all that two nodes have in common, so their addresses are kept; what goes
through them is wrapped once more and may go a long way round, so they come last, where lists are cut."""
_RTF_UP: Final = 0x1
_RTF_REJECT: Final = 0x200

Family = Literal[4, 6]


@attrs.frozen
class InterfaceAddress:
    """A unicast IP address of this machine. `index`: the system's number of the interface; `prefix`: bits."""

    interface: str
    index: int
    host: str
    prefix: int

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """Whom the interface reaches without a router."""
        return ipaddress.ip_network(f"{self.host}/{self.prefix}", strict=False)

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine's own, of no network."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.host


@attrs.frozen
class DefaultRoute:
    """The route that leads everywhere: the one of a family that the system prefers. `gateway` is empty on a tunnel."""

    family: Family
    interface: str
    gateway: str


@attrs.frozen
class NetworkState:
    """Where this machine is in the network, as far as the machine itself can tell."""

    addresses: tuple[InterfaceAddress, ...] = ()
    routes: tuple[DefaultRoute, ...] = ()
    """At most one a family; none on systems where only commands could tell."""
    sources: tuple[str, ...] = ()
    """The addresses from which packets to the Internet leave, at most one a family."""

    def owner_of(self, host: str) -> InterfaceAddress | None:
        """The interface address that `host` is."""
        return next((address for address in self.addresses if address.host == host), None)

    @property
    def ways_out(self) -> frozenset[str]:
        """Names of the interfaces through which packets to the Internet leave."""
        owners = (self.owner_of(host) for host in self.sources)
        return frozenset({owner.interface for owner in owners if owner} | {route.interface for route in self.routes})

    def kept(self, skip: Sequence[str]) -> tuple[InterfaceAddress, ...]:
        """Addresses of interfaces whose names match none of the patterns `skip`, those of tunnels last.

        A built-in pattern does not hold for an interface that leads to the Internet, on a host of virtual machines
        often a bridge, nor where there is no other interface, as in some containers.
        """
        ways_out = self.ways_out
        if not ways_out and all(
            _matches(address, VIRTUAL_INTERFACES) or address.is_loopback for address in self.addresses
        ):
            ways_out = frozenset(address.interface for address in self.addresses)
        chosen = [pattern for pattern in skip if pattern not in VIRTUAL_INTERFACES]
        builtin = [pattern for pattern in skip if pattern in VIRTUAL_INTERFACES]
        found = [
            address
            for address in self.addresses
            if not _matches(address, chosen) and (address.interface in ways_out or not _matches(address, builtin))
        ]
        found.sort(key=lambda address: _matches(address, _TUNNELS))
        return tuple(found)

    def skipped_networks(self, skip: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks on interfaces that `skip` leaves out, without those that a kept interface is in as well."""
        kept = self.kept(skip)
        reached = [address.network for address in kept]
        networks = (address.network for address in self.addresses if address not in kept)
        return tuple(
            dict.fromkeys(
                net for net in networks if not any(net.version == r.version and net.overlaps(r) for r in reached)
            )
        )


def _matches(address: InterfaceAddress, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(address.interface, pattern) for pattern in patterns)


def network_state() -> NetworkState:
    """Look at this machine's interfaces and routes; about a millisecond. Raises OSError if the system won't tell."""
    return NetworkState(interface_addresses(), default_routes(), source_addresses())


def interface_addresses() -> tuple[InterfaceAddress, ...]:
    """Every unicast IP address of this machine, IPv4 first, link-local IPv6 left out, each once.

    Link-local ones mean nothing without an interface number, which differs from machine to machine.
    """
    import ifaddr  # binds system libraries when imported, which not every program needs

    found: dict[str, InterfaceAddress] = {}
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                continue
            if address.is_unspecified or address.is_multicast or (address.version == 6 and address.is_link_local):
                continue
            host = str(address)
            found.setdefault(host, InterfaceAddress(ip.nice_name, adapter.index or 0, host, ip.network_prefix))
    return tuple(sorted(found.values(), key=lambda address: address.is_ipv6))


def source_addresses() -> tuple[str, ...]:
    """The addresses from which packets to the Internet would leave, at most one a family. Sends nothing."""
    found = []
    for family, host in _ABROAD:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 53))
            found.append(str(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])))
    return tuple(found)


def default_routes(proc: pathlib.Path = pathlib.Path("/proc/thread-self/net")) -> tuple[DefaultRoute, ...]:
    """The preferred default route of each family, from Linux's tables; elsewhere none."""
    best4 = min(_ipv4_defaults(_read(proc / "route")), default=None, key=lambda found: found[0])
    best6 = min(_ipv6_defaults(_read(proc / "ipv6_route")), default=None, key=lambda found: found[0])
    return tuple(found[1] for found in (best4, best6) if found is not None)


def _read(path: pathlib.Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_ROUTES_BYTES).decode("ascii", "replace").splitlines()
    except OSError:
        return []


def _ipv4_defaults(lines: Sequence[str]) -> list[tuple[int, DefaultRoute]]:
    """Metric and route of each line such as `eth0 00000000 010200C0 0003 0 0 100 00000000 ...`."""
    found = []
    for line in lines[1:]:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            name, destination, gateway, flags, metric, mask = *fields[:4], fields[6], fields[7]
            if int(destination, 16) == int(mask, 16) == 0 and int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
                # The kernel prints the address as a number of the machine's own byte order, which is little-endian
                # nearly everywhere; on others the text is another one, but still changes when the gateway does.
                host = str(ipaddress.IPv4Address(bytes.fromhex(gateway)[::-1]))
                found.append((int(metric), DefaultRoute(4, name, "" if host == "0.0.0.0" else host)))  # noqa: S104
    return found


def _ipv6_defaults(lines: Sequence[str]) -> list[tuple[int, DefaultRoute]]:
    found = []
    for line in lines:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            destination, bits, gateway, metric, flags, name = *fields[:2], fields[4], fields[5], fields[8], fields[9]
            if int(destination, 16) == int(bits, 16) == 0 and int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
                host = str(ipaddress.IPv6Address(int(gateway, 16)))
                found.append((int(metric, 16), DefaultRoute(6, name, "" if host == "::" else host)))
    return found


def expand_wildcards(bound: Sequence[SocketAddr], hosts: Sequence[str]) -> list[SocketAddr]:
    """The addresses at which sockets bound to `bound` can be reached on this machine.

    A wildcard stands for each of `hosts` of its family, with the socket's port.
    """
    found: list[SocketAddr] = []
    for addr in bound:
        if addr.ip.is_unspecified:
            found += [SocketAddr(host, addr.port) for host in hosts if (":" in host) == (":" in addr.host)]
        else:
            found.append(addr)
    return list(dict.fromkeys(found))
