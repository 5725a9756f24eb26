"""Nodes without a relay find volunteers through the DHT, test them, and replace those that go or lie."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tom_connect import Endpoint, NodeAddr
from tom_connect.addr import RelayUrl
from tom_dht_mainline.testing import Testnet
from tom_relay.client.config import RelayClientConfig
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
