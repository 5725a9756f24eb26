"""Listening on TCP addresses, and saying where that is."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import TomError

BACKLOG: Final = 1024
"""Connections that the kernel holds while a burst comes in."""
_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


async def listen(
    factory: Callable[[], asyncio.BaseProtocol],
    addrs: Sequence[SocketAddr],
    error: Callable[[str], TomError],
    **options: Any,
) -> list[asyncio.Server]:
    """Servers on all of the addresses; `options` go to `create_server`.

    Of several, one of an IP version that the machine does not have is left out. Raises `error` with what is wrong, and
    nothing listens then.
    """
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    try:
        for addr in addrs:
            try:
                servers.append(await loop.create_server(factory, addr.host, addr.port, backlog=BACKLOG, **options))
            except OSError as exc:
                if exc.errno == errno.EAFNOSUPPORT and len(addrs) > 1:
                    continue
                raise error(f"can't listen on {addr}: {os.strerror(exc.errno) if exc.errno else exc}") from None
        if not servers:
            raise error(f"can't listen on any of {', '.join(map(str, addrs))}")
    except BaseException:
        for server in servers:
            server.close()
        raise
    return servers


def bound_addrs(servers: Iterable[asyncio.Server]) -> tuple[SocketAddr, ...]:
    """Where servers listen, with the ports that the system chose."""
    return tuple(SocketAddr(*socket.getsockname()[:2]) for server in servers for socket in server.sockets)


def url_here(scheme: str, addr: SocketAddr) -> str:
    """The URL by which this machine reaches an address that is listened on; a wildcard becomes loopback."""
    return f"{scheme}://{SocketAddr(_HERE.get(addr.host, addr.host), addr.port)}"
