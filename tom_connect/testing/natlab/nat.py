"""The kinds of NAT and firewall that a router can be, as nftables rules.

In words of RFC 4787, sections 4 and 5. All are Linux's own NAT, whose mappings are endpoint-independent unless
it is told to choose ports at random: it gives a source that it knows the port that this source has. What makes a kind
is which unsolicited packets it lets in.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

import attrs


class Nat(enum.Enum):
    """What a router does with IPv4."""

    NONE = "none"
    """Hosts have public addresses, and nothing is filtered."""
    OPEN = "open"
    """Full cone: mapping and filtering endpoint-independent. Whoever knows a mapped port gets in."""
    RESTRICTED = "restricted"
    """Restricted cone: mapping endpoint-independent, filtering address-dependent."""
    MODERATE = "moderate"
    """Port restricted, the usual home router: mapping endpoint-independent, filtering address- and port-dependent."""
    STRICT = "strict"
    """Symmetric: mapping (random ports) and filtering address- and port-dependent."""


Firewall6 = Literal["open", "firewall"]
"""What a router does with IPv6: let everything in, or only what belongs to traffic from inside (RFC 6092)."""

PORT_RANGES: Final = ("10000-13999", "14000-17999", "18000-21999", "22000-25999")
"""Ports of a NAT that doesn't keep them, all below the ephemeral ones; the next range after each rebinding."""

# So many mappings, each forgotten some time after its last packet from inside (RFC 4787, REQ-5: 2 minutes or more).
_DYNAMIC: Final = "flags dynamic,timeout; timeout 5m; size 65536;"


@attrs.frozen
class NatRules:
    """What a router does.

    `remap`: which of PORT_RANGES mapped ports come from, None keeps the port of the host where it is free. `hairpin`:
    hosts inside reach each other at their mapped addresses, unfiltered. `reject`: unsolicited packets are answered
    with ICMP by the router's own stack, and so tracked as connections, instead of being dropped unseen.
    """

    kind: Nat
    remap: int | None = None
    hairpin: bool = False
    ipv6: Firewall6 | None = None
    reject: bool = False

    def text(self, wan: str | None) -> str:
        """The rules for `nft -f`, which replace earlier ones; `wan` is the router's own outer IPv4 address."""
        tables = "add table inet natlab\ndelete table inet natlab\nadd table ip natlab\ndelete table ip natlab\n"
        tables += self._filter()
        if wan is not None and self.kind is not Nat.NONE:
            tables += self._translation(wan)
        return tables

    def _filter(self) -> str:
        # Accepted, so that the router's own stack answers. The nftables verdict `reject` would track nothing.
        refuse = "accept" if self.reject else "drop"
        inward = f"meta nfproto ipv4 {'accept' if self.kind is Nat.NONE else 'drop'}"
        inward6 = f"meta nfproto ipv6 {'accept' if self.ipv6 == 'open' else 'drop'}"
        return f"""
table inet natlab {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "wan" accept
    ct state established,related accept
    meta l4proto {{ icmp, icmpv6 }} accept
    {refuse}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname != "wan" accept
    ct state established,related accept
    ct status dnat accept
    {inward}
    {inward6}
  }}
}}
"""

    def _translation(self, wan: str) -> str:
        ports = f":{PORT_RANGES[self.remap % len(PORT_RANGES)]}" if self.remap is not None else ""
        udp = f"snat to {wan}{ports}"
        if self.kind is Nat.STRICT:
            udp = "masquerade random,fully-random"
        lets_in = {
            Nat.OPEN: f"ip daddr {wan} dnat ip to udp dport map @inside",
            Nat.RESTRICTED: f"ip daddr {wan} udp dport . ip saddr @permitted dnat ip to udp dport map @inside",
        }.get(self.kind, "")
        turns_back, leaves_again = "", ""
        if self.hairpin:
            turns_back = f'iifname != "wan" ip daddr {wan} dnat ip to udp dport map @inside'
            port = " fully-random" if self.kind is Nat.STRICT else ports
            leaves_again = f'oifname != "wan" iifname != "wan" ct status dnat meta l4proto udp snat to {wan}{port}'
        return f"""
table ip natlab {{
  map inside {{ type inet_service : ipv4_addr . inet_service; {_DYNAMIC} }}
  set permitted {{ type inet_service . ipv4_addr; {_DYNAMIC} }}
  chain in {{
    type nat hook prerouting priority dstnat;
    {turns_back}
    {lets_in}
  }}
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "wan" meta l4proto udp {udp}
    oifname "wan" snat to {wan}
    {leaves_again}
  }}
  chain learn {{
    type filter hook postrouting priority srcnat + 50;
    oifname "wan" meta l4proto udp ct direction original \\
      update @inside {{ udp sport : ct original ip saddr . ct original proto-src }}
    oifname "wan" meta l4proto udp update @permitted {{ udp sport . ip daddr }}
  }}
}}
"""


BLOCK_UDP: Final = """
add table inet natlab_udp
delete table inet natlab_udp
table inet natlab_udp {
  chain forward { type filter hook forward priority -10; policy accept; meta l4proto udp drop; }
}
"""
"""Rules that drop all UDP between inside and outside."""
ALLOW_UDP: Final = "add table inet natlab_udp\ndelete table inet natlab_udp\n"
