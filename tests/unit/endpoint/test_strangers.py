"""What an endpoint does with first packets from strangers: hostile, malformed, too many."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import Endpoint, NodeAddr, SecretKey
from tom_connect.quic import accept
from tom_connect.quic.engine import Engine
from tom_connect.quic.settings import TransportSettings


def first_flight(server: Endpoint) -> bytes:
    """The first datagram of a client that will never go on."""
    engine = Engine.client(
        secret_key=SecretKey.generate(), peer=server.node_id, alpns=(ALPN,), settings=TransportSettings()
    )
    engine.start(0.0)
    return engine.send(0.0)[0]


@contextlib.contextmanager
def stranger() -> Iterator[socket.socket]:
    """A plain UDP socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def answers(sock: socket.socket, seconds: float) -> list[bytes]:
    """Everything that comes within so many seconds."""
    got: list[bytes] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                got.append(await asyncio.get_running_loop().sock_recv(sock, 65535))
    return got


async def still_works(server: Endpoint) -> None:
    """A fresh client connects."""
    async with Endpoint.bind(local_config()) as client:
        accepting = asyncio.create_task(accept_one(server))
        connection = await client.connect(server.node_addr(), ALPN, timeout=5)
        assert connection.remote_node_id == server.node_id
        await accepting


async def test_garbage_does_no_harm() -> None:
    """Random, truncated and altered datagrams raise nothing, start nothing that lasts, and a client still connects."""
    rng = random.Random(7)
    async with Endpoint.bind(local_config()) as server:
        flight = first_flight(server)
        with stranger() as sock:
            for size in (0, 1, 2, 5, 20, 300, 1200, 1400):
                sock.sendto(rng.randbytes(size), server.local_addrs[0])
            for cut in range(1, 1200, 97):
                sock.sendto(flight[:cut], server.local_addrs[0])
            for _ in range(50):
                altered = bytearray(flight)
                altered[rng.randrange(40)] ^= 1 << rng.randrange(8)
                sock.sendto(altered, server.local_addrs[0])
                await asyncio.sleep(0)
            await answers(sock, 0.2)
        await still_works(server)


async def test_unknown_version_is_answered_by_less_than_it_asked() -> None:
    """A large packet of an unknown version gets a small Version Negotiation; a small one gets nothing."""
    async with Endpoint.bind(local_config()) as server:
        packet = bytearray(first_flight(server))
        packet[1:5] = b"\x0a\x1a\x2a\x3a"
        with stranger() as sock:
            sock.sendto(packet, server.local_addrs[0])
            sock.sendto(packet[:1000], server.local_addrs[0])
            got = await answers(sock, 0.3)
    assert len(got) == 1
    assert len(got[0]) < len(packet)
    assert got[0][1:5] == bytes(4)


async def test_half_open_handshakes_are_bounded_and_a_client_gets_in_by_retry() -> None:
    """With strangers holding handshakes open, their number is bounded, newcomers prove their address and get in."""
    async with Endpoint.bind(local_config(max_incoming=8)) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                sock = stack.enter_context(stranger())
                sock.sendto(first_flight(server), server.local_addrs[0])
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.05)
            assert 1 <= len(server._driver.links) <= 8
            assert server._driver.counters["asked to prove its address"] >= 20
            await still_works(server)


async def test_half_open_handshake_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that goes nowhere is forgotten after its time."""
    monkeypatch.setattr(accept, "HANDSHAKE_TIMEOUT", 0.2)
    async with Endpoint.bind(local_config()) as server:
        with stranger() as sock:
            sock.sendto(first_flight(server), server.local_addrs[0])
            await asyncio.sleep(0.05)
            assert len(server._driver.links) == 1
            deadline = time.monotonic() + 3
            while server._driver.links and time.monotonic() < deadline:
                await answers(sock, 0.05)
            assert not server._driver.links


async def test_answers_to_a_stranger_are_at_most_three_times_what_it_sent() -> None:
    """Before an address is validated the server sends at most three bytes for each received (RFC 9000 section 8.1)."""
    async with Endpoint.bind(local_config()) as server:
        flight = first_flight(server)
        with stranger() as sock:
            sock.sendto(flight, server.local_addrs[0])
            got = await answers(sock, 2.0)
    assert 0 < sum(map(len, got)) <= 3 * len(flight)


async def test_closing_keeps_to_three_times_too() -> None:
    """The server's goodbye to a stranger whose address is not proven counts towards the same limit."""
    async with Endpoint.bind(local_config()) as server:
        flight = first_flight(server)
        with stranger() as sock:
            sock.sendto(flight, server.local_addrs[0])
            got = await answers(sock, 0.5)
            (link,) = server._driver.links
            link.refuse("x" * 250)
            for _ in range(8):
                link.driver.flush(link)
            got += await answers(sock, 0.3)
    assert 0 < sum(map(len, got)) <= 3 * len(flight)


async def test_without_an_alpn_nobody_gets_an_answer() -> None:
    """An endpoint that accepts no protocol answers no first packet."""
    async with Endpoint.bind(local_config(alpns=())) as server:
        with stranger() as sock:
            sock.sendto(first_flight(server), server.local_addrs[0])
            assert await answers(sock, 0.2) == []
        assert not server._driver.links


async def test_dial_of_several_addresses_leaves_one_handshake() -> None:
    """A client that knows several addresses of a server sends to all of them, and the server keeps one connection."""
    config = local_config(bind=("0.0.0.0:0",))
    async with Endpoint.bind(config) as server, Endpoint.bind(local_config()) as client:
        port = server.local_addrs[0].port
        addrs = [f"127.0.0.{n}:{port}" for n in range(1, 5)]
        for _ in range(5):
            accepting = asyncio.create_task(accept_one(server))
            await client.connect(NodeAddr(server.node_id, (), addrs), ALPN)
            await accepting
        assert len(server._driver.links) == 5
        assert not server._driver._acceptor._half_open
