"""Every misuse against a real server: it is answered with the reason where that can be, counted, and hurts nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import attrs
import pytest

from tom_connect.keys import SecretKey
from tom_relay.errors import RelayDeniedError
from tom_relay.server import RelayServer
from tom_relay.wire import (
    ClientAuth,
    ClientHandshake,
    Dialect,
    EndpointGone,
    Ping,
    Pong,
    ReceivedDatagrams,
    SendDatagrams,
    ServerChallenge,
    ServerDeniesAuth,
    Status,
    decode_from_server,
    encode,
)

V2 = Dialect.IROH_V2
KEY = SecretKey(bytes(31) + b"\x07")


def metric(relay: RelayServer, line: str) -> float:
    """The value of one line of the metrics."""
    found = [text for text in relay.metrics.text().decode().splitlines() if text.startswith(f"tom_relay_{line} ")]
    return float(found[0].split()[-1]) if found else 0.0


# Before the handshake


async def test_a_wrong_subprotocol_is_refused(relay: RelayServer, clients: Any, relays_still: Any) -> None:
    """A WebSocket without a dialect of ours gets 400 and hears which there are."""
    for protocols in ((), ("chat", "iroh-relay-v99")):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await clients.session.ws_connect(relay.url + "/relay", protocols=protocols)
        assert caught.value.status == 400
    async with clients.session.get(relay.url + "/relay") as response:
        assert response.status == 426
        assert "WebSocket" in await response.text()
    assert metric(relay, 'bad_requests_total{reason="subprotocol"}') == 2
    assert metric(relay, 'bad_requests_total{reason="no_upgrade"}') == 1
    await relays_still(relay, clients)


async def test_another_protocol_than_http_is_refused(
    relay: RelayServer, clients: Any, raw: Any, relays_still: Any
) -> None:
    """Bytes that are no HTTP get 400 and the end, and no traceback."""
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"SSH-2.0-x\r\n\r\n",
        b"\0" * 100 + b"\r\n\r\n",
    ):
        reader, writer = await raw(relay)
        writer.write(noise)
        if noise[0] == 0x16:
            writer.write(b"\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.") and b" 400 " in answer.splitlines()[0]
    await relays_still(relay, clients)


async def answered(relay: RelayServer, clients: Any, answer: Callable[[bytes], bytes]) -> tuple[str, int | None]:
    """Answer the challenge with `answer(challenge)`: the reason and the close code that come."""
    websocket = await clients.upgrade(relay.url)
    challenge = decode_from_server(await websocket.receive_bytes(), V2)
    assert isinstance(challenge, ServerChallenge)
    await websocket.send_bytes(answer(challenge.challenge))
    denial = decode_from_server(await websocket.receive_bytes(), V2)
    assert isinstance(denial, ServerDeniesAuth)
    await websocket.receive()
    return denial.reason, websocket.close_code


def signed(challenge: bytes, key: SecretKey = KEY) -> bytes:
    """The right answer."""
    handshake = ClientHandshake(V2, key.node_id, key.sign)
    return handshake.receive(encode(ServerChallenge(challenge), V2)) or b""


OFF_CURVE = b"\x02" + bytes(31)


@pytest.mark.parametrize(
    ("kind", "words", "answer"),
    [
        ("signature", "signature", lambda _: encode(ClientAuth(KEY.node_id.raw, bytes(64)), V2)),
        ("signature", "signature", lambda challenge: signed(challenge)[:-1] + bytes((signed(challenge)[-1] ^ 1,))),
        ("signature", "signature", lambda _: signed(bytes(16))),
        ("key", "not on the curve", lambda _: encode(ClientAuth(OFF_CURVE, bytes(64)), V2)),
        ("key", "low order", lambda _: encode(ClientAuth(bytes(32), bytes(64)), V2)),
        ("handshake", "expected ClientAuth, got Ping", lambda _: encode(Ping(bytes(8)), V2)),
        ("handshake", "got SendDatagrams", lambda _: encode(SendDatagrams(bytes(32), b""), V2)),
        ("truncated", "ends within", lambda challenge: signed(challenge)[:50]),
        ("truncated", "ends before", lambda _: b""),
        ("unknown", "unknown", lambda _: b"\x3f"),
        ("direction", "never comes from a client", lambda _: b"\x02"),
    ],
)
async def test_wrong_answers_to_the_challenge_hear_why(
    relay: RelayServer,
    clients: Any,
    relays_still: Any,
    kind: str,
    words: str,
    answer: Callable[[bytes], bytes],
) -> None:
    """ServerDeniesAuth says what was wrong, then the WebSocket is closed with 1008."""
    reason, code = await answered(relay, clients, answer)
    assert words in reason
    assert code == 1008
    assert metric(relay, f'denied_total{{reason="{kind}"}}') == 1
    await relays_still(relay, clients)


async def test_a_replayed_answer_is_refused(relay: RelayServer, clients: Any, relays_still: Any) -> None:
    """An answer that was right on one connection is worth nothing on another."""
    seen = []

    class Recording(ClientHandshake):
        def receive(self, message: bytes) -> bytes | None:
            answer = super().receive(message)
            if answer is not None:
                seen.append(answer)
            return answer

    websocket = await clients.upgrade(relay.url)
    handshake = Recording(V2, KEY.node_id, KEY.sign)
    while not handshake.done:
        if answer := handshake.receive(await websocket.receive_bytes()):
            await websocket.send_bytes(answer)
    reason, _ = await answered(relay, clients, lambda _challenge: seen[0])
    assert "signature" in reason
    assert relay.hub.is_connected(KEY.node_id)
    await relays_still(relay, clients)


async def test_a_text_message_in_the_handshake_is_refused(relay: RelayServer, clients: Any) -> None:
    """A text message in place of the answer is refused in words."""
    websocket = await clients.upgrade(relay.url)
    await websocket.receive_bytes()
    await websocket.send_str("hello")
    assert "text" in str(decode_from_server(await websocket.receive_bytes(), V2))
    assert metric(relay, 'denied_total{reason="text"}') == 1


# After the handshake


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("unknown", 1002, b"\x3f"),
        ("unknown", 1002, b"\x80\0\x12\x34 and more"),
        ("truncated", 1002, b""),
        ("truncated", 1002, b"\x04" + bytes(20)),
        ("truncated", 1002, b"\x05" + bytes(33)),
        ("truncated", 1002, b"\x09abc"),
        ("malformed", 1002, b"\x09" + bytes(9)),
        ("direction", 1002, b"\x06" + bytes(40)),
        ("direction", 1002, b"\x0d\x01"),
        ("direction", 1002, b"\x01" + KEY.node_id.raw + b"\x40" + bytes(64)),
        ("too-large", 1009, b"\x04" + bytes(65_537)),
        ("websocket", 1009, b"\x04" + bytes((1 << 20) + 1)),
    ],
)
async def test_breaches_end_the_session_with_a_reason(
    relay: RelayServer, clients: Any, relays_still: Any, kind: str, code: int, message: bytes
) -> None:
    """Frames that are unknown, cut, in the wrong direction or too large close the WebSocket, which says why."""
    client = await clients.open(relay.url)
    await client.websocket.send_bytes(message)
    got, reason = await client.closed()
    assert got == code
    if kind != "websocket":
        assert reason
    assert metric(relay, f'violations_total{{kind="{kind}"}}') == 1
    await relays_still(relay, clients)


async def test_text_frames_end_the_session(relay: RelayServer, clients: Any, relays_still: Any) -> None:
    """A text message is closed with 1003."""
    client = await clients.open(relay.url)
    await client.websocket.send_str("hello")
    assert (await client.closed())[0] == 1003
    assert metric(relay, 'violations_total{kind="text"}') == 1
    await relays_still(relay, clients)


async def test_the_same_key_twice(relay: RelayServer, clients: Any) -> None:
    """The newer connection takes over; the older is told Status 1, stays open, and takes over again at the end."""
    old = await clients.open(relay.url, KEY)
    new = await clients.open(relay.url, KEY)
    assert await old.read() == Status(1)
    other = await clients.open(relay.url)
    await other.send(KEY.node_id, b"one")
    assert await new.read() == ReceivedDatagrams(other.node_id.raw, b"one")
    await new.websocket.close()
    assert await old.read() == Status(0)
    await other.send(KEY.node_id, b"two")
    assert await old.read() == ReceivedDatagrams(other.node_id.raw, b"two")
    assert metric(relay, "replaced_total") == 1


async def test_the_same_key_three_times(relay: RelayServer, clients: Any, eventually: Any) -> None:
    """A third connection of a key ends the first."""
    first = await clients.open(relay.url, KEY)
    second = await clients.open(relay.url, KEY)
    await clients.open(relay.url, KEY)
    await first.closed()
    assert await second.read() == Status(1)
    await eventually(lambda: len(relay.hub) == 2)


# Slowness


async def test_a_client_that_says_nothing_is_ended(run: Any, clients: Any, raw: Any, relays_still: Any) -> None:
    """Who connects and sends nothing, or answers no challenge, is ended after the handshake time-out."""
    async with run(handshake_timeout=0.4) as relay:
        reader, _writer = await raw(relay)
        websocket = await clients.upgrade(relay.url)
        await websocket.receive_bytes()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
            await websocket.receive()
        assert websocket.closed
        assert metric(relay, "handshake_timeouts_total") >= 1
        assert metric(relay, "pending_connections") == 0
        await relays_still(relay, clients)


async def test_a_client_that_sends_a_byte_a_moment_is_ended(
    run: Any, clients: Any, raw: Any, relays_still: Any
) -> None:
    """A request that trickles in does not hold a connection beyond the handshake time-out."""
    async with run(handshake_timeout=0.5) as relay:
        began = time.monotonic()
        reader, writer = await raw(relay)
        ended = asyncio.ensure_future(reader.read())
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /relay HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"y" * 1000:
                writer.write(bytes((byte,)))
                await asyncio.wait({ended}, timeout=0.05)
                if ended.done():
                    break
        assert 0.5 < time.monotonic() - began < 10
        with contextlib.suppress(ConnectionError):
            await ended
        await relays_still(relay, clients)


async def test_a_frame_that_trickles_in_keeps_nobody_alive(run: Any, clients: Any) -> None:
    """A byte now and then of one long frame answers no ping: the session is ended as silent."""
    async with run(ping_interval=1.0, ping_timeout=0.5) as relay:
        client = await clients.open(relay.url)
        transport = client.websocket._response.connection.transport
        transport.write(b"\x82\xff" + struct.pack(">Q", 60_000) + bytes(4))
        async with asyncio.timeout(20):
            while len(relay.hub):
                transport.write(b"\x04")
                await asyncio.sleep(0.05)
        assert metric(relay, "silent_total") == 1


async def flood(relay: RelayServer, clients: Any, sender: Any, target: SecretKey, until: Callable[[], bool]) -> None:
    """Send full frames to a node until a condition holds."""
    frame = encode(SendDatagrams(target.node_id.raw, bytes(60_000), 0, 1200), V2)
    async with asyncio.timeout(20):
        while not until():
            await sender.websocket.send_bytes(frame)


async def test_a_client_that_never_reads_loses_packets_then_its_session(
    run: Any, clients: Any, relays_still: Any, eventually: Any
) -> None:
    """What it does not take is dropped beyond its queue; after the write time-out it is ended; its sender goes on."""
    async with run(write_timeout=0.6) as relay:
        sender = await clients.open(relay.url)
        sleeper = await clients.open(relay.url, KEY)
        transport = sleeper.websocket._response.connection.transport
        transport.pause_reading()
        await flood(relay, clients, sender, KEY, lambda: relay.gate.counters.write_timeouts == 1)
        assert metric(relay, 'dropped_packets_total{reason="queue_full"}') > 0
        await eventually(lambda: not relay.hub.is_connected(KEY.node_id))
        await eventually(lambda: relay.hub.queued_bytes == 0)
        await relays_still(relay, clients)
        await sender.send(KEY.node_id, b"anyone there?")
        assert await sender.read() == EndpointGone(KEY.node_id.raw)


async def read_steadily(client: Any, rate: int, seconds: float) -> int:
    """Read so many bytes a second from a client's connection, and then no more; returns those that came."""
    loop = asyncio.get_running_loop()
    transport = client.websocket._response.connection.transport
    transport.pause_reading()
    got, began = 0, loop.time()
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        while loop.time() - began < seconds and (data := await loop.sock_recv(sock, 16_384)):
            got += len(data)
            await asyncio.sleep(max(0.0, began + got / rate - loop.time()))
    return got


async def test_a_slow_reader_stays_until_it_reads_nothing(run: Any, clients: Any, relays_still: Any) -> None:
    """Who reads steadily, but far less than others send, loses packets and not its session; a stop ends that in 2 s."""
    async with run() as relay:
        limit = relay.config.write_timeout
        assert limit == 2.0
        sender, slow = await clients.open(relay.url), await clients.open(relay.url, KEY)
        timeouts = relay.gate.counters
        reading = asyncio.create_task(read_steadily(slow, 300_000, 3 * limit))
        await flood(relay, clients, sender, KEY, lambda: reading.done() or timeouts.write_timeouts > 0)
        assert timeouts.write_timeouts == 0
        assert await reading > limit * 300_000
        assert relay.hub.counters.dropped["queue_full"] > 0
        stopped = time.monotonic()
        await flood(relay, clients, sender, KEY, lambda: timeouts.write_timeouts == 1)
        assert time.monotonic() - stopped < 5 * limit
        await relays_still(relay, clients)


async def test_memory_is_bounded_while_many_do_not_read(run: Any, clients: Any) -> None:
    """However many never read, what waits for all stays under its limit."""
    async with run(write_timeout=300.0, total_queue_bytes=2 << 20, queue_bytes=1 << 20) as relay:
        sender = await clients.open(relay.url)
        keys = [SecretKey.generate() for _ in range(4)]
        sleepers = [await clients.open(relay.url, key) for key in keys]
        for sleeper in sleepers:
            sleeper.websocket._response.connection.transport.pause_reading()
        most = 0

        def full() -> bool:
            nonlocal most
            most = max(most, relay.hub.queued_bytes)
            return relay.hub.counters.dropped["queue_full"] + relay.hub.counters.dropped["memory"] > 500

        for key in keys:
            before = dict(relay.hub.counters.dropped)
            await flood(relay, clients, sender, key, lambda b=before: relay.hub.counters.dropped != b or full())
        await flood(relay, clients, sender, keys[0], full)
        assert 0 < most <= 2 << 20


async def test_clients_that_go_in_the_midst_of_their_handshake_are_no_error(
    relay: RelayServer, clients: Any, raw: Any, relays_still: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks for a session and is gone before it is answered leaves nothing, not even a line in the log."""
    head = (
        "GET /relay HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {V2.value}\r\n\r\n"
    )
    for _ in range(100):
        _reader, writer = await raw(relay)
        writer.write(head.encode())
        writer.transport.abort()
    await relays_still(relay, clients)
    assert [record.getMessage() for record in caplog.records] == []


# Numbers


async def test_many_connections_shut_nobody_out(
    run: Any, clients: Any, raw: Any, relays_still: Any, eventually: Any
) -> None:
    """Of connections that prove nothing each host has a bounded number; more hear 503, and who is in feels nothing."""
    async with run(max_pending_per_host=50, handshake_timeout=60.0) as relay:
        a, b = await clients.open(relay.url), await clients.open(relay.url)
        refused = 0
        opened = [await raw(relay) for _ in range(400)]
        await eventually(lambda: relay.gate.counters.refused["pending_host"] == 350)
        assert len(relay.gate.pending) == 50
        for reader, _writer in opened[50:]:
            answer = await reader.read()
            refused += answer.startswith(b"HTTP/1.1 503 ")
        assert refused == 350
        await a.send(b.node_id, b"undisturbed")
        assert await b.read() == ReceivedDatagrams(a.node_id.raw, b"undisturbed")
        # The time-out makes room again.
        relay.gate.config = attrs.evolve(relay.config, handshake_timeout=0.1)
        await eventually(lambda: not relay.gate.pending)
        relay.gate.config = relay.config
        await relays_still(relay, clients)


@pytest.mark.slow
async def test_ten_thousand_connections(run: Any, clients: Any, relays_still: Any) -> None:
    """10,000 connections one after the other, a thousand open at a time, leave nothing behind."""
    async with run(max_pending_per_host=300, handshake_timeout=30.0) as relay:
        host, port = relay.addrs[0].host, relay.addrs[0].port
        a, b = await clients.open(relay.url), await clients.open(relay.url)
        for number in range(10):
            opened = [await asyncio.open_connection(host, port) for _ in range(1000)]
            await a.send(b.node_id, bytes((number,)))
            assert await b.read() == ReceivedDatagrams(a.node_id.raw, bytes((number,)))
            assert len(relay.gate.pending) <= 300
            for _reader, writer in opened:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _reader, writer in opened), return_exceptions=True)
        await relays_still(relay, clients)
        assert metric(relay, 'connections_refused_total{reason="pending_host"}') > 5000


async def test_a_full_relay_says_so(run: Any, clients: Any) -> None:
    """Beyond its clients a relay refuses in words; a node that is in already may reconnect."""
    async with run(max_clients=2) as relay:
        await clients.open(relay.url, KEY)
        await clients.open(relay.url)
        with pytest.raises(RelayDeniedError, match="full"):
            await clients.open(relay.url)
        await clients.open(relay.url, KEY)
        assert metric(relay, 'denied_total{reason="full"}') == 1


async def test_a_client_over_its_rate_is_slowed_and_told_once(run: Any, clients: Any) -> None:
    """It is held to its rate, told Status 2 once, and loses nothing."""
    async with run(client_rate=2 << 20, client_burst=1 << 20) as relay:
        fast, target = await clients.open(relay.url), await clients.open(relay.url)
        began = time.monotonic()

        async def pump() -> None:
            for _ in range(40):
                await fast.send(target.node_id, bytes(60_000), segment_size=1200)

        pumping = asyncio.ensure_future(pump())
        for _ in range(40):
            assert isinstance(await target.read(), ReceivedDatagrams)
        await pumping
        took = time.monotonic() - began
        assert took > (40 * 60_000 - (1 << 20) - 120_000) / (2 << 20)
        assert await fast.read() == Status(2)
        await fast.websocket.send_bytes(encode(Ping(b"only one"), V2))
        assert await fast.read() == Pong(b"only one")


async def test_a_client_over_its_rate_slows_no_other(run: Any, clients: Any) -> None:
    """While one client waits for half a minute to be read again, all that another sends arrives."""
    async with run(client_rate=1000, client_burst=1 << 20) as relay:
        fast, other, target = [await clients.open(relay.url) for _ in range(3)]
        for _ in range((1 << 20) // 60_000 + 1):
            await fast.send(target.node_id, bytes(60_000), segment_size=1200)
            await target.read()
        await fast.send(target.node_id, b"late")
        sent = [bytes((number,)) for number in range(20)]
        for data in sent:
            await other.send(target.node_id, data)
        assert [await target.read() for _ in sent] == [ReceivedDatagrams(other.node_id.raw, data) for data in sent]
