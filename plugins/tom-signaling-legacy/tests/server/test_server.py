"""The server over real WebSockets: what it answers, and clients that misuse it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from tom_connect.exceptions import ConfigError
from tom_signaling_legacy.errors import SignalingServerError
from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig
from tom_signaling_legacy.server.cli import configured

ALICE, BOB, CAROL = "a" * 64, "b" * 64, "c" * 64
WAIT = 30.0


def http_url(server: SignalingServer) -> str:
    return server.url.replace("ws://", "http://")


async def test_health_and_unknown_paths(server: SignalingServer) -> None:
    """GET /health and every other path answer exactly the JSON of the old server."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
        for path, status, body in (("/health", 200, b'{"ok":true}'), ("/", 404, b'{"error":"not found"}')):
            async with http.get(http_url(server) + path) as response:
                assert (response.status, await response.read()) == (status, body)
                assert response.content_type == "application/json"
        async with http.post(http_url(server) + "/health") as response:
            assert response.status == 404


async def test_metrics_count_and_name_nobody(server: SignalingServer, connect: Any) -> None:
    """GET /metrics tells Prometheus who is there, what was said and what became of it, without any node's id."""
    alice, bob = await connect(server.url), await connect(server.url)
    await alice.register(ALICE)
    await bob.register(BOB)
    for payload in ("sdp", {"type": "tom-record-request", "id": "7"}):
        await alice.say({"type": "signal", "from": ALICE, "to": BOB, "payload": payload})
        await bob.hear("signal")
    await alice.say("null")
    await alice.say("{")
    await alice.hear("error")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
        async with http.get(http_url(server) + "/metrics") as response:
            assert (response.status, response.content_type) == (200, "text/plain")
            text = await response.text()
        async with http.post(http_url(server) + "/metrics") as response:
            assert response.status == 404
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name, value in {
        "nodes": 2,
        "clients": 2,
        "connections": 3,
        'messages_total{type="register"}': 2,
        'messages_total{type="signal"}': 2,
        'messages_total{type="ignored"}': 1,
        'messages_total{type="invalid"}': 1,
        'passed_on_total{payload="other"}': 1,
        'passed_on_total{payload="record"}': 1,
        'seen_connections_total{outcome="accepted"}': 3,
    }.items():
        assert float(told[f"tom_signaling_{name}"]) == value, name
    assert float(told["tom_signaling_start_time_seconds"]) > 1.7e9
    assert ALICE not in text


async def test_any_path_takes_websockets(server: SignalingServer, connect: Any) -> None:
    """Clients connect at any path, hear of each other, and pass signals on, as text or as binary messages."""
    alice, bob = await connect(server.url), await connect(server.url + "/any/path?and=query")
    await alice.register(ALICE)
    await bob.register(BOB, "Bob")
    joined = {"type": "presence", "action": "join", "nodeId": BOB, "username": "Bob", "publicKey": ""}
    assert await alice.hear() == joined
    assert len((await alice.hear())["participants"]) == 2
    message = {"type": "signal", "from": ALICE, "to": BOB, "payload": {"é": "\ud800"}}
    await alice.socket.send_bytes(json.dumps(message).encode())
    assert await bob.hear() == message
    await bob.socket.close()
    assert (await alice.hear())["action"] == "leave"


async def test_null_crashes_nothing(server: SignalingServer, connect: Any) -> None:
    """After `null`, which ended the old server, and bytes that are no JSON, the same connection works on."""
    alice = await connect(server.url)
    for message in ("null", "[]", "5"):
        await alice.say(message)
    await alice.socket.send_bytes(b"\xff\xfe")
    assert await alice.hear() == {"type": "error", "error": "invalid JSON"}
    assert len((await alice.register(ALICE))["participants"]) == 1


async def test_the_newer_registration_survives_the_older(server: SignalingServer, connect: Any) -> None:
    """A node that has reconnected stays reachable when its old connection ends."""
    old, new, bob = [await connect(server.url) for _ in range(3)]
    await old.register(ALICE)
    await new.register(ALICE)
    await bob.register(BOB)
    await old.socket.close()
    await bob.say({"type": "signal", "from": BOB, "to": ALICE, "payload": 1})
    assert (await new.hear("signal"))["payload"] == 1


async def test_too_large_a_message_ends_its_sender_alone(run: Any, connect: Any) -> None:
    """A message beyond the limit closes that connection; others hear that its node has left."""
    async with run(max_message=4096) as server:
        alice, bob = await connect(server.url), await connect(server.url)
        await alice.register(ALICE)
        await bob.register(BOB)
        await bob.socket.send_str('"' + "x" * 5000 + '"')
        await bob.ended()
        assert (await alice.hear("presence"))["action"] == "join"
        assert (await alice.hear("presence"))["action"] == "leave"


async def test_a_slow_reader_is_ended_and_others_are_served(run: Any, connect: Any, eventually: Any) -> None:
    """A client that reads nothing while others send to it is ended when its queue is full; the senders go on."""
    async with run(queue_bytes=100_000, max_message=65_536) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addrs[0].port, limit=1024)
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        writer.write(f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode())
        text = json.dumps({"type": "register", "nodeId": BOB, "username": "Bob"}).encode()
        writer.write(b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text)
        await eventually(lambda: len(server.hub) == 1)
        alice = await connect(server.url)
        await alice.register(ALICE)
        signal_to_bob = {"type": "signal", "from": ALICE, "to": BOB, "payload": "x" * 60_000}
        async with asyncio.timeout(WAIT):
            while not server.hub.ended["slow"]:
                await alice.say(signal_to_bob)
        assert (await alice.hear("presence"))["action"] == "leave"
        assert len((await alice.register(ALICE))["participants"]) == 1
        writer.transport.abort()
        del reader


async def test_a_flood_is_read_slowly(run: Any, connect: Any) -> None:
    """A client that sends far above its rate is slowed, and another is served meanwhile."""
    async with run(message_rate=100.0, message_burst=10) as server:
        flooder, bob = await connect(server.url), await connect(server.url)
        for _ in range(3000):
            await flooder.say({"type": "x"})
        await bob.register(BOB)
        # To read them all takes half a minute at this rate.
        assert 0 < server.hub.counts["ignored"] < 3000


async def test_a_flood_of_pings_is_read_slowly(run: Any, connect: Any) -> None:
    """Pings count as messages do: who floods with them is slowed, and another is served meanwhile."""
    async with run(message_rate=50.0, message_burst=10) as server:
        flooder, bob = await connect(server.url), await connect(server.url)
        await flooder.register(ALICE)
        for _ in range(2000):
            await flooder.socket.ping()
        await flooder.say({"type": "x"})
        await bob.register(BOB)
        # The message behind the pings is not read before them, for which the rate gives 40 s.
        assert server.hub.counts["ignored"] == 0


async def test_connections_have_bounds(run: Any, connect: Any, eventually: Any) -> None:
    """More connections from one source, or in all, than may be are refused by HTTP 503, until one has gone."""
    for options in ({"max_clients_per_source": 2}, {"max_clients": 2}, {"connect_rate": 0.001, "connect_burst": 2}):
        async with run(**options) as server:
            first = await connect(server.url)
            await connect(server.url)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(server.url)
            assert refused.value.status == 503
            assert server.gate.counts["refused"] == 1
            await first.socket.close()
            await eventually(lambda: len(server.gate.connections) == 1)
            if "connect_rate" not in options:
                await connect(server.url)


async def test_requests_that_do_not_come_are_ended(run: Any) -> None:
    """A connection without a request, or with half of one, is ended in time."""
    async with run(handshake_timeout=0.5) as server:
        for head in (b"", b"GET / HTTP/1.1\r\nHost"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.addrs[0].port)
            writer.write(head)
            async with asyncio.timeout(WAIT):
                try:
                    assert await reader.read() == b""
                except ConnectionError:
                    pass
            writer.transport.abort()


async def test_garbage_instead_of_frames_ends_the_connection(server: SignalingServer, eventually: Any) -> None:
    """What is no WebSocket frame, or a handshake without a key, costs its sender the connection and nobody else."""
    for head, rest in (
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n", b"\xff" * 100),
        ("", b""),
        ("Sec-WebSocket-Version: 99\r\n", b""),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addrs[0].port)
        request = f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{head}\r\n"
        writer.write(request.encode() + rest)
        writer.write_eof()
        async with asyncio.timeout(WAIT):
            try:
                await reader.read()
            except ConnectionError:
                pass
        writer.transport.abort()
    await eventually(lambda: not server.gate.connections)
    assert server.hub.clients == 0


async def test_a_taken_port_is_told(server: SignalingServer, run: Any) -> None:
    """A server that can't start says why and leaves nothing behind."""
    with pytest.raises(SignalingServerError, match="can't listen on"):
        await run(listen=(str(server.addrs[0]),)).start()


def test_port_is_kept_beside_our_options() -> None:
    """The old server's variable PORT names the port unless file, environment or option say where to listen."""
    base = SignalingServerConfig()

    def listening(port: str | None, *, dev: bool = False, is_default: bool = True, **given: Any) -> tuple[str, ...]:
        return configured(base, given, dev=dev, is_default=is_default, port=port).listen

    assert listening(None) == ("0.0.0.0:3001", "[::]:3001")
    assert listening("8080") == ("0.0.0.0:8080", "[::]:8080")
    assert listening("8080", dev=True) == ("127.0.0.1:3001",)
    assert listening("8080", is_default=False) == base.listen
    assert listening("8080", signaling_server_listen=("127.0.0.1:1",)) == ("127.0.0.1:1",)
    for wrong in ("x", "-1", "70000", "80 ", "٣"):
        with pytest.raises(ConfigError, match="environment PORT"):
            listening(wrong)


@pytest.mark.parametrize(
    "options",
    [{"listen": ()}, {"listen": ("nowhere",)}, {"max_clients": 0}, {"connect_rate": -1}, {"max_message": 1.5},
     {"write_timeout": True}],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_told(options: dict[str, Any]) -> None:
    """An option of a wrong shape is a ConfigError with its name."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        SignalingServerConfig(**options)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="interrupts a process as POSIX does")
def test_the_command_serves_until_interrupted() -> None:
    """`tom-connect signaling serve` listens where PORT says, answers, and leaves cleanly on Ctrl-C."""
    command = [sys.executable, "-m", "tom_connect", "signaling", "serve", "--json"]
    environ = {**os.environ, "PORT": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert told["event"] == "serving" and told["url"].startswith("ws://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) in {0, 130}
        finally:
            process.kill()
