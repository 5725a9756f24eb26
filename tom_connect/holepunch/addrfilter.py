"""The one rule of which addresses may be published, offered to a peer, and probed."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

import attrs

from tom_connect.addr import RelayUrl, SocketAddr, is_local

SOURCE_CALL: Final = "call-me-maybe"
"""Candidates that the peer itself sent, sealed."""
SOURCE_PEER: Final = "peer"
"""The source address of an authentic ping."""
SOURCE_OWN_RELAY: Final = "own relay"
"""A relay of ours, tried for a node that is reachable nowhere else."""
SOURCE_QUIC: Final = "quic"
"""The source address of a packet that QUIC authenticated."""

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_NEVER = tuple(
    map(
        ipaddress.ip_network,
        # This network, multicast, reserved with broadcast (RFC 6890); unspecified, multicast (RFC 4291).
        ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8"),
    )
)
# Sent to nobody who only read about them: they are somebody else on every machine or link.
_OWN_MACHINE = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
_OWN_LINK = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fec0::/10")))


def _within(ip: _IP, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return any(ip in net for net in networks if net.version == ip.version)


@functools.lru_cache(maxsize=4096)
def normal(addr: SocketAddr) -> SocketAddr:
    """The address as sockets see it: an IPv4-mapped IPv6 address is IPv4, the text is canonical."""
    ip = addr.ip
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return SocketAddr(str(ip.ipv4_mapped), addr.port)
    return SocketAddr(str(ip), addr.port)


@attrs.frozen
class AddressFilter:
    """Judges addresses in normal form. `allow_local`: treat local addresses like any other."""

    allow_local: bool = False

    def publishable(self, addr: SocketAddr) -> bool:
        """Whether everyone may read that we are there."""
        return self.sendable(addr) and (self.allow_local or not (is_local(addr) or _within(addr.ip, _OWN_LINK)))

    def offerable(self, addr: SocketAddr) -> bool:
        """Whether a peer may be told, sealed, that we are there: private networks too, for peers in the same one."""
        return self._in_private_call(addr)

    def sendable(self, addr: SocketAddr) -> bool:
        """Whether a unicast datagram can go there at all."""
        return addr.port != 0 and not _within(addr.ip, _NEVER)

    def probeable(self, addr: SocketAddr, source: str, *, trusted: bool) -> bool:
        """Whether an address that `source` named may get a ping.

        The caller's own words (`trusted`) and what was seen as the source of an authentic packet are only held to
        `sendable`. A record that anyone may have forged names no local address, a sealed call no other machine's own.
        """
        if trusted or source in (SOURCE_PEER, SOURCE_QUIC):
            return self.sendable(addr)
        if source == SOURCE_CALL:
            return self._in_private_call(addr)
        return self.publishable(addr)

    def relay_usable(self, url: RelayUrl, *, trusted: bool) -> bool:
        """Whether a relay may be connected to: one that a record or peer names must not lead into our own networks.

        Judged by the URL alone; what a name resolves to is for the transport to judge.
        """
        host = url.host
        if trusted or self.allow_local:
            return True
        if host == "localhost" or host.endswith(".localhost"):
            return False
        try:
            ip = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            # A host of digits alone is an IPv4 address in a form that some systems still read.
            return not host.rpartition(".")[2].isdigit()
        return self.publishable(normal(SocketAddr(str(ip), 443)))

    def _in_private_call(self, addr: SocketAddr) -> bool:
        if not self.sendable(addr):
            return False
        return self.allow_local or not (_within(addr.ip, _OWN_MACHINE) or _within(addr.ip, _OWN_LINK))
