"""The plugin in real endpoints: nodes that know nothing of each other but a NodeId."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tom_connect import Endpoint, EndpointConfig, SecretKey
from tom_connect.exceptions import TomError
from tom_dht_mainline import plugin
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.testing import Testnet


def _config(net: Testnet, **options: Any) -> EndpointConfig:
    return EndpointConfig(
        alpns=("test/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=(),
        extra_plugins=(("dht", plugin),),
        plugin_configs={"dht": DhtConfig(**{"bootstrap": net.bootstrap, "host": "127.0.0.1", "ipv6": False} | options)},
    )


@pytest.mark.parametrize("own_socket", [False, True], ids=["shared socket", "own socket"])
async def test_endpoints_meet_by_node_id_alone(net: Testnet, own_socket: bool) -> None:
    """One publishes, the other dials its NodeId, and bytes pass, whichever socket the DHT uses."""
    config = _config(net, own_socket=own_socket)
    async with Endpoint.bind(config) as alice, Endpoint.bind(config) as bob:
        async with asyncio.timeout(10):
            await alice.watch_published().other_than(())
            dialing = asyncio.create_task(bob.connect(alice.node_id, "test/1"))
            theirs = await (await anext(alice.accept())).accept()
            ours = await dialing
            assert ours.remote_node_id == alice.node_id
            ours.send_datagram(b"through the DHT")
            assert await theirs.read_datagram() == b"through the DHT"


async def test_an_unknown_node_is_an_error_that_names_the_dht(net: Testnet) -> None:
    """A NodeId that nobody published can't be dialed; the error says that the DHT found nothing."""
    async with Endpoint.bind(_config(net)) as bob:
        with pytest.raises(TomError, match="dht"):
            async with asyncio.timeout(10):
                await bob.connect(SecretKey.generate().node_id, "test/1")
