"""npm's ws as an existing signaling client: unchanged before our server, beside nodes of ours, and with our client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.interop.conftest import running
from tests.interop.peers.npm_ws import NpmWs
from tom_connect import Endpoint, EndpointConfig
from tom_connect.exceptions import DiscoveryError
from tom_connect.keys import SecretKey
from tom_signaling_legacy.client import plugin
from tom_signaling_legacy.client.config import SignalingConfig
from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig

ALICE, BOB = "a" * 64, "b" * 64
ALPN = "test/1"
WAIT = 60.0


@pytest.fixture
def npm() -> Iterator[NpmWs]:
    """Clients of npm's ws."""
    yield from running(NpmWs.start)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[SignalingServer]:
    """Our server."""
    async with SignalingServer(SignalingServerConfig.dev(listen=("127.0.0.1:0",), queue_bytes=200_000)) as server:
        yield server


def config(url: str) -> EndpointConfig:
    return EndpointConfig(
        alpns=(ALPN,),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=(),
        extra_plugins=(("signaling-test", plugin),),
        plugin_configs={"signaling": SignalingConfig(urls=(url,), phase=1, timeout=2.0)},
    )


async def test_existing_clients_work_unchanged(npm: NpmWs, server: SignalingServer) -> None:
    """Two of them register, see each other come, beat, get roles and signals, and see each other go."""
    async with asyncio.timeout(WAIT):
        alice, bob = await npm.open(server.url), await npm.open(server.url + "/some/path")
        mine = {"nodeId": ALICE, "username": "Alice", "encryptionKey": "ek"}
        assert await npm.register(alice, ALICE, username="Alice", publicKey="pk", encryptionKey="ek") == [mine]
        assert await npm.register(bob, BOB, username="Bob") == [mine, {"nodeId": BOB, "username": "Bob"}]
        joined = {"type": "presence", "action": "join", "nodeId": BOB, "username": "Bob", "publicKey": ""}
        assert await npm.hear(alice, "presence") == joined
        assert len((await npm.hear(alice))["participants"]) == 2
        await npm.say(bob, {"type": "heartbeat"})
        assert await npm.hear(alice) == {"type": "heartbeat", "from": BOB}
        await npm.say(alice, {"type": "role-assign", "nodeId": BOB, "roles": ["relay", "backup"]})
        roles = {"type": "role-assign", "nodeId": BOB, "roles": ["relay", "backup"], "from": ALICE}
        assert await npm.hear(alice) == roles
        assert await npm.hear(bob) == roles
        offer = {
            "type": "signal",
            "from": ALICE,
            "to": BOB,
            "payload": {"type": "offer", "sdp": "v=0\r\nö"},
            "x": [None],
        }
        await npm.say(alice, offer)
        assert await npm.hear(bob) == offer
        await npm.close_client(bob)
        assert await npm.hear(alice) == {**joined, "action": "leave"}
        assert await npm.hear(alice) == {"type": "participants", "participants": [mine]}


async def test_existing_clients_read_the_errors(npm: NpmWs, server: SignalingServer) -> None:
    """Each mistake is answered in the words that they know, and `null` by nothing; the connection goes on."""
    async with asyncio.timeout(WAIT):
        alice = await npm.open(server.url)
        await npm.say_text(alice, "{")
        assert await npm.hear(alice) == {"type": "error", "error": "invalid JSON"}
        await npm.say(alice, {"type": "register", "nodeId": ALICE})
        assert await npm.hear(alice) == {"type": "error", "error": "missing nodeId or username"}
        await npm.say_text(alice, "null")
        await npm.register(alice, ALICE, username="Alice")
        await npm.say(alice, {"type": "signal", "from": ALICE})
        assert await npm.hear(alice) == {"type": "error", "error": "missing to or from"}
        await npm.say(alice, {"type": "signal", "from": ALICE, "to": BOB, "payload": 1})
        assert await npm.hear(alice) == {"type": "error", "error": "peer not found"}


async def test_a_reconnect_keeps_the_new_connection(npm: NpmWs, server: SignalingServer) -> None:
    """A client that has reconnected before its old connection ended stays registered, which the old server forgot."""
    async with asyncio.timeout(WAIT):
        old, new, bob = [await npm.open(server.url) for _ in range(3)]
        await npm.register(old, ALICE, username="Alice")
        await npm.register(new, ALICE, username="Alice")
        await npm.register(bob, BOB, username="Bob")
        await npm.close_client(old)
        await npm.say(bob, {"type": "signal", "from": BOB, "to": ALICE, "payload": "still there?"})
        assert (await npm.hear(new, "signal"))["payload"] == "still there?"


async def test_a_client_that_stops_reading_is_ended(npm: NpmWs, server: SignalingServer) -> None:
    """A paused client is ended when its queue is full, and the others hear that it left."""
    async with asyncio.timeout(WAIT):
        alice, bob = await npm.open(server.url), await npm.open(server.url)
        await npm.register(bob, BOB, username="Bob")
        await npm.register(alice, ALICE, username="Alice")
        await npm.pause(bob)
        while not server.hub.ended["slow"]:
            await npm.say(alice, {"type": "signal", "from": ALICE, "to": BOB, "payload": "x" * 60_000})
        assert (await npm.hear(alice, "presence"))["action"] == "leave"


async def test_a_client_without_heartbeats_stays(npm: NpmWs, server: SignalingServer) -> None:
    """A client that sends nothing answers the server's pings as every WebSocket does, and so gives signs of life."""
    async with asyncio.timeout(WAIT):
        alice = await npm.open(server.url)
        await npm.register(alice, ALICE, username="Alice")
        loop = asyncio.get_running_loop()
        registered = loop.time()
        # Seen alive again after its registration: only a pong can have been what was heard.
        while server.hub.is_stale(ALICE, loop.time()) or loop.time() - registered < 11.0:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert await npm.is_open(alice)


async def test_nodes_of_ours_meet_among_them(npm: NpmWs, server: SignalingServer) -> None:
    """Two endpoints find each other through a server that existing clients share; those see two more clients."""
    async with asyncio.timeout(WAIT):
        old = await npm.open(server.url)
        await npm.register(old, BOB, username="Bob")
        async with Endpoint.bind(config(server.url)) as alice, Endpoint.bind(config(server.url)) as carol:
            await alice.watch_published().other_than(())
            dialing = asyncio.create_task(carol.connect(alice.node_id, ALPN))
            await (await anext(alice.accept())).accept()
            assert (await dialing).remote_node_id == alice.node_id
            seen = {(await npm.hear(old, "presence"))["nodeId"] for _ in range(2)}
            assert seen == {str(alice.node_id), str(carol.node_id)}


async def question(npm: NpmWs, client: int) -> dict[str, Any]:
    """The next signal that asks for a record; others call, which an old client does not understand."""
    while True:
        signal = await npm.hear(client, "signal")
        if signal["payload"]["type"] == "tom-record-request":
            return signal


async def test_an_existing_client_that_is_dialed(npm: NpmWs, server: SignalingServer) -> None:
    """An old client gets our question as a signal; silence, or an address that nobody signed, is told as that."""
    key = SecretKey.generate()
    async with asyncio.timeout(WAIT):
        old = await npm.open(server.url)
        await npm.register(old, str(key.node_id), username="Old")
        async with Endpoint.bind(config(server.url)) as alice:
            with pytest.raises(DiscoveryError, match="the node did not answer"):
                await alice.connect(key.node_id, ALPN)
            asked = await question(npm, old)
            assert asked["from"] == str(alice.node_id)
            dialing = asyncio.create_task(alice.connect(key.node_id, ALPN))
            asked = await question(npm, old)
            unsigned = {**asked["payload"], "type": "tom-record", "record": {"addr": "127.0.0.1:9"}}
            await npm.say(old, {"type": "signal", "from": asked["to"], "to": asked["from"], "payload": unsigned})
            with pytest.raises(DiscoveryError, match="no signed record"):
                await dialing
