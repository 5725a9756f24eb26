"""The QUIC address discovery server on loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.netreport.qad import QadClient, QadReport
from tom_relay.errors import RelayServerError
from tom_relay.qad import QadLimits, QadServer, ServerCertificate

V4 = SocketAddr("127.0.0.1", 0)
V6 = SocketAddr("::1", 0)
CERTIFICATE = ServerCertificate.self_signed()


class Asker:
    """A client on a real socket, which can move to another one."""

    def __init__(self, server: SocketAddr, certificate: ServerCertificate = CERTIFICATE, **options: bool) -> None:
        self.server = server
        self.client = QadClient(server, server_name=server.host, cadata=certificate.pem, **options)
        self.loop = asyncio.get_running_loop()
        self.sock = self._socket()

    def _socket(self) -> socket.socket:
        sock = socket.socket(self.server.family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((self.server.host, 0))
        return sock

    def __enter__(self) -> Asker:
        self.client.start(self.loop.time())
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def addr(self) -> SocketAddr:
        return SocketAddr(*self.sock.getsockname()[:2])

    def move(self) -> None:
        """Go on at another port, as behind a NAT that forgot us."""
        self.sock.close()
        self.sock = self._socket()
        self.client._quic.send_ping(1)

    def flush(self) -> None:
        for data in self.client.send(self.loop.time()):
            self.sock.sendto(data, tuple(self.server))

    async def turn(self) -> None:
        """Send, and take one datagram or wait for a timer."""
        self.flush()
        if self.client.done:
            return
        try:
            async with asyncio.timeout_at(self.client.get_timer()):
                data, source = await self.loop.sock_recvfrom(self.sock, 4096)
        except TimeoutError:
            self.client.handle_timer(self.loop.time())
        else:
            self.client.receive(data, SocketAddr(*source[:2]), self.loop.time())

    async def report(self) -> QadReport | None:
        """The next report, or None at the end."""
        async with asyncio.timeout(20):
            while True:
                if (report := self.client.next_report()) is not None or self.client.done:
                    self.flush()
                    return report
                await self.turn()


async def counted(server: QadServer, reason: str, number: int = 1) -> None:
    """Wait until a counter has reached a number."""
    try:
        async with asyncio.timeout(20):
            while server.counters[reason] < number:  # noqa: ASYNC110 - counters tell nobody
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"{reason}: {server.counters}") from None


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[QadServer]:
    """A server on IPv4 loopback."""
    async with QadServer(bind=[V4], certificate=CERTIFICATE, limits=QadLimits(**limits)) as server:  # type: ignore[arg-type]
        yield server


@pytest.mark.parametrize("bind", [V4, V6], ids=["IPv4", "IPv6"])
async def test_tells_the_address_of_each_family(bind: SocketAddr) -> None:
    """A client of either family learns the address of its own socket, and nothing is left of it afterwards."""
    async with QadServer(bind=[bind], certificate=CERTIFICATE) as server:
        with Asker(server.addrs[0]) as asker:
            report = await asker.report()
            assert report is not None and report.addr == asker.addr
            assert report.rtt is not None and report.rtt < 5
            # The close is taken before the counter of a datagram that is sent behind it.
            asker.sock.sendto(b"\xff", tuple(asker.server))
            await counted(server, "too small")
        assert server.connections == 0
        assert server._by_cid == {} and not server._by_source
    # A report that seems lost on a busy machine is sent again.
    assert server.counters["reports"] >= server.counters["confirmed"] == 1


async def test_a_change_of_address_is_told() -> None:
    """A client that goes on at another port is told that one, in the same connection."""
    async with serving() as server:
        with Asker(server.addrs[0], watch=True) as asker:
            for number in range(1, 4):
                report = await asker.report()
                assert report is not None and report.addr == asker.addr
                assert server.counters["reports"] >= number  # a report that seems lost is sent again
                asker.move()
        assert server.counters["accepted"] == 1


async def test_newcomers_prove_their_address_when_many_are_there() -> None:
    """Above a quarter of the connections a newcomer is sent a Retry, and is served when it has come back."""
    async with serving(connections=4) as server:
        with Asker(server.addrs[0], watch=True) as first, Asker(server.addrs[0]) as second:
            await first.report()
            report = await second.report()
            assert report is not None and report.addr == second.addr
    assert server.counters["retries"] >= 1  # a first packet that is sent again is answered again
    assert server.counters["accepted"] == 2


async def test_connections_are_bounded() -> None:
    """Beyond the bound nobody is let in, and those who are in go on."""
    async with serving(connections=2) as server:
        with Asker(server.addrs[0], watch=True) as one, Asker(server.addrs[0], watch=True) as two:
            assert await one.report() and await two.report()
            with Asker(server.addrs[0]) as three:
                while not server.counters["too many connections"]:
                    await three.turn()
            assert server.connections == 2
            one.move()
            report = await one.report()
            assert report is not None and report.addr == one.addr


async def test_connections_of_one_source_are_bounded() -> None:
    """One address can't take all places."""
    async with serving(connections_per_source=1) as server:
        with Asker(server.addrs[0], watch=True) as one, Asker(server.addrs[0]) as two:
            assert await one.report()
            while not server.counters["too many connections of a source"]:
                await two.turn()
            assert server.connections == 1
        # It was asked to prove its address first: a forged one can't take a source's places.
        assert server.counters["retries"] >= 1


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"rate": 0.001, "burst": 1}, "rate"), ({"rate_per_source": 0.001, "burst_per_source": 1}, "source rate")],
)
async def test_new_connections_have_a_rate(limits: dict[str, float], reason: str) -> None:
    """More new connections than the rate allows, of one source or all, are dropped and counted."""
    async with serving(**limits) as server:
        with Asker(server.addrs[0]) as one, Asker(server.addrs[0]) as two:
            assert await one.report()
            two.flush()
            await counted(server, reason)


async def test_a_handshake_that_stops_is_dropped_in_time() -> None:
    """A client that sends its first packet and no more is dropped after the time for a handshake."""
    async with serving(handshake_timeout=0.1) as server:
        with Asker(server.addrs[0]) as asker:
            asker.flush()
            await counted(server, "handshake timed out")
        assert server.connections == 0 and server._by_cid == {}


async def test_a_silent_client_and_an_old_one_are_dropped() -> None:
    """Who is silent for the idle time, and who stays longer than the lifetime, is dropped."""
    async with serving(lifetime=2.0) as server:
        with Asker(server.addrs[0], watch=True) as asker:
            assert await asker.report()
            await counted(server, "lifetime over")
            assert await asker.report() is None
            assert asker.client.error is not None and asker.client.error.code == 1
            assert server.connections == 0
    async with serving(idle_timeout=1.0) as server:
        with Asker(server.addrs[0], watch=True) as asker:
            assert await asker.report()
            await counted(server, "idle")
            assert server.connections == 0


async def test_a_client_that_floods_is_held_to_its_rate() -> None:
    """Datagrams of one connection beyond its rate are dropped before they cost anything; others are served."""
    async with serving(packets=0.001, packets_burst=40) as server:
        with Asker(server.addrs[0], watch=True) as asker, Asker(server.addrs[0]) as other:
            assert await asker.report()
            for _ in range(100):
                asker.client._quic.send_ping(1)
                asker.flush()
            await counted(server, "packet rate", 10)
            assert await other.report()


async def test_no_answer_is_larger_than_its_question() -> None:
    """Noise gets no answer; another QUIC version gets one that is smaller than the question."""
    async with serving() as server:
        with Asker(server.addrs[0]) as asker:
            first = asker.client.send(asker.loop.time())[0]
            noise = [first[:size] for size in (1, 5, 6, 7, 20, 100, 1199)]
            noise += [b"\xff", b"\xc0\0\0\0\0" + bytes(1300), bytes(1300), b"\x40" * 1300, b"\xc0" + b"\xfe" * 300]
            noise += [first[:5] + b"\x07" + first[6:], first[:5] + b"\xff" + first[6:]]
            for data in noise:
                asker.sock.sendto(data, tuple(asker.server))
            version = first[:1] + b"\x0a\x1a\x2a\x3a" + first[5:]
            asker.sock.sendto(version, tuple(asker.server))
            await counted(server, "version negotiations")
            async with asyncio.timeout(5):
                answer = await asker.loop.sock_recv(asker.sock, 4096)
            assert answer[0] & 0x80 and answer[1:5] == bytes(4)
            assert len(answer) < 100
            with pytest.raises(BlockingIOError):
                asker.sock.recv(4096)
        assert server.connections == 0


async def test_an_unproven_address_gets_three_times_what_it_sent() -> None:
    """Before the client's address is proven it is sent at most three times its bytes, however long it is silent."""
    async with serving(handshake_timeout=1.5) as server:
        with Asker(server.addrs[0]) as asker:
            sent = asker.client.send(asker.loop.time())
            for data in sent:
                asker.sock.sendto(data, tuple(asker.server))
            await counted(server, "handshake timed out")
            received = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    received += len(asker.sock.recv(4096))
    assert 0 < received <= 3 * sum(map(len, sent))


async def test_perturbed_packets_harm_nobody() -> None:
    """First packets with flipped bytes are dropped or fail alone; the next client is served."""
    async with serving(rate=1e6, burst=1e6, rate_per_source=1e6, burst_per_source=1e6) as server:
        with Asker(server.addrs[0]) as asker:
            first = asker.client.send(asker.loop.time())[0]
            for at in range(0, len(first), 60):
                wrong = bytearray(first)
                wrong[at] ^= 0xFF
                asker.sock.sendto(bytes(wrong), tuple(asker.server))
        with Asker(server.addrs[0]) as asker:
            report = await asker.report()
            assert report is not None and report.addr == asker.addr
        assert server.counters["faults"] == 0


async def test_a_fault_ends_one_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception out of one connection is counted and drops that connection; the others go on."""
    async with serving() as server:
        with Asker(server.addrs[0], watch=True) as one, Asker(server.addrs[0], watch=True) as two:
            assert await one.report()
            (client,) = server._clients
            monkeypatch.setattr(client.quic, "datagrams_to_send", None)
            one.move()
            one.flush()
            await counted(server, "faults")
            assert server.connections == 0
            report = await two.report()
            assert report is not None and report.addr == two.addr


async def test_closing_tells_the_clients() -> None:
    """A server that stops closes its connections, so that nobody waits for it."""
    server = QadServer(bind=[V4], certificate=CERTIFICATE)
    await server.aclose()
    await server.start()
    addr = server.addrs[0]
    with Asker(addr, watch=True) as asker:
        assert await asker.report()
        await server.aclose()
        await server.aclose()
        assert await asker.report() is None
        assert asker.client.error is not None and asker.client.error.code == 1
    assert server.connections == 0
    async with QadServer(bind=[addr], certificate=CERTIFICATE) as again:
        assert again.addrs == (addr,)


async def test_a_taken_port_is_an_error_that_says_so() -> None:
    """Where an address is taken the server opens none and says which one."""
    async with serving() as server:
        second = QadServer(bind=[V6, server.addrs[0]], certificate=CERTIFICATE)
        with pytest.raises(RelayServerError, match=str(server.addrs[0])):
            await second.start()
        assert second.addrs == ()


async def test_a_new_certificate_counts_from_the_next_connection() -> None:
    """After `set_certificate` new clients see the new certificate; those that are there stay."""
    renewed = ServerCertificate.self_signed()
    async with serving() as server:
        with Asker(server.addrs[0], watch=True) as old, Asker(server.addrs[0], renewed) as new:
            assert await old.report()
            server.set_certificate(renewed)
            report = await new.report()
            assert report is not None and report.addr == new.addr
            old.move()
            report = await old.report()
            assert report is not None and report.addr == old.addr
        with Asker(server.addrs[0]) as old:
            assert await old.report() is None
            assert old.client.error is not None
