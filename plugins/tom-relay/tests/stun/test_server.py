"""The STUN server on loopback sockets, and what it answers to whom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.netreport.stun import (
    ERROR,
    REQUEST,
    BindingResponse,
    StunError,
    StunMessage,
    binding_request,
    binding_success,
)
from tom_relay.errors import RelayServerError
from tom_relay.stun import StunLimits, StunServer
from tom_relay.stun.server import answer

ID = bytes(range(12))
V4 = SocketAddr("127.0.0.1", 0)
V6 = SocketAddr("::1", 0)
many_loopbacks = pytest.mark.skipif(sys.platform == "darwin", reason="needs 127.0.0.2 and others on lo")


class Asker:
    """A UDP socket that sends datagrams and takes answers."""

    def __init__(self, server: SocketAddr, source: str = "127.0.0.1") -> None:
        self.sock = socket.socket(server.family, socket.SOCK_DGRAM)
        if server.family is socket.AF_INET:
            self.sock.bind((source, 0))
        self.sock.setblocking(False)
        self.sock.connect((server.host, server.port))
        self.addr = SocketAddr(*self.sock.getsockname()[:2])

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.send(data)

    async def receive(self) -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(self.sock, 4096)


@pytest.mark.parametrize("bind", [V4, V6], ids=["IPv4", "IPv6"])
async def test_tells_the_address_of_each_family(bind: SocketAddr) -> None:
    """A client of either family learns the address of its own socket."""
    async with StunServer(bind=[bind]) as server:
        with Asker(server.addrs[0]) as asker:
            asker.send(binding_request(ID))
            response = BindingResponse.decode(await asker.receive())
    assert response == BindingResponse(ID, addr=asker.addr)
    assert server.counters == {"answered": 1}


async def test_what_deserves_no_answer_gets_none() -> None:
    """Noise, other methods, answers and every prefix of a request are dropped, counted, and harm nobody else."""
    request = binding_request(ID, software="a client")
    wrong = bytearray(request)
    wrong[-1] ^= 1
    junk = [request[:size] for size in range(1, len(request))]
    junk += [bytes(wrong), os.urandom(1400), binding_success(ID, V4), StunMessage(0x0011, ID).encode()]
    async with StunServer(bind=[V4]) as server:
        with Asker(server.addrs[0]) as asker:
            for data in junk:
                asker.send(data)
            asker.send(request)
            assert BindingResponse.decode(await asker.receive()).addr == asker.addr
            with pytest.raises(BlockingIOError):
                asker.sock.recv(1)
    assert server.counters.pop("answered") == 1
    assert server.counters["fingerprint"] == 1
    assert server.counters["not binding"] == 2
    assert sum(server.counters.values()) == len(junk)


@pytest.mark.parametrize("bind", [V4, V6], ids=["IPv4", "IPv6"])
async def test_an_answer_comes_from_the_other_port_where_that_is_asked_for(bind: SocketAddr) -> None:
    """CHANGE-REQUEST for another port (RFC 5780) is answered by the second one; asked of that, by the first."""
    loop = asyncio.get_running_loop()
    async with StunServer(bind=[bind]) as server:
        ports = server.addrs[0], server.other_addrs[0]
        assert ports[0] != ports[1]
        for asked, answers in (ports, ports[::-1]):
            with socket.socket(bind.family, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(binding_request(ID, change_port=True), tuple(asked))
                async with asyncio.timeout(10):
                    data, source = await loop.sock_recvfrom(sock, 2048)
                assert SocketAddr(*source[:2]) == answers
                told = BindingResponse.decode(data).addr
                assert told is not None and told.port == sock.getsockname()[1]
    assert server.counters == {"answered": 2}


async def test_unknown_attributes_are_named() -> None:
    """CHANGE-REQUEST with other flags than are served gets error 420 that names it (section 6.3.1)."""
    async with StunServer(bind=[V4]) as server:
        with Asker(server.addrs[0]) as asker:
            asker.send(StunMessage(REQUEST, ID, ((0x0003, bytes(4)),)).encode())
            data = await asker.receive()
    assert BindingResponse.decode(data).code == 420
    assert StunMessage.decode(data).type == ERROR
    assert StunMessage.decode(data).first(0x000A) == b"\x00\x03"
    assert server.counters == {"unknown attribute": 1}


@pytest.mark.parametrize("source", [SocketAddr("192.0.2.1", 7), SocketAddr("2001:db8::1", 7)])
def test_answers_are_as_small_as_the_rfc_allows(source: SocketAddr) -> None:
    """An answer is at most 24 bytes larger than the request; what is optional never makes it larger."""
    for size in range(0, 600, 4):
        request = StunMessage(REQUEST, ID, ((0x8022, bytes(size)),) if size else ()).encode()
        reply = answer(request, source, software="tom-relay 0.1")
        bare = len(answer(request, source))
        assert bare == (32 if source.family is socket.AF_INET else 44)
        assert len(reply) in (bare, bare + 20)
        assert len(reply) == bare or len(reply) <= len(request)


def test_no_error_is_larger_than_a_success() -> None:
    """An error answer grows its request less than a success does, however many attributes are unknown."""
    for count in range(1, 100):
        request = StunMessage(REQUEST, ID, tuple((kind, b"") for kind in range(0x100, 0x100 + count))).encode()
        reply = answer(request, SocketAddr("192.0.2.1", 7))
        assert len(reply) / len(request) <= 1.6


def test_answers_carry_a_fingerprint_where_requests_do() -> None:
    """FINGERPRINT is answered with FINGERPRINT, and its absence with its absence."""
    for fingerprint in (True, False):
        reply = answer(binding_request(ID, fingerprint=fingerprint), SocketAddr("192.0.2.1", 7))
        assert StunMessage.decode(reply).fingerprint is fingerprint


def test_no_server_answers_an_answer() -> None:
    """Two servers can't be set at each other: an answer deserves none."""
    reply = answer(binding_request(ID), SocketAddr("192.0.2.1", 7))
    with pytest.raises(StunError):
        answer(reply, SocketAddr("192.0.2.1", 7))


@many_loopbacks
async def test_one_source_is_held_to_its_rate() -> None:
    """A source that asks more often than its burst allows is dropped and counted; another one is still served."""
    limits = StunLimits(rate_per_source=0.001, burst_per_source=3)
    async with StunServer(bind=[V4], limits=limits) as server:
        with Asker(server.addrs[0]) as greedy, Asker(server.addrs[0], "127.0.0.2") as other:
            for _ in range(10):
                greedy.send(binding_request(ID))
            for _ in range(3):
                await greedy.receive()
            # Behind the ten in the server's socket, so that they are done with when it is answered.
            other.send(binding_request(ID))
            assert BindingResponse.decode(await other.receive()).addr == other.addr
            with pytest.raises(BlockingIOError):
                greedy.sock.recv(1)
    assert server.counters == {"answered": 4, "source rate": 7}


@many_loopbacks
async def test_all_sources_share_a_bound() -> None:
    """Forged sources together are answered no more often than the whole server's rate."""
    limits = StunLimits(rate=2.0, burst=2)
    async with StunServer(bind=[V4], limits=limits) as server, contextlib.AsyncExitStack() as stack:
        askers = [stack.enter_context(Asker(server.addrs[0], f"127.0.0.{number}")) for number in range(1, 9)]
        for asker in askers:
            asker.send(binding_request(ID))
        await askers[0].receive()
        await askers[1].receive()
        # The last one repeats its request until it is its turn again.
        answered = server.counters["answered"]
        async with asyncio.timeout(20):
            while server.counters["answered"] == answered:
                askers[-1].send(binding_request(ID))
                await asyncio.sleep(0.02)
            await askers[-1].receive()
    # Half a second makes room for one more: those eight came faster than that, or at least most of them.
    assert answered < 8 and server.counters["rate"] >= 8 - answered


async def test_a_taken_port_is_an_error_that_says_so() -> None:
    """Where one of the addresses is taken the server opens none, and says which one."""
    async with StunServer(bind=[V4]) as server:
        taken = server.addrs[0]
        second = StunServer(bind=[V6, taken])
        with pytest.raises(RelayServerError, match=str(taken)):
            await second.start()
        assert second.addrs == ()
        await second.aclose()


async def test_closing_twice_and_unstarted_is_fine() -> None:
    """`aclose` may come before `start` and again; afterwards the port is free."""
    server = StunServer(bind=[V4])
    await server.aclose()
    await server.start()
    addr = server.addrs[0]
    await server.aclose()
    await server.aclose()
    async with StunServer(bind=[addr]) as again:
        assert again.addrs == (addr,)
