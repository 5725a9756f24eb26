"""One exchange over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.signing import SystemClock
from tom_portmap.core.exchange import Exchange
from tom_portmap.errors import SilentError
from tom_portmap.udp import ask, facing

LOCAL = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((LOCAL, 0))
        yield sock


def exchange(server: socket.socket, malformed: Counter[str], waits: tuple[float, ...] = (0.1, 30.0)) -> Exchange[bytes]:
    def read(data: bytes) -> bytes | None:
        return data if data.startswith(b"yes") else None

    return Exchange(SocketAddr(*server.getsockname()), b"please", read, malformed=malformed, waits=waits)


async def test_the_second_request_is_answered(server: socket.socket) -> None:
    """The first is lost; an answer of a stranger to our port never reaches us, one of the wrong kind is ignored."""
    malformed: Counter[str] = Counter()
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        for _ in range(2):
            _data, client = await loop.sock_recvfrom(server, 100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"yes, says a stranger", client)
        await loop.sock_sendto(server, b"no", client)
        await loop.sock_sendto(server, b"yes", client)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(answer())
        assert await ask(exchange(server, malformed), LOCAL, SystemClock()) == b"yes"
    assert malformed == {"answers nothing": 1}


async def test_silence_is_an_error(server: socket.socket) -> None:
    """After the last wait."""
    with pytest.raises(SilentError, match="no answer"):
        await ask(exchange(server, Counter(), (0.01, 0.01)), LOCAL, SystemClock())


@pytest.mark.skipif(not hasattr(socket, "MSG_DONTWAIT"), reason="needs a system that tells of ICMP errors: POSIX")
async def test_a_closed_port_is_told_at_once(server: socket.socket) -> None:
    """Where nothing listens the system says so, and the long wait is not waited for."""
    asked = exchange(server, Counter(), (60.0,))
    server.close()
    async with asyncio.timeout(20):
        with pytest.raises(SilentError, match="nothing listens"):
            await ask(asked, LOCAL, SystemClock())


async def test_an_address_that_is_not_ours_is_an_error(server: socket.socket) -> None:
    """Nothing is sent from it."""
    with pytest.raises(SilentError, match=r"192\.0\.2\.77"):
        await ask(exchange(server, Counter()), "192.0.2.77", SystemClock())


def test_the_address_that_faces_a_gateway_is_ours() -> None:
    """Loopback faces loopback; no packet is sent to find out."""
    assert facing("127.0.0.1") == "127.0.0.1"
