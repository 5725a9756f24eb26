"""Routers with NAT and firewall."""

from __future__ import annotations

import attrs

from tom_connect.testing.natlab.links import IPNetwork, Lan
from tom_connect.testing.natlab.namespaces import LabError, flush_connections, nft
from tom_connect.testing.natlab.nat import ALLOW_UDP, BLOCK_UDP, Nat, NatRules
from tom_connect.testing.natlab.node import Node


@attrs.define(eq=False)
class Router(Node):
    """A router between a LAN and the internet, or a carrier's net; see Nat for what it does."""

    rules: NatRules
    """What it does, in detail."""
    lan: Lan = attrs.field(init=False)
    """Its inside."""
    behind: Router | None = None
    """The carrier's router that it hangs on; None on the internet."""
    _customers: Lan | None = None

    @property
    def kind(self) -> Nat:
        """What it does with IPv4."""
        return self.rules.kind

    @property
    def wan(self) -> str:
        """Its outer IPv4 address; raises LabError if it has none."""
        if self.link.addr is None:
            raise LabError(f"{self.name} has no IPv4 address")
        return self.link.addr

    @property
    def wan6(self) -> str:
        """Its outer IPv6 address; raises LabError if it has none."""
        if self.link.addr6 is None:
            raise LabError(f"{self.name} has no IPv6 address")
        return self.link.addr6

    @property
    def outermost(self) -> Router:
        """The router that meets the internet: the carrier's behind which it is, or itself."""
        return self if self.behind is None else self.behind.outermost

    def public_networks(self) -> tuple[str, ...]:
        """Its outer addresses, and the networks behind it that are not translated."""
        routed = [str(net) for lan in self._lans() for net in (lan.network6,) if net is not None]
        if self.kind is Nat.NONE and self.lan.network is not None:
            routed.append(str(self.lan.network))
        return (*super().public_networks(), *routed)

    def _lans(self) -> list[Lan]:
        return [self.lan, *([self._customers] if self._customers is not None else [])]

    def customers(self) -> Lan:
        """The net on which routers behind this one hang (CGNAT, RFC 6598), made when it is first asked for."""
        if self._customers is None:
            plan = self.lab.plan
            self._customers = Lan(
                self.namespace,
                "cgn",
                self.lab.cabling,
                plan.carrier4() if self.lan.has_ipv4 else None,
                plan.routed6() if self.lan.has_ipv6 else None,
                self.delegate,
            )
            if self._customers.network6 is not None:
                self.delegate(self._customers.network6)
        return self._customers

    def delegate(self, network: IPNetwork) -> None:
        """Have a public network routed to this router."""
        self._upstream.delegate(self.link, network)

    def apply(self) -> None:
        """Load the rules anew: every mapping is forgotten, tracked connections are not."""
        nft(self.namespace, self.rules.text(self.link.addr))

    def rebind(self, *, keep_ports: bool = False) -> None:
        """Forget every mapping and connection, as a NAT that reboots or runs out of memory does.

        Afterwards a host's packets leave from other ports; with `keep_ports`, from the same ones where the NAT would
        choose them, but nothing gets in before the host has sent.
        """
        if not keep_ports:
            self.rules = attrs.evolve(self.rules, remap=0 if self.rules.remap is None else self.rules.remap + 1)
        self.apply()
        flush_connections(self.namespace)

    def new_address(self) -> None:
        """Get another outer IPv4 address, as after a new dial-in; every mapping and connection is forgotten."""
        self._upstream.readdress(self.link)
        if self.kind is Nat.NONE and self.lan.network is not None:
            self.delegate(self.lan.network)
        self.apply()
        flush_connections(self.namespace)

    def block_udp(self, block: bool = True) -> None:
        """Drop all UDP between inside and outside, or let it pass again."""
        nft(self.namespace, BLOCK_UDP if block else ALLOW_UDP)
