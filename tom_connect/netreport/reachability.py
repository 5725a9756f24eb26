"""Whether strangers reach our socket unasked, judged by what is known of our network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tom_connect.abc import Reachability
from tom_connect.addr import SocketAddr
from tom_connect.netreport.report import FamilyReport, Filtering, Mapping, NetReport

NOT_DIRECT = "the endpoint takes no direct packets"
UNKNOWN = "nobody has told us yet at which address we are seen"


def reachability(
    report: NetReport,
    local: Sequence[SocketAddr],
    mapped: Sequence[SocketAddr],
    publishable: Callable[[SocketAddr], bool],
    *,
    direct: bool = True,
) -> Reachability:
    """The addresses at which anyone may reach us, or why there is none.

    `local`: our sockets' addresses on this machine; `mapped`: ports that a router keeps open for us; `publishable`:
    what may be told to everyone. A firewall that nobody has noticed is not seen here.
    """
    if not direct:
        return Reachability(why_not=NOT_DIRECT)
    if report.udp_blocked:
        return Reachability(why_not="no UDP gets through")
    found: list[SocketAddr] = []
    reasons: list[str] = []
    for family in (report.ipv4, report.ipv6):
        ours = [addr for addr in local if addr.ip.version == family.version and publishable(addr)]
        opened = [addr for addr in mapped if addr.ip.version == family.version and publishable(addr)]
        through, reason = _of_family(family, ours, [] if family.carrier_nat else opened)
        found += [addr for addr in through if publishable(addr)]
        reasons += [reason] if reason is not None else []
    if found:
        return Reachability(tuple(dict.fromkeys(found)), None)
    return Reachability(why_not="; ".join(dict.fromkeys(reasons)) or UNKNOWN)


def _of_family(
    family: FamilyReport, ours: Sequence[SocketAddr], opened: Sequence[SocketAddr]
) -> tuple[Sequence[SocketAddr], str | None]:
    if opened:
        return opened, None
    lets_all_in = family.filtering is Filtering.ENDPOINT_INDEPENDENT
    if family.nat is not True and ours:
        if family.filtering in (Filtering.UNKNOWN, Filtering.ENDPOINT_INDEPENDENT):
            return ours, None
        return (), f"a firewall lets nobody in unasked over IPv{family.version}: open our UDP port in it"
    if family.nat and lets_all_in and family.mapping is Mapping.ENDPOINT_INDEPENDENT:
        return family.reflexive, None
    if family.nat and family.carrier_nat:
        return (), f"the provider's own NAT is before us over IPv{family.version}: no port can be opened in it"
    if family.nat:
        return (), f"a NAT lets nobody in unasked over IPv{family.version}: open or map our UDP port in the router"
    return (), None
