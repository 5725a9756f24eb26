"""What doctor makes of a stranger's look-ups."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from tom_connect import Endpoint
from tom_connect.abc import Call, Callee, Diagnostics, Discovery, FoundAddr, PluginContext, Rendezvous
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.cli.diagnosis import Diagnosis, Finding, NatKind
from tom_connect.cli.serverless import ServerlessCheck, ServerlessReport, serverless_findings, stranger_config
from tom_connect.config import EndpointConfig
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId, SecretKey

FOUND = ServerlessReport(
    ("dht",), stored=8, found=(SocketAddr("203.0.113.1", 4000),), source="dht", seconds=0.5, told=True, calls=True
)

RELAY = RelayUrl.of_node(SecretKey(bytes(32)).node_id, SocketAddr("198.51.100.1", 4433))


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


@pytest.mark.parametrize("calls", [True, False])
def test_a_volunteers_relay_is_a_way_in(calls: bool) -> None:
    """Behind a symmetric NAT, or where nobody carries calls, the relay that the stranger found lets others in."""
    relayed = attrs.evolve(FOUND, found=(), relays=(RELAY,), calls=calls)
    found, reach = about(relayed, NatKind.HARD)
    assert f"at {RELAY}." in found.text
    assert reach.level == "works" and "a volunteer's relay" in reach.text and reach.advice is None


def test_why_there_is_no_volunteer_is_told() -> None:
    """Behind a symmetric NAT the plugin that looks for volunteers is quoted, or recommended where there is none."""
    _, reach = about(attrs.evolve(FOUND, volunteers="the DHT knows of none"), NatKind.HARD)
    assert reach.level == "note" and "none is in use: the DHT knows of none" in (reach.advice or "")
    _, reach = about(FOUND, NatKind.HARD)
    assert "pip install 'tom-connect[relay]'" in (reach.advice or "")


class _Carrier(Rendezvous):
    name = "carrier"
    serverless = True

    async def call(
        self, node_id: NodeId, sealed: bytes, opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """Nobody is called here."""

    async def calls(self) -> AsyncIterator[Call]:
        """Nobody calls."""
        return
        yield


class _Plugin:
    name = "carrying"

    def __init__(self, *, on: bool) -> None:
        self._on = on

    @hookimpl
    def tom_rendezvous(self, ctx: PluginContext) -> Rendezvous | None:
        """What carries calls, unless it is configured not to."""
        return _Carrier() if self._on else None

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        """Doctor asks a stranger's sources first."""
        return _Nowhere()


class _Nowhere(Discovery):
    name = "nowhere"
    serverless = True

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Finds nobody."""
        return
        yield


@pytest.mark.parametrize("on", [True, False])
async def test_a_plugin_that_is_told_to_carry_no_calls_carries_none(on: bool) -> None:
    """That it could is not enough: by its configuration it may give nothing, and then nobody can call us."""
    config = EndpointConfig(
        bind=("127.0.0.1:0",), persist=False, watch_network=False, plugins=(), extra_plugins=(_Plugin(on=on),)
    )
    async with Endpoint.bind(config) as endpoint:
        assert any("tom_rendezvous" in plugin.hooks for plugin in endpoint.plugins)
        check = ServerlessCheck(endpoint)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await check.run()
        assert check.report.calls is on


class _Discreet:
    name = "discreet"

    @hookimpl
    def tom_diagnostics(self, ctx: PluginContext) -> Diagnostics:
        """As the DHT with `contacts_only`."""
        return {"published to": "friends alone"}

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        """Nobody is to be asked here."""
        return _Nowhere()


async def test_where_only_some_find_us_no_stranger_is_sent() -> None:
    """Its look-up would tell others of the key, and find nothing."""
    config = EndpointConfig(
        bind=("127.0.0.1:0",), persist=False, watch_network=False, plugins=(), extra_plugins=(_Discreet(),)
    )
    async with Endpoint.bind(config) as endpoint:
        check = ServerlessCheck(endpoint)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await check.run()
        assert check.report == ServerlessReport(audience="friends alone")


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
