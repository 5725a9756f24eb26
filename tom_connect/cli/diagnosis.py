"""What a network report means, in words for people: what works, what does not, and what to do."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Literal

import attrs

from tom_connect.addr import SocketAddr, is_local
from tom_connect.netreport.report import FamilyReport, Filtering, Mapping, NetReport

Level = Literal["works", "note", "fails"]


class NatKind(enum.StrEnum):
    """What stands between us and the internet, of one IP version."""

    ABSENT = "absent"
    """This machine has no address of the IP version."""
    BLOCKED = "blocked"
    """There is an address, and no UDP passes."""
    NO_NAT = "no NAT"
    FIREWALL = "firewall"
    """No NAT; only those get in to whom something was sent."""
    EASY = "endpoint-independent"
    """A cone NAT: hole punching works."""
    HARD = "endpoint-dependent"
    """A symmetric NAT: hole punching works with easy NATs and by probing ports."""
    SOME = "NAT of unknown kind"
    UNKNOWN = "unknown"


@attrs.frozen
class Finding:
    """One sentence about the network, and one about what to do, where something can be done."""

    level: Level
    text: str
    advice: str | None = None


@attrs.frozen
class Diagnosis:
    """The kind of NAT of each IP version, and all findings, the most important first."""

    ipv4: NatKind
    ipv6: NatKind
    findings: tuple[Finding, ...]

    def with_findings(self, more: Iterable[Finding]) -> Diagnosis:
        """The same with further findings, each after those of its level."""
        return attrs.evolve(self, findings=_by_importance([*self.findings, *more]))


def _by_importance(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = ("fails", "note", "works")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def nat_kind(family: FamilyReport, *, udp_blocked: bool | None = None) -> NatKind:
    """The kind of NAT of one IP version."""
    if family.nat is False:
        return NatKind.FIREWALL if family.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT else NatKind.NO_NAT
    if family.mapping is Mapping.ENDPOINT_DEPENDENT:
        return NatKind.HARD
    if family.nat:
        return NatKind.EASY if family.mapping is Mapping.ENDPOINT_INDEPENDENT else NatKind.SOME
    if not _outward(family):
        return NatKind.ABSENT
    return NatKind.BLOCKED if udp_blocked or family.answers is False else NatKind.UNKNOWN


def _outward(family: FamilyReport) -> list[SocketAddr]:
    """Addresses that may lead out: private IPv6 ones are not translated, as a rule."""
    return [addr for addr in family.local if family.version == 4 or not is_local(addr)]


def diagnose(
    report: NetReport,
    *,
    relays_wanted: bool,
    probing: bool = True,
    others_asked: bool = False,
    serverless: bool = False,
) -> Diagnosis:
    """Say what a report means.

    `relays_wanted`: whether any are configured; `probing`: whether servers may be asked; `others_asked`: whether a
    plugin talks to others over our socket, as the DHT's does; `serverless`: whether relays that are configured are left
    out (`dht_only`), so that none is to be recommended.
    """
    ipv4 = nat_kind(report.ipv4, udp_blocked=report.udp_blocked)
    ipv6 = nat_kind(report.ipv6, udp_blocked=report.udp_blocked)
    findings = [
        *_about_udp(report, relays_wanted, probing, others_asked),
        *_about_ipv4(report.ipv4, ipv4),
        *_about_ipv6(report.ipv6, ipv6),
        *_about_relays(report, relays_wanted, serverless),
        *_about_reach(ipv4, ipv6, report),
    ]
    return Diagnosis(ipv4, ipv6, _by_importance(findings))


def _about_udp(report: NetReport, relays_wanted: bool, probing: bool, others_asked: bool) -> Iterator[Finding]:
    if report.captive_portal:
        yield Finding(
            "fails",
            "Something else answers in the relay's place: a captive portal, as in hotels and trains.",
            "Log in with a web browser, then run this command again.",
        )
    if report.udp_blocked:
        yield Finding(
            "fails",
            "UDP is blocked: relays are reached over TCP, and nothing comes back over UDP.",
            "Direct paths are impossible here. Allow outgoing UDP in the firewall, or use another network; "
            "until then all traffic goes through relays.",
        )
    elif any(family.answers or family.confirmed for family in (report.ipv4, report.ipv6)):
        yield Finding("works", "UDP passes.")
    elif not probing:
        yield Finding("note", "No server was asked over UDP, as the configuration forbids it.")
    elif not any(_outward(family) for family in (report.ipv4, report.ipv6)):
        return  # without a network nobody can be asked
    elif not relays_wanted and others_asked:
        yield Finding(
            "note",
            "Nobody told us yet how we are seen from outside: no relay is configured, and of those whom plugins ask "
            "none has answered.",
            "Name a relay (--relay URL), or give the plugins more time (--wait SECONDS).",
        )
    elif not relays_wanted:
        yield Finding(
            "note",
            "Nobody told us how we are seen from outside: no relay is configured, and no plugin knows.",
            "Name a relay (--relay URL), or install a plugin that asks others (pip install 'tom-connect[dht]').",
        )
    elif all(family.answers is not True for family in (report.ipv4, report.ipv6)):
        yield Finding(
            "note",
            "No server answered over UDP; whether UDP is blocked or no relay has such a service can't be told.",
            "Use a relay that answers STUN, or QUIC address discovery.",
        )


_ROUTER_ADVICE = (
    "Switch on UPnP, NAT-PMP or PCP in the router, forward a UDP port to this machine (and bind to it with --bind), "
    "or use IPv6 on both sides."
)


def _about_ipv4(family: FamilyReport, kind: NatKind) -> Iterator[Finding]:
    seen = ", ".join(map(str, family.confirmed or family.reflexive))
    match kind:
        case NatKind.NO_NAT:
            yield Finding("works", f"IPv4: no NAT; others reach us at {seen}.")
        case NatKind.FIREWALL:
            text = f"IPv4: no NAT, but a firewall lets in only those to whom we sent something; we are {seen}."
            yield Finding("note", text, "To be reached without hole punching, allow incoming UDP in the firewall.")
        case NatKind.EASY:
            yield Finding(
                "works",
                f"IPv4: an endpoint-independent (cone, easy) NAT; all see us at {seen}, and hole punching works.",
            )
        case NatKind.HARD:
            host = family.public_ip
            where = f", all of {host}" if host is not None else ""
            yield Finding(
                "fails",
                f"IPv4: an endpoint-dependent (symmetric, hard) NAT: each destination sees us at another port{where}.",
                "Direct paths to others behind such NATs are rarely found. " + _ROUTER_ADVICE,
            )
        case NatKind.SOME:
            yield Finding(
                "note",
                f"IPv4: a NAT, of which one server sees {seen}; of what kind can't be known from one.",
                "A second relay, or the DHT, would tell.",
            )
        case NatKind.ABSENT:
            yield Finding("note", "IPv4: we have no address that leads out of this machine.")
        case NatKind.BLOCKED:
            yield Finding("note", f"IPv4: we are {_list(family.local)}, and nothing answers over UDP.")
        case NatKind.UNKNOWN:
            yield Finding("note", f"IPv4: we are {_list(family.local)}; how others see us is not known.")
    if kind in (NatKind.EASY, NatKind.HARD, NatKind.SOME):
        yield from _about_nat(family)


def _about_nat(family: FamilyReport) -> Iterator[Finding]:
    if family.carrier_nat:
        yield Finding(
            "note",
            "IPv4: there seems to be a carrier-grade NAT (CGNAT) behind the router's own.",
            "Port forwarding in the router does not help then; IPv6 does, or a public address from the provider.",
        )
    if family.filtering is Filtering.ADDRESS_DEPENDENT:
        yield Finding("works", "IPv4: the NAT lets in others than those to whom we sent something.")
    elif family.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT:
        yield Finding("note", "IPv4: the NAT lets in only those to whom we sent something, as most do.")
    if family.hairpin is False:
        text = "IPv4: the NAT has no hairpinning: two nodes behind it don't reach each other at its outer address."
        yield Finding("note", text, "Nodes in one network find each other by their local addresses instead.")


def _about_ipv6(family: FamilyReport, kind: NatKind) -> Iterator[Finding]:
    seen = ", ".join(map(str, family.confirmed or family.reflexive))
    match kind:
        case NatKind.NO_NAT:
            yield Finding("works", f"IPv6: others reach us at {seen}.")
        case NatKind.FIREWALL:
            yield Finding(
                "works",
                f"IPv6: we are {seen}, behind an IPv6 firewall that lets in only those to whom we sent something; "
                "hole punching works.",
            )
        case NatKind.EASY | NatKind.SOME:
            yield Finding("works", f"IPv6: translated (NAT66) to {seen}.")
        case NatKind.HARD:
            yield Finding("note", "IPv6: translated (NAT66), to another port for each destination.")
        case NatKind.BLOCKED:
            yield Finding(
                "note",
                f"IPv6: this machine has {_list(_outward(family))}, but nothing answers over IPv6.",
                "Dials try both IP versions, so this costs little; a broken IPv6 line is the provider's to mend.",
            )
        case NatKind.ABSENT:
            yield Finding("note", "IPv6: we have no public address.")
        case NatKind.UNKNOWN:
            yield Finding("note", f"IPv6: we are {_list(_outward(family))}; whether others reach us is not known.")


def _about_relays(report: NetReport, relays_wanted: bool, serverless: bool) -> Iterator[Finding]:
    for relay in report.relays:
        if relay.connected:
            rtt = f", {relay.rtt * 1000:.0f} ms away" if relay.rtt is not None else ""
            home = "others reach us through it" if relay.home else "spare"
            yield Finding("works", f"Relay {relay.url}: connected{rtt}; {home}.")
        elif relays_wanted:
            advice = "Is its URL right, and does it run? Does a firewall or proxy stand between?"
            yield Finding("fails", f"Relay {relay.url}: {relay.problem or 'no answer yet'}.", advice)
    # Volunteers' may be in use then; who of them does not answer is replaced, and nothing to be mended here.
    if relays_wanted or any(relay.connected for relay in report.relays):
        return
    if serverless:
        yield Finding("note", "No relay of anyone's is asked: where hole punching fails, only a volunteer's helps.")
    else:
        text = "No relay is configured: where hole punching fails, there is no connection."
        yield Finding("note", text, "Name one with --relay URL; 'tom-connect relay' runs one.")


def _about_reach(ipv4: NatKind, ipv6: NatKind, report: NetReport) -> Iterator[Finding]:
    kinds = {ipv4, ipv6}
    relayed = any(relay.home for relay in report.relays)
    if NatKind.NO_NAT in kinds:
        yield Finding("works", "Others reach this node directly.")
    elif kinds & {NatKind.EASY, NatKind.FIREWALL}:
        yield Finding("works", "Others get a direct path to this node by hole punching.")
    elif NatKind.HARD in kinds:
        yield Finding("note", "Others get a direct path only if they have no NAT or an easy one" + _else(relayed) + ".")
    elif relayed:
        yield Finding("note", "Others reach this node through a relay, as far as is known.")
    elif kinds <= {NatKind.BLOCKED, NatKind.ABSENT}:
        yield Finding("fails", "Others can't reach this node, and it can reach nobody.", "Is the network up?")


def _else(relayed: bool) -> str:
    return "; the rest goes through the relay" if relayed else "; to all others there is no way without a relay"


def _list(addrs: Iterable[SocketAddr]) -> str:
    return ", ".join(map(str, addrs)) or "without an address"


__all__ = ["Diagnosis", "Finding", "NatKind", "diagnose", "nat_kind"]
