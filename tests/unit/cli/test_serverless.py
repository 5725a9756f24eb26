"""What doctor makes of a stranger's look-ups."""

from __future__ import annotations

import attrs
import pytest

from tom_connect.addr import SocketAddr
from tom_connect.cli.diagnosis import Diagnosis, Finding, NatKind
from tom_connect.cli.serverless import ServerlessReport, serverless_findings, stranger_config
from tom_connect.config import EndpointConfig
from tom_connect.keys import SecretKey

FOUND = ServerlessReport(
    ("dht",), stored=8, found=(SocketAddr("203.0.113.1", 4000),), source="dht", seconds=0.5, told=True, calls=True
)


def about(report: ServerlessReport, ipv4: NatKind = NatKind.EASY, *, wanted: bool = True) -> list[Finding]:
    return list(serverless_findings(report, Diagnosis(ipv4, NatKind.ABSENT, ()), wanted=wanted))


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        (NatKind.NO_NAT, "works", "everybody who knows our key"),
        (NatKind.EASY, "works", "both sides punch"),
        (NatKind.FIREWALL, "works", "both sides punch"),
        (NatKind.HARD, "note", "only a relay helps"),
        (NatKind.UNKNOWN, "note", "can't be told"),
    ],
)
def test_each_nat_is_judged(kind: NatKind, level: str, words: str) -> None:
    """A node that a stranger found is told who gets through to it, by the kind of its NAT."""
    found, reach = about(FOUND, kind)
    assert found.level == "works" and "0.5 s, at 203.0.113.1:4000" in found.text
    assert (reach.level, words in reach.text) == (level, True)


def test_a_nat_needs_somebody_who_carries_calls() -> None:
    """Without such a plugin a node behind a NAT is found and not reached, which doctor says; one without NAT is."""
    alone = attrs.evolve(FOUND, calls=False)
    assert [finding.level for finding in about(alone)] == ["works", "fails"]
    assert [finding.level for finding in about(alone, NatKind.NO_NAT)] == ["works", "works"]


def test_who_is_called_needs_no_address() -> None:
    """Behind a NAT that maps by destination nothing is published; what counts is that others may call."""
    nowhere = attrs.evolve(FOUND, found=None, stored=None, told=False, called="invited, polled every 1 s")
    (reach,) = about(nowhere, NatKind.HARD)
    assert reach.level == "note" and "call us through the DHT" in reach.text
    (finding,) = about(attrs.evolve(nowhere, called="not invited yet"), NatKind.HARD)
    assert finding.level == "fails" and "nothing to publish" in finding.text


def test_reasons_for_not_being_found_are_told_apart() -> None:
    """Nothing to publish, nobody who takes it, and nobody who finds it are different things, each with its advice."""
    lost = attrs.evolve(FOUND, found=None, problem="dht: no DHT node answered")
    cases = {
        "nothing to publish": attrs.evolve(lost, told=False),
        "could not be stored": attrs.evolve(lost, stored=None),
        "8 DHT nodes hold its record": lost,
    }
    for words, report in cases.items():
        (finding,) = about(report)
        assert finding.level == "fails" and words in finding.text and "no DHT node answered" in finding.text
        assert finding.advice


def test_without_a_network_nobody_is_blamed() -> None:
    """What each of those said whom we could not ask is left out, and so is advice about firewalls."""
    lost = attrs.evolve(FOUND, found=None, told=False, problem="dht: no DHT node answered")
    (finding,) = about(lost, NatKind.ABSENT)
    assert "dht" not in finding.text and finding.advice == "Is the network up?"


def test_who_is_published_for_some_alone_is_told_so() -> None:
    """That no stranger finds it is no fault then, whether it is stored yet or not."""
    hidden = ServerlessReport(audience="contacts alone")
    for stored, words in ((None, "no DHT node holds"), (8, "8 nodes hold it")):
        (finding,) = about(attrs.evolve(hidden, stored=stored))
        assert finding.level == "note" and "contacts alone" in finding.text and words in finding.text


def test_without_a_plugin_only_those_hear_who_asked() -> None:
    """Where nothing finds nodes without a server, that is a fault if nothing else is allowed, and else no topic."""
    assert about(ServerlessReport(), wanted=False) == []
    (finding,) = about(ServerlessReport())
    assert "pip install" in (finding.advice or "")


def test_a_stranger_knows_nothing_of_us() -> None:
    """Its key is another, nothing is kept, no server is asked, and it tells nobody where it is."""
    config = EndpointConfig(
        secret_key=SecretKey.generate(), bind=("192.0.2.1:4000", "[2001:db8::1]:4000"), relay=("https://r.example/",)
    )
    stranger = stranger_config(config)
    assert stranger.secret_key is None and stranger.secret_key_file is None and not stranger.persist
    assert stranger.bind == ("0.0.0.0:0", "[::]:0")
    assert stranger.dht_only and stranger.relay == () and not stranger.direct
