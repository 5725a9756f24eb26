"""The DHT as a directory of addresses under topics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from tom_connect.abc import PluginContext
from tom_connect.addr import SocketAddr
from tom_connect.exceptions import NetworkError
from tom_dht_mainline import plugin
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.deferred import DeferredTopics
from tom_dht_mainline.testing import Testnet

Lend = Callable[..., PluginContext]
TOPIC = hashlib.sha1(b"a topic").digest()


def _topics(lend: Lend, *bootstrap: str, **options: Any) -> DeferredTopics:
    config = DhtConfig(**{"bootstrap": bootstrap, "ipv6": False, "own_socket": True, "host": "127.0.0.1"} | options)
    made = plugin.tom_topic_directory(lend(config))
    assert isinstance(made, DeferredTopics)
    return made


async def test_who_announces_is_found(net: Testnet, lend: Lend) -> None:
    """Addresses announced under a topic are found there, each once, and nothing is found under another."""
    announced = []
    for port in (None, 4001):
        directory = _topics(lend, *net.bootstrap)
        await directory.start()
        try:
            assert await directory.announce(TOPIC, port) >= 6
            own = (await directory.loaded())._service.node.local_addrs[0]
            announced.append(SocketAddr("127.0.0.1", port or own.port))
            found = [addr async for addr in directory.find(TOPIC)]
            assert sorted(found) == sorted(announced)
            assert [addr async for addr in directory.find(hashlib.sha1(b"another").digest())] == []
        finally:
            await directory.aclose()


async def test_a_directory_without_a_network_says_so(lend: Lend) -> None:
    """Where no DHT node answers, both raise an error of the network."""
    directory = _topics(lend, "127.0.0.1:9")
    await directory.start()
    try:
        with pytest.raises(NetworkError):
            await directory.announce(TOPIC)
        with pytest.raises(NetworkError):
            async with aclosing(directory.find(TOPIC)) as found:  # type: ignore[type-var]
                await anext(found)
    finally:
        await directory.aclose()
