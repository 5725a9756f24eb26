"""npm's pkarr: its client with our relay, our client with its relay, and both relays before one DHT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.interop.conftest import running
from tests.interop.peers.npm_pkarr import NpmPkarr
from tests.interop.peers.process import PeerError
from tom_connect import Endpoint, EndpointConfig, SecretKey
from tom_dht_mainline.testing import Testnet
from tom_pkarr.client import plugin
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.server import PkarrRelay, PkarrServerConfig

TEXTS = ["relay=https://relay.example/", "addr=203.0.113.7:4433", "addr=[2001:db8::7]:4433", "user-data=foobar"]
WAIT = 30.0


@pytest.fixture
def npm() -> Iterator[NpmPkarr]:
    """npm's pkarr."""
    yield from running(NpmPkarr.start)


@pytest_asyncio.fixture
async def relay() -> AsyncIterator[PkarrRelay]:
    """Our relay."""
    async with PkarrRelay(PkarrServerConfig.dev(listen=("127.0.0.1:0",))) as relay:
        yield relay


def config(*urls: str) -> EndpointConfig:
    return EndpointConfig(
        alpns=("test/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=(),
        extra_plugins=(("pkarr-test", plugin),),
        plugin_configs={"pkarr": PkarrConfig(relays=urls, timeout=20.0)},
    )


def addresses(net: Testnet) -> list[tuple[str, int]]:
    return [(host, int(port)) for host, _, port in (text.rpartition(":") for text in net.bootstrap)]


async def test_its_client_uses_our_relay(npm: NpmPkarr, relay: PkarrRelay) -> None:
    """npm's client publishes and resolves at our relay, whose rules it meets with the statuses that it knows."""
    key = SecretKey.generate()
    now = int(time.time() * 1e6)
    assert await npm.put(relay.url, key.seed(), TEXTS, now) == 204
    found = await npm.get(relay.url, key.node_id.raw)
    assert (found.timestamp_us, found.texts) == (now, TEXTS)
    assert set(found.names) == {f"_iroh.{key.node_id.z32()}"}
    assert await npm.put(relay.url, key.seed(), TEXTS, now - 1) == 409
    with pytest.raises(PeerError):
        await npm.get(relay.url, SecretKey.generate().node_id.raw)


async def test_what_we_publish_its_client_reads(npm: NpmPkarr, relay: PkarrRelay) -> None:
    """The record that an endpoint of ours published is a packet to npm's client, with the address in it."""
    async with Endpoint.bind(config(relay.url)) as endpoint:
        async with asyncio.timeout(WAIT):
            await endpoint.watch_published().other_than(())
        found = await npm.get(relay.url, endpoint.node_id.raw)
        assert f"addr={endpoint.local_addrs[0]}" in found.texts


async def test_what_its_client_published_we_dial(npm: NpmPkarr, relay: PkarrRelay) -> None:
    """An endpoint of ours whose address npm's client put at the relay is found and reached."""
    key = SecretKey.generate()
    server = EndpointConfig(
        alpns=("test/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False, plugins=(), secret_key=key
    )
    async with Endpoint.bind(server) as theirs, Endpoint.bind(config(relay.url)) as ours:
        texts = [f"addr={theirs.local_addrs[0]}"]
        assert await npm.put(relay.url, key.seed(), texts, int(time.time() * 1e6)) == 204
        async with asyncio.timeout(WAIT):
            dialing = asyncio.create_task(ours.connect(key.node_id, "test/1"))
            await (await anext(theirs.accept())).accept()
            assert (await dialing).remote_node_id == key.node_id


async def test_our_client_uses_its_relay(npm: NpmPkarr) -> None:
    """Two endpoints of ours meet through npm's relay, which keeps packets in a DHT (of ours, on loopback)."""
    async with Testnet(10) as net:
        url, _ = await npm.start_relay(addresses(net))
        async with Endpoint.bind(config(url)) as alice, Endpoint.bind(config(url)) as bob, asyncio.timeout(WAIT):
            (report,) = await alice.watch_published().other_than(())
            assert (report.by, report.nodes) == ("pkarr", 1)
            dialing = asyncio.create_task(bob.connect(alice.node_id, "test/1"))
            await (await anext(alice.accept())).accept()
            assert (await dialing).remote_node_id == alice.node_id


async def test_both_relays_before_one_dht(npm: NpmPkarr) -> None:
    """What is put at one relay is found at the other, since both publish to the DHT and look there."""
    ours, theirs = SecretKey.generate(), SecretKey.generate()
    async with Testnet(10) as net:
        url, _ = await npm.start_relay(addresses(net))
        serving = PkarrServerConfig(
            listen=("127.0.0.1:0",),
            dht="on",
            bootstrap=net.bootstrap,
            udp_listen=("127.0.0.1:0",),
            lookup_timeout=20.0,
        )
        async with PkarrRelay(serving) as relay, asyncio.timeout(WAIT):
            assert await npm.put(url, theirs.seed(), TEXTS, int(time.time() * 1e6)) == 200
            assert (await npm.get(relay.url, theirs.node_id.raw)).texts == TEXTS
            assert await npm.put(relay.url, ours.seed(), TEXTS, int(time.time() * 1e6)) == 204
            assert relay.dht is not None
            while not relay.dht.published["stored"]:  # noqa: ASYNC110 - the relay publishes behind its answer
                await asyncio.sleep(0.01)
            assert (await npm.get(url, ours.node_id.raw)).texts == TEXTS
