"""What doctor says about networks of each kind."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from tom_connect import Endpoint, EndpointConfig
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.cli.diagnosis import Diagnosis, NatKind, diagnose, nat_kind
from tom_connect.cli.doctor import is_enough
from tom_connect.cli.node import _wait_for_relay, relays_left_out
from tom_connect.cli.options import Invocation
from tom_connect.netreport.report import FamilyReport, Filtering, Mapping, NetReport, RelayReport

HOME = SocketAddr("192.168.1.5", 4000)
PUBLIC = SocketAddr("203.0.113.1", 4000)
GLOBAL6 = SocketAddr("2001:db8::5", 4000)
BEHIND = FamilyReport(4, local=(HOME,))
EASY = attrs.evolve(
    BEHIND,
    reflexive=(PUBLIC,),
    confirmed=(PUBLIC,),
    mapping=Mapping.ENDPOINT_INDEPENDENT,
    filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT,
    nat=True,
    port_preserved=True,
    hairpin=False,
    answers=True,
)
HARD = attrs.evolve(EASY, confirmed=(), mapping=Mapping.ENDPOINT_DEPENDENT)
DIRECT = attrs.evolve(EASY, local=(PUBLIC,), nat=False, filtering=Filtering.ADDRESS_DEPENDENT)
NO_IPV6 = FamilyReport(6)
OPEN6 = attrs.evolve(DIRECT, version=6, local=(GLOBAL6,), reflexive=(GLOBAL6,), confirmed=(GLOBAL6,))
WALLED6 = attrs.evolve(OPEN6, filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT)
RELAY = RelayReport(RelayUrl.parse("https://relay.test/"), connected=True, home=True, rtt=0.02)


def about(ipv4: FamilyReport, ipv6: FamilyReport = NO_IPV6, *relays: RelayReport, **fields: bool) -> Diagnosis:
    report = NetReport(ipv4, ipv6, relays or (RELAY,), complete=True, **{"udp_blocked": False, **fields})
    return diagnose(report, relays_wanted=True)


def texts(diagnosis: Diagnosis, *levels: str) -> str:
    return " ".join(finding.text for finding in diagnosis.findings if not levels or finding.level in levels)


def advice(diagnosis: Diagnosis) -> str:
    return " ".join(finding.advice or "" for finding in diagnosis.findings)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (EASY, NatKind.EASY),
        (HARD, NatKind.HARD),
        (DIRECT, NatKind.NO_NAT),
        (attrs.evolve(DIRECT, filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT), NatKind.FIREWALL),
        (attrs.evolve(DIRECT, filtering=Filtering.UNKNOWN), NatKind.NO_NAT),
        (attrs.evolve(EASY, mapping=Mapping.UNKNOWN), NatKind.SOME),
        (BEHIND, NatKind.UNKNOWN),
        (attrs.evolve(BEHIND, answers=False), NatKind.BLOCKED),
        (FamilyReport(4), NatKind.ABSENT),
        (NO_IPV6, NatKind.ABSENT),
        (FamilyReport(6, local=(SocketAddr("fd00::1", 1),), answers=False), NatKind.ABSENT),
        (OPEN6, NatKind.NO_NAT),
        (WALLED6, NatKind.FIREWALL),
    ],
)
def test_each_kind_is_told_from_the_others(family: FamilyReport, kind: NatKind) -> None:
    """Mapping, filtering and addresses decide; what is not known is not guessed."""
    assert nat_kind(family) is kind


def test_an_easy_nat_is_good_news() -> None:
    """Hole punching works, and the outer address is named."""
    said = about(EASY)
    assert "endpoint-independent (cone, easy)" in texts(said, "works")
    assert str(PUBLIC) in texts(said, "works")
    assert "by hole punching" in texts(said, "works")
    assert "hairpinning" in texts(said, "note")
    assert not texts(said, "fails")


def test_a_hard_nat_comes_first_and_with_advice() -> None:
    """The reader learns what it costs, what the relay does about it, and what to change."""
    said = about(HARD)
    assert "symmetric, hard" in said.findings[0].text
    assert "UPnP" in advice(said)
    assert "the rest goes through the relay" in texts(said)
    without = about(HARD, NO_IPV6, attrs.evolve(RELAY, connected=False, home=False, problem="refused"))
    assert "no way without a relay" in texts(without)
    assert "refused" in texts(without, "fails")


def test_ipv6_makes_up_for_a_hard_nat() -> None:
    """A node that is open over IPv6 is reached directly, whatever IPv4 is like."""
    said = about(HARD, OPEN6)
    assert "Others reach this node directly" in texts(said, "works")
    assert "IPv6 firewall" in texts(about(HARD, WALLED6), "works")


def test_blocked_udp_is_explained() -> None:
    """Both IP versions are called blocked, and what remains is said."""
    said = about(attrs.evolve(BEHIND, answers=False), udp_blocked=True)
    assert said.ipv4 is NatKind.BLOCKED
    assert "UDP is blocked" in said.findings[0].text
    assert "through a relay" in texts(said)


def test_a_captive_portal_is_explained() -> None:
    """The reader is sent to the browser."""
    said = about(BEHIND, NO_IPV6, attrs.evolve(RELAY, connected=False, home=False), captive_portal=True)
    assert "captive portal" in said.findings[0].text
    assert "web browser" in advice(said)


def test_a_carriers_nat_is_suspected() -> None:
    """Advice about the router would not help there, and that is said."""
    assert "CGNAT" in texts(about(attrs.evolve(EASY, carrier_nat=True)), "note")
    assert "does not help" in advice(about(attrs.evolve(EASY, carrier_nat=True)))
    assert "CGNAT" not in texts(about(EASY))


def test_without_anybody_to_ask_that_is_said() -> None:
    """No relay, no plugin: nothing is known, and that is no fault of the network."""
    report = NetReport(BEHIND, complete=True)
    said = diagnose(report, relays_wanted=False)
    assert "Nobody told us" in texts(said, "note")
    assert "--relay" in advice(said)
    assert "forbids" in texts(diagnose(report, relays_wanted=False, probing=False))


def test_no_relay_is_recommended_where_none_would_be_used() -> None:
    """With dht_only a relay that is named is left out, and who has one, a volunteer's too, is not told to get one."""
    report = NetReport(EASY, NO_IPV6, complete=True, udp_blocked=False)
    assert "--relay" in advice(diagnose(report, relays_wanted=False))
    serverless = diagnose(report, relays_wanted=False, serverless=True)
    assert "--relay" not in advice(serverless) and "only a volunteer's helps" in texts(serverless, "note")
    for way in (True, False):
        said = diagnose(attrs.evolve(report, relays=(RELAY,)), relays_wanted=False, serverless=way)
        assert "--relay" not in advice(said) and "hole punching fails" not in texts(said)


async def test_a_relay_that_is_left_out_is_told_and_not_waited_for() -> None:
    """With dht_only a relay that is named serves nobody: people are told, and nothing waits until it is connected."""
    notes: list[str] = []
    config = EndpointConfig(dht_only=True, relay=("https://relay.test/",))
    run = cast(Invocation, SimpleNamespace(config=config, output=SimpleNamespace(note=notes.append)))
    await _wait_for_relay(run, cast(Endpoint, None))
    assert notes == ["Left out, as dht_only asks for no servers: relay https://relay.test/"]
    run.config = attrs.evolve(config, dht_only=False)
    assert relays_left_out(run) == ""


def test_nobody_is_told_to_install_what_is_there() -> None:
    """With a plugin that asks others, time is what may help; the advice to install one is for those who have none."""
    report = NetReport(BEHIND, complete=True)
    assert "pip install" in advice(diagnose(report, relays_wanted=False))
    said = diagnose(report, relays_wanted=False, others_asked=True)
    assert "pip install" not in advice(said)
    assert "--wait" in advice(said) and "--relay" in advice(said)


@pytest.mark.parametrize("others_asked", [True, False])
def test_without_a_network_that_alone_is_said(others_asked: bool) -> None:
    """Nobody can be asked then, so nobody is blamed for not answering, and no plugin is missing."""
    said = diagnose(NetReport(complete=True), relays_wanted=False, others_asked=others_asked)
    assert "Is the network up?" in advice(said)
    assert "told us" not in texts(said) and "pip install" not in advice(said)


def test_every_report_gets_sentences() -> None:
    """Whatever is known or unknown, findings are whole sentences, and nothing is said twice."""
    families4 = [
        attrs.evolve(base, answers=answers, filtering=filtering, mapping=mapping, nat=nat)
        for base in (BEHIND, EASY, HARD, FamilyReport(4))
        for answers in (None, True, False)
        for filtering in Filtering
        for mapping in Mapping
        for nat in (None, True, False)
    ]
    for family, ipv6, blocked, wanted in itertools.product(
        families4, (NO_IPV6, WALLED6, attrs.evolve(HARD, version=6)), (None, True, False), (True, False)
    ):
        said = diagnose(NetReport(family, ipv6, (), blocked), relays_wanted=wanted).findings
        assert said
        assert len({finding.text for finding in said}) == len(said)
        for finding in said:
            for text in (finding.text, finding.advice or "."):
                assert text.endswith((".", "?")) and "None" not in text and "  " not in text


@pytest.mark.parametrize(
    ("report", "enough"),
    [
        (NetReport(EASY, NO_IPV6, (RELAY,), complete=True), True),
        (NetReport(EASY, NO_IPV6, (RELAY,), complete=False), False),
        (NetReport(EASY, NO_IPV6, (attrs.evolve(RELAY, connected=False),), complete=True), False),
        (NetReport(attrs.evolve(EASY, hairpin=None), NO_IPV6, (RELAY,), complete=True), False),
        (NetReport(attrs.evolve(EASY, filtering=Filtering.UNKNOWN), NO_IPV6, (RELAY,), complete=True), False),
        (NetReport(HARD, WALLED6, (RELAY,), complete=True), True),
        (NetReport(BEHIND, NO_IPV6, (RELAY,), udp_blocked=True, complete=True), True),
        (NetReport(BEHIND, NO_IPV6, (RELAY,), complete=True), False),
    ],
)
def test_doctor_waits_for_what_is_still_out(report: NetReport, enough: bool) -> None:
    """It ends as soon as nothing more is to be expected."""
    assert is_enough(report, relays_wanted=True) is enough


def test_a_volunteers_relay_is_one() -> None:
    """Where none is configured and one is in use nobody is told to name one, nor to mend one that has gone."""
    gone = attrs.evolve(RELAY, url=RelayUrl.parse("https://gone.test/"), connected=False, home=False)
    said = diagnose(NetReport(HARD, NO_IPV6, (RELAY, gone), complete=True), relays_wanted=False)
    assert "others reach us through it" in texts(said, "works") and "the rest goes through the relay" in texts(said)
    assert "No relay is configured" not in texts(said) and "gone.test" not in texts(said)
    said = diagnose(NetReport(HARD, NO_IPV6, (gone,), complete=True), relays_wanted=False)
    assert "No relay is configured" in texts(said)
