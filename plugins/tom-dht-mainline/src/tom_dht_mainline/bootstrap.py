"""Bootstrap nodes by name: reading `host:port` and resolving it without blocking the event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import InvalidAddrError

if TYPE_CHECKING:
    from .core import Address

DEFAULT_BOOTSTRAP = (
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "relay.pkarr.org:6881",
)
"""Long-lived public nodes, run by different parties."""

MAX_BOOTSTRAP = 64
"""The core keeps no more addresses than this."""
RESOLVE_TIMEOUT = 10.0
"""Seconds for one name: resolvers of most systems give up after 5 to 10."""
_MAX_ADDRS_PER_NAME = 8
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?"
)


@attrs.frozen
class BootstrapNode:
    """A node to join through: a name or IP address, and a UDP port 1 to 65535; `str()` gives `host:port`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> BootstrapNode:
        """Read `name:port`, `1.2.3.4:port` or `[2001:db8::1]:port`. Raises InvalidAddrError."""
        text = text.strip()
        host, sep, port = text.rpartition(":")
        if not sep or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise InvalidAddrError(f"not a bootstrap node: {text[:300]!r} (expected HOST:PORT, port 1 to 65535)")
        if host.startswith("[") or ":" in host or re.fullmatch(r"[0-9.]+", host):
            addr = SocketAddr.parse(text)
            if "%" in addr.host:
                raise InvalidAddrError(f"not a bootstrap node: {text[:300]!r} (link-local addresses can't be used)")
            return cls(addr.host, addr.port)
        if not _HOST.fullmatch(host):
            raise InvalidAddrError(f"not a bootstrap node: {text[:300]!r} ({host[:255]!r} is no host name)")
        return cls(host, int(port))

    @property
    def address(self) -> Address | None:
        """The address if `host` is an IP address, None if it is a name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return self.host, self.port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bootstrap(texts: Iterable[str]) -> tuple[BootstrapNode, ...]:
    """Read a list of bootstrap nodes, each once, at most 64; the single word `none` gives none.

    Raises InvalidAddrError.
    """
    if isinstance(texts, str):
        raise InvalidAddrError("bootstrap must be a sequence of HOST:PORT texts, not one string")
    listed = [text.strip() for text in texts]
    if listed == ["none"]:
        return ()
    if len(listed) > MAX_BOOTSTRAP:
        raise InvalidAddrError(f"{len(listed)} bootstrap nodes were given; at most {MAX_BOOTSTRAP} are used")
    return tuple(dict.fromkeys(BootstrapNode.parse(text) for text in listed))


async def resolve(node: BootstrapNode, timeout: float = RESOLVE_TIMEOUT) -> list[Address]:
    """The addresses of a node, both families; raises OSError if its name is unknown, TimeoutError after `timeout` s.

    The system's own resolver runs in a daemon thread: unlike a thread of the loop's executor it can't hold up the
    end of the program when name servers are silent.
    """
    if node.address is not None:
        return [node.address]
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Address]] = loop.create_future()

    def deliver(outcome: list[Address] | OSError) -> None:
        if future.done():
            return
        if isinstance(outcome, OSError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def ask() -> None:
        outcome: list[Address] | OSError
        try:
            infos = socket.getaddrinfo(node.host, node.port, type=socket.SOCK_DGRAM)
            found = dict.fromkeys((str(info[4][0]), int(info[4][1])) for info in infos)
            outcome = [addr for addr in found if "%" not in addr[0]][:_MAX_ADDRS_PER_NAME]
        except OSError as exc:
            outcome = exc
        except UnicodeError as exc:
            outcome = OSError(f"not a host name: {exc}")
        try:
            loop.call_soon_threadsafe(deliver, outcome)
        except RuntimeError:
            pass  # the loop has gone while the name server thought

    threading.Thread(target=ask, name=f"resolve {node.host}", daemon=True).start()
    async with asyncio.timeout(timeout):
        return await future
