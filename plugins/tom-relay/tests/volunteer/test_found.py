"""Nodes without a relay find volunteers through the DHT, test them, and replace those that go or lie."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion, pull_quic_header

from tom_connect import Endpoint, NodeAddr
from tom_connect.addr import RelayUrl
from tom_dht_mainline.testing import Testnet
from tom_relay.client.config import RelayClientConfig
from tom_relay.client.volunteers.seeker import SETTLE, TICK
from tom_relay.client.volunteers.trial import SIZE, random_payloads
from tom_relay.volunteer.config import RelayForOthersConfig

from .nodes import config, dht_of, home, kinds, meet, passes, until, volunteer_of

DHT = {"plugins": ("relay", "relay-volunteer", "dht")}


@pytest.fixture
async def net() -> AsyncIterator[Testnet]:
    """A DHT on loopback."""
    async with Testnet(12, seed=1) as made:
        yield made


@contextlib.asynccontextmanager
async def volunteer(net: Testnet, host: str) -> AsyncIterator[Endpoint]:
    """A volunteer that has announced itself."""
    sections = {"dht": dht_of(net), "relay_for_others": RelayForOthersConfig(enabled=True)}
    settings: dict[str, Any] = {"bind": (f"{host}:0",), "addr_deny": (), "plugin_configs": sections, **DHT}
    async with Endpoint.bind(config(**settings)) as endpoint:
        await until(lambda: sum(volunteer_of(endpoint).announced.values()) > 0)
        yield endpoint


def seeker(net: Testnet, **fields: Any) -> Any:
    """A node that no stranger reaches, and that has no relay."""
    sections = {"dht": dht_of(net), "relay_client": RelayClientConfig(volunteers="always")}
    return Endpoint.bind(config(plugin_configs=sections, **{**DHT, **fields}))


def url_of(endpoint: Endpoint) -> RelayUrl:
    return RelayUrl.of_node(endpoint.node_id, endpoint.local_addrs[0])


async def test_a_restart_needs_no_look_up(net: Testnet, tmp_path: Path) -> None:
    """A node that was served before goes to the same volunteers although the DHT can't be asked any more."""
    settings: dict[str, Any] = {"persist": True, "data_dir": tmp_path}
    async with volunteer(net, "127.0.0.2") as one, volunteer(net, "127.0.0.3") as two:
        async with seeker(net, **settings) as node:
            await until(lambda: len(node.node_addr().relay_urls) == 2)
        sections = {"relay_client": RelayClientConfig(volunteers="always")}
        async with Endpoint.bind(config(plugins=("relay",), plugin_configs=sections, **settings)) as again:
            await until(lambda: set(again.node_addr().relay_urls) == {url_of(one), url_of(two)})


async def test_a_volunteer_that_was_lost_is_replaced(net: Testnet) -> None:
    """When one of two goes, a third is found; the node has two again within seconds."""
    async with volunteer(net, "127.0.0.2") as one, volunteer(net, "127.0.0.3") as two, seeker(net) as node:
        await until(lambda: set(node.node_addr().relay_urls) == {url_of(one), url_of(two)})
        async with volunteer(net, "127.0.0.4") as three:
            await one.close()
            await until(lambda: set(node.node_addr().relay_urls) == {url_of(two), url_of(three)}, within=20.0)


async def test_dht_only_uses_these_and_nothing_else(net: Testnet, tmp_path: Path) -> None:
    """With `dht_only` relays that were configured, by option or by map, are left alone, and volunteers are not."""
    (tmp_path / "map").write_text("http://127.0.0.1:9/\n")
    options = RelayClientConfig(volunteers="always", map=tmp_path / "map")
    sections = {"dht": dht_of(net), "relay_client": options}
    async with volunteer(net, "127.0.0.2") as one:
        settings = config("http://127.0.0.1:9/", plugin_configs=sections, **{**DHT, "dht_only": True})
        async with Endpoint.bind(settings) as node:
            assert (await home(node)).relay_urls == (url_of(one),)
            assert {relay.kind for relay in node.relays()} == {"volunteer"}


async def test_our_own_outage_is_not_their_fault(net: Testnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing that we send arrives anywhere, volunteers are not blamed, and are had again once it does."""
    async with volunteer(net, "127.0.0.2") as one, volunteer(net, "127.0.0.3") as two, seeker(net) as node:
        both = {url_of(one), url_of(two)}
        await until(lambda: set(node.node_addr().relay_urls) == both)
        book = node._contexts("relay").shared["transport"].seeker.book
        with monkeypatch.context() as broken:
            broken.setattr(node._magic, "send_quic", lambda *_args, **_named: None)
            await until(lambda: not node.node_addr().relay_urls)
        await until(lambda: set(node.node_addr().relay_urls) == both, within=40.0)
        assert sum(entry.failures for entry in book._known.values()) <= 1


async def test_nobody_looks_for_what_is_not_needed(net: Testnet) -> None:
    """A node with a relay of its own, one that strangers reach, and one that was told so look for no volunteer."""
    dht = {"dht": dht_of(net)}
    off = {**dht, "relay_client": RelayClientConfig(volunteers="off")}
    async with volunteer(net, "127.0.0.2") as one:
        async with (
            Endpoint.bind(config(url_of(one), plugin_configs=dht, **DHT)) as with_relay,
            Endpoint.bind(config(plugin_configs=dht, **{**DHT, "addr_deny": ()})) as reached,
            Endpoint.bind(config(plugin_configs=off, **DHT)) as told,
        ):
            await home(with_relay)
            transports = [node._contexts("relay").shared["transport"] for node in (with_relay, reached, told)]
            assert [transport.seeks for transport in transports] == [False, True, False]
            await until(lambda: transports[1].seeker is not None)
            await asyncio.sleep(SETTLE + 3 * TICK)
            assert transports[0].seeker is None and transports[2].seeker is None
            assert transports[1].seeker.tried == 0 and not reached.node_addr().relay_urls


async def test_a_node_without_a_relay_is_reached_through_volunteers(net: Testnet) -> None:
    """It finds two through the DHT and publishes both; who knows its key alone reaches it there."""
    async with volunteer(net, "127.0.0.2") as one, volunteer(net, "127.0.0.3") as two, seeker(net) as node:
        await home(node)
        await until(lambda: len(node.node_addr().relay_urls) == 2)
        assert set(node.node_addr().relay_urls) == {url_of(one), url_of(two)}
        await until(lambda: bool(node.watch_published().value))
        async with seeker(net, dht_only=True) as dialer:
            here, there = await meet(dialer, node, NodeAddr(node.node_id))
            assert kinds(here) == {"relay"}
            await passes(here, there, b"found" * 1000)
            await here.close()


@pytest.mark.slow
async def test_volunteers_that_fall_silent_are_replaced_when_they_are_suspected(net: Testnet) -> None:
    """Both pass nothing on any more, and the next test by itself is far away: a call has them tested and left."""
    async with volunteer(net, "127.0.0.2") as one, volunteer(net, "127.0.0.3") as two, seeker(net) as node:
        transport = node._contexts("relay").shared["transport"]
        await until(lambda: transport.seeker is not None)
        found = transport.seeker
        await until(lambda: sum(used.passed > 2 for used in found._used.values()) == 2)
        async with volunteer(net, "127.0.0.4") as three:
            for liar in (one, two):
                volunteer_of(liar).hub._forward = lambda *_args: None  # type: ignore[method-assign]
            node._magic.relays.suspect()
            await until(lambda: set(node.node_addr().relay_urls) == {url_of(three)}, within=60.0)


def test_what_a_volunteer_is_tested_with_looks_like_quic() -> None:
    """An Initial of version 1 whose length is right, and short headers; the first byte tells no test from traffic."""
    first, *others = random_payloads()
    header = pull_quic_header(Buffer(data=first), host_cid_length=8)
    assert header.packet_type == QuicPacketType.INITIAL and header.version == QuicProtocolVersion.VERSION_1
    assert header.packet_length == len(first) == SIZE
    assert all(len(data) == SIZE and data[0] & 0xC0 == 0x40 for data in others)
    assert len({data[:9] for data in others}) == len(others)
