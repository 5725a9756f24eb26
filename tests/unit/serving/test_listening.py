"""Listening on TCP addresses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import Any

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import LocalError
from tom_connect.serving.listening import bound_addrs, listen, url_here

LOOPBACK = SocketAddr("127.0.0.1", 0)


class HangUp(asyncio.Protocol):
    """Ends each connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


async def test_every_address_is_listened_on() -> None:
    """Each gives a server, and the ports that the system chose are told; both take connections."""
    servers = await listen(HangUp, [LOOPBACK, LOOPBACK], LocalError)
    addrs = bound_addrs(servers)
    try:
        assert len(set(addrs)) == 2
        for addr in addrs:
            reader, writer = await asyncio.open_connection(addr.host, addr.port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.transport.abort()
    finally:
        for server in servers:
            server.close()


async def test_a_taken_port_is_named_and_nothing_stays_open() -> None:
    """The error says which address and why in the system's words; what was opened before is closed again."""
    (taken,) = await listen(asyncio.Protocol, [LOOPBACK], LocalError)
    (addr,) = bound_addrs([taken])
    (spare,) = await listen(asyncio.Protocol, [LOOPBACK], LocalError)
    (free,) = bound_addrs([spare])
    spare.close()
    try:
        with pytest.raises(LocalError, match=f"can't listen on {addr}: {os.strerror(errno.EADDRINUSE)}"):
            await listen(asyncio.Protocol, [free, addr], LocalError)
        for server in await listen(asyncio.Protocol, [free], LocalError):
            server.close()
    finally:
        taken.close()


@pytest.mark.parametrize("count", [1, 2])
async def test_a_machine_without_ipv6(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address whose IP version is missing is left out beside others, and an error where it is all there is."""
    loop = asyncio.get_running_loop()
    create = loop.create_server

    async def without_ipv6(factory: Any, host: str, port: int, **options: Any) -> asyncio.Server:
        if ":" in host:
            raise OSError(errno.EAFNOSUPPORT, "no such family")
        return await create(factory, host, port, **options)

    monkeypatch.setattr(loop, "create_server", without_ipv6)
    addrs = [SocketAddr("::1", 0), LOOPBACK][:count]
    if count == 1:
        with pytest.raises(LocalError, match="can't listen on"):
            await listen(asyncio.Protocol, addrs, LocalError)
        return
    (server,) = await listen(asyncio.Protocol, addrs, LocalError)
    server.close()
    with pytest.raises(LocalError, match="can't listen on any of"):
        await listen(asyncio.Protocol, [SocketAddr("::1", 0), SocketAddr("::1", 1)], LocalError)


@pytest.mark.parametrize(
    ("addr", "url"),
    [("0.0.0.0:80", "ws://127.0.0.1:80"), ("[::]:80", "ws://[::1]:80"), ("192.0.2.1:80", "ws://192.0.2.1:80")],
)
def test_a_wildcard_is_reached_by_loopback(addr: str, url: str) -> None:
    """The URL that is shown works on this machine."""
    assert url_here("ws", SocketAddr.parse(addr)) == url
