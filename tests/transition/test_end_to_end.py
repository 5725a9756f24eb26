"""One and the same suite for every phase of the transition away from signaling: what a program sees does not change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tom_connect import Endpoint, EndpointConfig, SecretKey
from tom_connect.exceptions import DiscoveryError

# One phase warns of every use, and nothing but that may differ.
pytestmark = pytest.mark.filterwarnings("default:legacy signaling is deprecated:DeprecationWarning")

WAIT = 60.0
ALPN = "transition/1"
Node = Callable[..., EndpointConfig]


async def published_by(endpoint: Endpoint, publisher: str) -> None:
    """Wait until a publisher has told where the endpoint is."""
    async with asyncio.timeout(WAIT):
        async for reports in endpoint.watch_published():
            if any(report.by == publisher for report in reports):
                return


async def echoed(dialer: Endpoint, dialed: Endpoint) -> None:
    """Dial by node id alone, and have bytes back."""
    async with asyncio.timeout(WAIT):
        dialing = asyncio.create_task(dialer.connect(dialed.node_id, ALPN, timeout=WAIT))
        theirs = await (await anext(dialed.accept())).accept()
        ours = await dialing
        assert ours.remote_node_id == dialed.node_id
        stream = await ours.open_bi()
        stream.write(b"as before")
        stream.finish()
        answering = await theirs.accept_bi()
        answering.write(await answering.read())
        answering.finish()
        assert await stream.read() == b"as before"
        await ours.close()


async def test_a_node_is_dialed_by_its_id(node: Node) -> None:
    """Two nodes meet by node id alone, and the DHT, which is asked first, is who found the other."""
    async with Endpoint.bind(node()) as alice, Endpoint.bind(node()) as bob:
        await published_by(alice, "dht")
        await echoed(bob, alice)
        counts = bob.discovery_counts()
        assert {name: c.first for name, c in counts.items() if c.first} == {"dht": 1}
        assert all(c.asked == 0 for name, c in counts.items() if name != "dht")


async def test_a_node_that_restarts_is_found_again(node: Node) -> None:
    """A node that comes back with its key at another address is found there."""
    key = SecretKey.generate()
    async with Endpoint.bind(node()) as bob:
        for _ in range(2):
            async with Endpoint.bind(node(secret_key=key)) as alice:
                await published_by(alice, "dht")
                await echoed(bob, alice)


async def test_dht_only(node: Node) -> None:
    """With `dht_only` on both sides nodes meet, and nothing but the DHT was asked or told."""
    async with Endpoint.bind(node(dht_only=True)) as alice, Endpoint.bind(node(dht_only=True)) as bob:
        await published_by(alice, "dht")
        await echoed(bob, alice)
        assert set(bob.discovery_counts()) == {"dht"}
        assert {report.by for report in alice.watch_published().value} == {"dht"}


async def test_both_kinds_meet(node: Node) -> None:
    """A node with `dht_only` and one without find each other, in both directions."""
    async with Endpoint.bind(node(dht_only=True)) as alice, Endpoint.bind(node()) as bob:
        await published_by(alice, "dht")
        await published_by(bob, "dht")
        await echoed(bob, alice)
        await echoed(alice, bob)


async def test_a_node_that_nobody_knows(node: Node) -> None:
    """A node that was never there is a DiscoveryError that names the DHT's outcome."""
    async with Endpoint.bind(node()) as bob:
        with pytest.raises(DiscoveryError, match="dht"):
            await bob.connect(SecretKey.generate().node_id, ALPN, timeout=WAIT)


async def test_no_plugin_has_failed(node: Node) -> None:
    """Every plugin that is in use does its work without a failure."""
    async with Endpoint.bind(node()) as alice, Endpoint.bind(node()) as bob:
        await published_by(alice, "dht")
        await echoed(bob, alice)
        used = [info for info in (*alice.plugins, *bob.plugins) if info.state != "blocked"]
        assert used and all(info.state == "loaded" for info in used), used
