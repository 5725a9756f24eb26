"""The plugins in real endpoints: nodes that know nothing of each other but a NodeId."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tom_connect import Endpoint, EndpointConfig, SecretKey
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DialError, DiscoveryError
from tom_connect.record import sign_record
from tom_pkarr.client import plugin
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.core.rules import Packet
from tom_pkarr.server import PkarrRelay
from tom_pkarr.server.store import PutOrder

WAIT = 20.0


def config(*urls: str, **options: Any) -> EndpointConfig:
    defaults: dict[str, Any] = {"alpns": ("test/1",), "bind": ("127.0.0.1:0",), "allow_local": True, "persist": False}
    return EndpointConfig(
        **{**defaults, **options},
        plugins=(),
        extra_plugins=(("pkarr-test", plugin),),
        plugin_configs={"pkarr": PkarrConfig(relays=urls)},
    )


async def test_endpoints_meet_by_node_id_alone(relay: PkarrRelay) -> None:
    """One publishes, the other dials its NodeId, and bytes pass."""
    async with Endpoint.bind(config(relay.url)) as alice, Endpoint.bind(config(relay.url)) as bob:
        async with asyncio.timeout(WAIT):
            await alice.watch_published().other_than(())
            dialing = asyncio.create_task(bob.connect(alice.node_id, "test/1"))
            theirs = await (await anext(alice.accept())).accept()
            ours = await dialing
            assert ours.remote_node_id == alice.node_id
            stream = await ours.open_bi()
            stream.write(b"through Pkarr")
            stream.finish()
            assert await (await theirs.accept_bi()).read() == b"through Pkarr"


async def test_the_error_says_what_each_relay_answered(relay: PkarrRelay, serve: Any, http_answer: Any) -> None:
    """A node that nobody published is a DiscoveryError with the source and the reasons of its relays."""
    broken = await serve(http_answer(500))
    async with Endpoint.bind(config(relay.url, f"http://{broken}")) as bob:
        with pytest.raises(DiscoveryError) as caught:
            await bob.connect(SecretKey.generate().node_id, "test/1", timeout=WAIT)
    for words in ("pkarr", str(broken), "HTTP status 500", str(relay.addrs[0]), "it holds no record"):
        assert words in str(caught.value)


async def test_dht_only_asks_no_relay(relay: PkarrRelay) -> None:
    """With `dht_only` nothing is published to a Pkarr relay and none is asked."""
    async with Endpoint.bind(config(relay.url, dht_only=True)) as bob:
        with pytest.raises(DiscoveryError):
            await bob.connect(SecretKey.generate().node_id, "test/1", timeout=WAIT)
    assert not relay.site.counters.answers


async def test_private_addresses_of_a_record_get_no_packet(relay: PkarrRelay) -> None:
    """A record can't send us into our own machine or network: its private addresses are not even pinged."""
    key = SecretKey.generate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind(("127.0.0.1", 0))
        victim.setblocking(False)
        addr = NodeAddr(key.node_id, direct_addrs=(("127.0.0.1", victim.getsockname()[1]), "10.0.0.1:1", "[fc00::1]:1"))
        record = sign_record(key, addr, int(relay.wall() * 1e6))
        await relay.shelf.put(PutOrder(Packet.of(record), key.node_id.z32()))
        async with Endpoint.bind(config(relay.url, allow_local=False)) as bob:
            with pytest.raises((DialError, DiscoveryError)):
                await bob.connect(key.node_id, "test/1", timeout=2.0)
        with pytest.raises(BlockingIOError):
            victim.recv(2000)
