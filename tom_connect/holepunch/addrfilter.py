"""The one rule of which addresses may be published, offered to a peer, and probed."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from typing import Final

import attrs

from tom_connect.addr import RelayUrl, SocketAddr, is_local
from tom_connect.config import EndpointConfig

SOURCE_CALL: Final = "call-me-maybe"
"""Candidates that the peer itself sent, sealed."""
SOURCE_PEER: Final = "peer"
"""The source address of an authentic ping."""
SOURCE_KNOCK: Final = "knock"
"""The source address of a knock, which anyone can send."""
SOURCE_OWN_RELAY: Final = "own relay"
"""A relay of ours, tried for a node that is reachable nowhere else."""
SOURCE_QUIC: Final = "quic"
"""The source address of a packet that QUIC authenticated."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
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


def _within(ip: _IP, networks: Sequence[Network]) -> bool:
    return any(ip in net for net in networks if net.version == ip.version)


@functools.lru_cache(maxsize=4096)
def normal(addr: SocketAddr) -> SocketAddr:
    """The address as sockets see it: an IPv4-mapped IPv6 address is IPv4, the text is canonical."""
    ip = addr.ip
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return SocketAddr(str(ip.ipv4_mapped), addr.port)
    return SocketAddr(str(ip), addr.port)


@attrs.frozen(cache_hash=True)
class AddressFilter:
    """Judges addresses in normal form.

    What `permits` refuses gets no direct packet, whoever names it. Beyond that, an address that only somebody's words
    vouch for must pass the rule for that way: `publishable`, `offerable`, `probeable`.
    """

    allow_local: bool = False
    """Treat private, loopback and link-local addresses like any other."""
    lan: bool = True
    """Offer private addresses of ours to peers, sealed, and probe theirs."""
    public_only: bool = False
    """Permit none but addresses of the public Internet."""
    relay_only: bool = False
    """Permit no direct address at all."""
    allow: tuple[Network, ...] = ()
    """Permit addresses in these networks alone; empty: in all."""
    deny: tuple[Network, ...] = ()
    """Permit none in these networks; comes before `allow`."""
    skipped: tuple[Network, ...] = ()
    """Networks on interfaces of this machine that are left out, such as bridges to its own containers: nobody else is
    where they lead, so only an authentic packet from there or the caller names an address in them."""

    @classmethod
    def of(cls, config: EndpointConfig) -> AddressFilter:
        """The filter that a configuration asks for."""
        return cls(
            allow_local=config.allow_local,
            lan=config.lan,
            public_only=config.public_only,
            relay_only=not config.direct,
            allow=config.addr_allow_networks,
            deny=config.addr_deny_networks,
        )

    @property
    def lists(self) -> bool:
        """Whether `permits` refuses more than what can't be sent to."""
        return bool(self.allow or self.deny or self.public_only or self.relay_only)

    def publishable(self, addr: SocketAddr) -> bool:
        """Whether everyone may read that we are there."""
        return self.permits(addr) and self._public(addr) and not _within(addr.ip, self.skipped)

    def offerable(self, addr: SocketAddr) -> bool:
        """Whether a peer may be told, sealed, that we are there: private networks too, for peers in the same one."""
        return self._in_private_call(addr)

    def sendable(self, addr: SocketAddr) -> bool:
        """Whether a unicast datagram can go there at all."""
        return addr.port != 0 and not _within(addr.ip, _NEVER)

    def permits(self, addr: SocketAddr) -> bool:
        """Whether direct packets may go there, and be taken from there: what both lists and the flags leave."""
        if not self.lists:
            return self.sendable(addr)
        return _permits(self, addr)

    def probeable(self, addr: SocketAddr, source: str, *, trusted: bool) -> bool:
        """Whether an address that `source` named may get a ping.

        The caller's own words (`trusted`) and what was seen as the source of an authentic packet are only held to
        `permits`. A record that anyone may have forged names no local address, a sealed call no other machine's own.
        """
        if trusted or source in (SOURCE_PEER, SOURCE_QUIC):
            return self.permits(addr)
        if source == SOURCE_CALL:
            return self._in_private_call(addr)
        return self.publishable(addr)

    def relay_usable(self, url: RelayUrl, *, trusted: bool) -> bool:
        """Whether a relay may be connected to: one that a record or peer names must not lead into our own networks.

        Judged by the URL alone; what a name resolves to is for the transport to judge.
        """
        if trusted:
            return True
        host = url.host
        try:
            ip = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            if self.allow_local:
                return True
            if host == "localhost" or host.endswith(".localhost"):
                return False
            # A host of digits alone is an IPv4 address in a form that some systems still read.
            return not host.rpartition(".")[2].isdigit()
        addr = normal(SocketAddr(str(ip), 443))
        return not _within(addr.ip, self.deny) and (self.allow_local or (self.sendable(addr) and self._public(addr)))

    def _public(self, addr: SocketAddr) -> bool:
        return self.allow_local or not (is_local(addr) or _within(addr.ip, _OWN_LINK))

    def _in_private_call(self, addr: SocketAddr) -> bool:
        if not self.permits(addr) or _within(addr.ip, self.skipped):
            return False
        if self.allow_local:
            return True
        if _within(addr.ip, _OWN_MACHINE) or _within(addr.ip, _OWN_LINK):
            return False
        return self.lan or not is_local(addr)


@functools.lru_cache(maxsize=4096)
def _permits(rule: AddressFilter, addr: SocketAddr) -> bool:
    # Remembered, since it is asked for every batch of datagrams.
    ip = addr.ip
    if rule.relay_only or not rule.sendable(addr) or _within(ip, rule.deny):
        return False
    if rule.allow and not _within(ip, rule.allow):
        return False
    return not (rule.public_only and (is_local(addr) or _within(ip, _OWN_LINK)))
