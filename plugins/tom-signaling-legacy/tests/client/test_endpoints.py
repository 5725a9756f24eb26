"""The client in real endpoints: found through servers of ours, of others, and of liars."""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from tom_connect import Endpoint, EndpointConfig, SecretKey
from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import ConfigError, DiscoveryError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId
from tom_signaling_legacy.client import plugin
from tom_signaling_legacy.client.config import SignalingConfig
from tom_signaling_legacy.client.discovery import SignalingDiscovery
from tom_signaling_legacy.client.plugin import tom_diagnostics, tom_discovery, tom_publisher
from tom_signaling_legacy.server import SignalingServer

WAIT = 30.0
ALPN = "test/1"


def config(*urls: str, extra: tuple[Any, ...] = (), dht_only: bool = False, **options: Any) -> EndpointConfig:
    return EndpointConfig(
        alpns=(ALPN,),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        dht_only=dht_only,
        plugins=(),
        extra_plugins=(("signaling-test", plugin), *extra),
        plugin_configs={"signaling": SignalingConfig(**{"urls": urls, "phase": 1, "timeout": 10.0, **options})},
    )


async def meet(dialer: Endpoint, dialed: Endpoint) -> None:
    """Dial by node id alone, and pass bytes."""
    async with asyncio.timeout(WAIT):
        dialing = asyncio.create_task(dialer.connect(dialed.node_id, ALPN, timeout=WAIT))
        theirs = await (await anext(dialed.accept())).accept()
        ours = await dialing
        stream = await ours.open_bi()
        stream.write(b"through signaling")
        stream.finish()
        assert await (await theirs.accept_bi()).read() == b"through signaling"


async def published(endpoint: Endpoint) -> None:
    async with asyncio.timeout(WAIT):
        await endpoint.watch_published().other_than(())


Liar = Callable[[web.WebSocketResponse, Any], Any]


@contextlib.asynccontextmanager
async def lying(answer: Liar) -> AsyncIterator[str]:
    """A WebSocket server that answers each message as a coroutine says; gives its URL."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await answer(socket, json.loads(message.data))
        return socket

    async with serving(handle) as url:
        yield url


@contextlib.asynccontextmanager
async def serving(handle: Any) -> AsyncIterator[str]:
    manager = web.Server(handle, handler_cancellation=True)
    server = await asyncio.get_running_loop().create_server(manager, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await manager.shutdown(0.1)


def listing(*nodes: NodeId) -> dict[str, Any]:
    return {"type": "participants", "participants": [{"nodeId": str(node), "username": "x"} for node in nodes]}


async def test_endpoints_meet_by_node_id_alone(server: SignalingServer) -> None:
    """One registers, the other dials its node id through the server, and bytes pass."""
    async with Endpoint.bind(config(server.url)) as alice, Endpoint.bind(config(server.url)) as bob:
        await published(alice)
        await meet(bob, alice)
        counts = bob.discovery_counts()["signaling"]
        assert (counts.found, counts.first) == (1, 1)
        told = dict(bob.diagnostics()["signaling-test"])
        assert told[server.url] == "registered, 1 other nodes are there"
        assert told["nodes found by signaling"] == 1


async def test_a_restarted_server_is_found_again(run: Any, eventually: Any) -> None:
    """A server that goes away and comes back has its clients again, by themselves."""
    async with run() as first:
        port = first.addrs[0].port
        async with Endpoint.bind(config(first.url)) as alice, Endpoint.bind(config(first.url)) as bob:
            await published(alice)
            await first.stop()
            async with run(listen=(f"127.0.0.1:{port}",)) as second:
                await eventually(lambda: len(second.hub) == 2)
                await meet(bob, alice)


async def test_one_of_two_servers_is_dead(server: SignalingServer) -> None:
    """With one server dead nodes meet through the other, and the dead one is told in the diagnostics."""
    urls = ("ws://127.0.0.1:9", server.url)
    async with Endpoint.bind(config(*urls, timeout=1.0)) as alice, Endpoint.bind(config(*urls, timeout=1.0)) as bob:
        await published(alice)
        await meet(bob, alice)
        assert "connect" in str(bob.diagnostics()["signaling-test"]["ws://127.0.0.1:9"]).lower()


async def test_a_node_that_is_not_there_ends_the_search(server: SignalingServer) -> None:
    """Where the server lists no such node the dial fails at once and says that signaling found nothing."""
    async with Endpoint.bind(config(server.url)) as bob:
        await published(bob)
        with pytest.raises(DiscoveryError, match="signaling: nothing found"):
            await bob.connect(SecretKey.generate().node_id, ALPN, timeout=WAIT)


async def test_the_error_says_what_the_server_did() -> None:
    """A dial that failed for a dead server names the server and the reason."""
    async with Endpoint.bind(config("ws://127.0.0.1:9", timeout=0.5)) as bob:
        with pytest.raises(DiscoveryError, match=r"signaling: 127\.0\.0\.1:9: .*onnect"):
            await bob.connect(SecretKey.generate().node_id, ALPN, timeout=WAIT)


async def test_dht_only_is_not_even_registered(server: SignalingServer) -> None:
    """With `dht_only` no server hears of us, and none is asked."""
    async with Endpoint.bind(config(server.url, dht_only=True)) as bob:
        with pytest.raises(DiscoveryError):
            await bob.connect(SecretKey.generate().node_id, ALPN, timeout=WAIT)
    assert not server.gate.counts["accepted"]


async def test_disabled_is_as_if_it_were_not_there(server: SignalingServer, lend: Any) -> None:
    """Without servers, or not enabled, the plugin gives nothing and connects to nobody."""
    for options in (SignalingConfig(), SignalingConfig(urls=(server.url,), enabled=False)):
        ctx = lend(options)
        assert (tom_discovery(ctx), tom_publisher(ctx), tom_diagnostics(ctx)) == (None, None, None)
    assert not server.gate.counts["accepted"]


def test_signaling_comes_last() -> None:
    """It is asked 5 s after all others, whatever they usually take, and counts as a server's."""
    assert (SignalingDiscovery.stage, SignalingDiscovery.stage_is_fixed) == (5.0, True)
    assert not SignalingDiscovery.serverless


class Directory(Discovery):
    """Another source, that knows one address."""

    name = "directory"

    def __init__(self, addr: NodeAddr) -> None:
        self._addr = addr

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        yield FoundAddr(self._addr, self.name)


class DirectoryPlugin:
    """Brings it."""

    def __init__(self, addr: NodeAddr) -> None:
        self._addr = addr

    @hookimpl
    def tom_discovery(self, ctx: Any) -> Discovery:
        return Directory(self._addr)


async def test_others_go_on_without_a_signaling_server() -> None:
    """With every signaling server dead, lying or hanging, a node that another source knows is dialed."""

    async def hang(_socket: web.WebSocketResponse, _message: Any) -> None:
        await asyncio.Event().wait()

    async def nonsense(socket: web.WebSocketResponse, _message: Any) -> None:
        for text in ("null", "{", "[[]]", '{"type":"participants"}', '{"type":"signal","payload":[]}'):
            await socket.send_str(text)

    async with lying(hang) as silent, lying(nonsense) as liar, Endpoint.bind(config()) as alice:
        extra = (("directory", DirectoryPlugin(alice.node_addr())),)
        urls = ("ws://127.0.0.1:9", silent, liar)
        async with Endpoint.bind(config(*urls, extra=extra, timeout=0.5)) as bob:
            await meet(bob, alice)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"addrs": ["192.0.2.1:7"]}, "no signed record"),
        ("bm9uc2Vuc2U=", "not a signed packet"),
        (5, "no signed record"),
    ],
    ids=str,
)
async def test_what_is_not_signed_is_not_believed(record: Any, reason: str) -> None:
    """A server that answers in the name of a node without its signature leads nowhere, and the error says why."""
    wanted = SecretKey.generate().node_id

    async def lie(socket: web.WebSocketResponse, message: Any) -> None:
        if message["type"] == "register":
            await socket.send_json(listing(NodeId.parse(message["nodeId"]), wanted))
        elif message["type"] == "signal":
            answer = {"type": "tom-record", "id": message["payload"].get("id"), "record": record}
            for _ in range(20):
                back = {"type": "signal", "from": message["to"], "to": message["from"], "payload": answer}
                await socket.send_json(back)

    async with lying(lie) as url, Endpoint.bind(config(url, timeout=1.0)) as bob:
        await published(bob)
        with pytest.raises(DiscoveryError, match=reason):
            await bob.connect(wanted, ALPN, timeout=WAIT)


async def test_a_node_that_does_not_answer_is_told() -> None:
    """A listed node that gives no answer, as an old client does not, is told as that."""
    wanted = SecretKey.generate().node_id

    async def quiet(socket: web.WebSocketResponse, message: Any) -> None:
        if message["type"] == "register":
            await socket.send_json(listing(NodeId.parse(message["nodeId"]), wanted))

    async with lying(quiet) as url, Endpoint.bind(config(url, timeout=0.5)) as bob:
        await published(bob)
        with pytest.raises(DiscoveryError, match=r"the node did not answer in 0\.5 s"):
            await bob.connect(wanted, ALPN, timeout=WAIT)


async def test_redirects_are_not_followed(server: SignalingServer, eventually: Any) -> None:
    """A server that redirects can't send us elsewhere: nobody there hears of us, and the diagnostics say why."""

    async def redirect(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": server.url.replace("ws://", "http://")})

    async with serving(redirect) as url, Endpoint.bind(config(url)) as bob:
        await eventually(lambda: "redirects" in str(bob.diagnostics()["signaling-test"][url]))
    assert not server.gate.counts["accepted"]


async def test_a_flood_from_the_server_harms_only_itself(server: SignalingServer) -> None:
    """While one server floods us with requests and lists, nodes meet through another."""

    async def flood(socket: web.WebSocketResponse, message: Any) -> None:
        own = message.get("nodeId")
        if own is None:
            return
        request = {"type": "tom-record-request", "id": "x"}
        for number in range(300):
            await socket.send_json(listing(*[NodeId.parse(own)] * 100))
            await socket.send_json({"type": "signal", "from": f"{number:064x}", "to": own, "payload": request})

    async with lying(flood) as url:
        both = config(url, server.url)
        async with Endpoint.bind(config(server.url)) as alice, Endpoint.bind(both) as bob:
            await published(alice)
            await published(bob)
            await meet(bob, alice)


async def test_the_silent_phases_warn_of_nothing(server: SignalingServer, caplog: pytest.LogCaptureFixture) -> None:
    """In phases 1 and 2 a use of signaling warns nobody."""
    for phase in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with Endpoint.bind(config(server.url, phase=phase)) as alice:
                await published(alice)
    assert "deprecated" not in caplog.text


def test_deprecated_is_the_default() -> None:
    """Who says nothing of the phase is told that signaling is deprecated, and what to do."""
    assert SignalingConfig().phase == 3
    assert "pip uninstall" in str(SignalingConfig().deprecation)
    assert SignalingConfig(phase=2).deprecation is None


async def test_where_deprecations_are_errors_nobody_is_registered(
    server: SignalingServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With `-W error` no part of signaling is used, which is told with the reason, and the endpoint goes on without."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with Endpoint.bind(config(server.url, phase=3)) as alice:
            with pytest.raises(DiscoveryError):
                await alice.connect(SecretKey.generate().node_id, ALPN, timeout=WAIT)
    assert not server.gate.counts["accepted"]
    assert caplog.text.count("failed: start(): DeprecationWarning: legacy signaling is deprecated") == 1


async def test_phase_3_warns_once_of_each_use(server: SignalingServer, caplog: pytest.LogCaptureFixture) -> None:
    """In phase 3 registering and finding warn once each, by DeprecationWarning, log and diagnostics, and work."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Endpoint.bind(config(server.url)) as alice, Endpoint.bind(config(server.url, phase=3)) as bob:
            await published(alice)
            await meet(bob, alice)
            await meet(bob, alice)
            assert "deprecated" in dict(bob.diagnostics()["signaling-test"])
            assert "deprecated" not in dict(alice.diagnostics()["signaling-test"])
    told = [str(warning.message) for warning in caught if warning.category is DeprecationWarning]
    assert len(told) == 2 and "we register" in told[0] and "was found" in told[1]
    assert sum("signaling is deprecated" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phase": 4}, "pip uninstall"),
        ({"phase": 0}, "expected 1, 2 or 3"),
        ({"phase": True}, "phase"),
        ({"urls": ("http://x",)}, "expected ws://"),
        ({"urls": ("ws://",)}, "expected ws://"),
        ({"urls": ("ws://[",)}, "expected ws://"),
        ({"urls": ("ws://x:99999",)}, "expected ws://"),
        ({"urls": "ws://x"}, "sequence"),
        ({"urls": tuple(f"ws://x{n}" for n in range(5))}, "at most 4"),
        ({"username": "x" * 200}, "at most 128"),
        ({"timeout": 0}, "seconds"),
        ({"enabled": "yes"}, "True or False"),
    ],
    ids=str,
)
def test_wrong_options_are_told(options: dict[str, Any], words: str) -> None:
    """An option of a wrong shape is a ConfigError that says what is expected."""
    with pytest.raises(ConfigError, match=words):
        SignalingConfig(**options)
