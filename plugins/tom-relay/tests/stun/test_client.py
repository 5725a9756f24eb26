"""The STUN client over a shared socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.netreport.stun import BindingRequest, StunFailedError, binding_error, binding_success
from tom_relay.stun import StunClient, StunServer

V4 = SocketAddr("127.0.0.1", 0)


class SystemClock:
    """The system's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class Shared(asyncio.DatagramProtocol):
    """A socket that is shared as the endpoint shares its own."""

    client: StunClient

    def __init__(self) -> None:
        self.drop = 0
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.client.claims(data[:8]):
            self.client.datagrams_received([(data, SocketAddr(*addr[:2]))])

    @property
    def local_addrs(self) -> Sequence[SocketAddr]:
        return (SocketAddr(*self.transport.get_extra_info("sockname")[:2]),)

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        self.sent.put_nowait(data)
        if self.drop:
            self.drop -= 1
        else:
            self.transport.sendto(data, addr)  # type: ignore[attr-defined]
        return True


@contextlib.asynccontextmanager
async def sharing() -> AsyncIterator[Shared]:
    """A client on a socket of its own."""
    transport, shared = await asyncio.get_running_loop().create_datagram_endpoint(Shared, local_addr=("127.0.0.1", 0))
    shared.client = StunClient(shared, SystemClock())
    try:
        yield shared
    finally:
        await shared.client.aclose()
        transport.close()


async def test_the_client_learns_the_shared_sockets_address() -> None:
    """What the server tells is the address of the socket that QUIC uses."""
    async with StunServer(bind=[V4]) as server, sharing() as shared:
        found = await shared.client.ask(server.addrs[0])
        assert found.addr == shared.local_addrs[0]
        assert found.server == server.addrs[0]
    assert found.rtt is not None and 0 <= found.rtt < 10


async def test_a_lost_request_is_repeated() -> None:
    """A request that gets lost goes out again half a second later, and the answer counts."""
    async with StunServer(bind=[V4]) as server, sharing() as shared:
        shared.drop = 1
        found = await shared.client.ask(server.addrs[0])
        assert found.addr == shared.local_addrs[0] and found.rtt is None
    assert shared.sent.qsize() >= 2 and shared.sent.get_nowait() == shared.sent.get_nowait()


async def test_silence_is_an_error_in_time() -> None:
    """A server that is silent costs no more than the time given, and leaves nothing behind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with sharing() as shared:
            with pytest.raises(StunFailedError, match="did not answer"):
                await shared.client.ask(SocketAddr(*silent.getsockname()), timeout=0.1)
            assert not shared.client._asked


async def test_closing_ends_who_waits() -> None:
    """Closing the client ends a request that is under way, and refuses further ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        addr = SocketAddr(*silent.getsockname())
        async with sharing() as shared:
            asking = asyncio.create_task(shared.client.ask(addr))
            await shared.sent.get()
            await shared.client.aclose()
            with pytest.raises(StunFailedError, match="closed"):
                await asking
            with pytest.raises(StunFailedError, match="closed"):
                await shared.client.ask(addr)


async def test_strangers_answers_are_counted_and_dropped() -> None:
    """Answers to nothing, from elsewhere, and broken ones don't end a request; an error of the server does."""
    server = SocketAddr("192.0.2.9", 3478)
    async with sharing() as shared:
        shared.drop = 10
        client = shared.client
        asking = asyncio.create_task(client.ask(server))
        wanted = BindingRequest.decode(await shared.sent.get()).transaction_id
        client.datagrams_received(
            [
                (binding_success(bytes(12), V4), server),
                (binding_success(wanted, V4), SocketAddr("192.0.2.8", 3478)),
                (binding_success(wanted, V4)[:-1], server),
                (b"", server),
            ]
        )
        assert client.counters["unexpected"] == 4
        client.datagrams_received([(binding_error(wanted, 500), server)])
        with pytest.raises(StunFailedError, match="500"):
            await asking


async def test_requests_at_once_are_bounded() -> None:
    """More than 64 requests at once are refused instead of kept."""
    async with sharing() as shared:
        shared.drop = 1000
        server = SocketAddr("192.0.2.9", 3478)
        asking = [asyncio.create_task(shared.client.ask(server)) for _ in range(64)]
        for _ in asking:
            await shared.sent.get()
        with pytest.raises(StunFailedError, match="too many"):
            await shared.client.ask(server)
        await shared.client.aclose()
        assert all(isinstance(e, StunFailedError) for e in await asyncio.gather(*asking, return_exceptions=True))
