"""Where a node is: socket addresses, relay URLs, and the NodeAddr that gathers them."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

import attrs

from tom_connect.exceptions import InvalidAddrError
from tom_connect.keys import NodeId

MAX_USER_DATA = 245
MAX_RELAY_URL = 245
_PORT = re.compile(r"[0-9]{1,5}")


class SocketAddr(NamedTuple):
    """An IP address and UDP port; `str()` gives `1.2.3.4:5` or `[2001:db8::1]:5`.

    `host` is the canonical text of the address (a scope id of a link-local one included), `port` 0 to 65535.
    It is a tuple, so that it serves wherever `(host, port)` does.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> SocketAddr:
        """Read `ip:port` or `[ipv6]:port`; names are not resolved. Raises InvalidAddrError."""
        host, sep, port = text.strip().rpartition(":")
        if not sep or not _PORT.fullmatch(port) or int(port) > 65535:
            raise InvalidAddrError(f"not a socket address: {text!r} (expected IP:PORT or [IPV6]:PORT)")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            raise InvalidAddrError(f"not an IP address: {host!r} in {text!r}") from None
        if (ip.version == 6) != bracketed:
            raise InvalidAddrError(f"not a socket address: {text!r} (IPv6, and only it, stands in brackets)")
        return cls(str(ip), int(port))

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address as the `ipaddress` module has it."""
        return ipaddress.ip_address(self.host)

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_local(addr: SocketAddr) -> bool:
    """Whether an address means something only near its owner: private, loopback, link-local, shared (CGNAT).

    Decided by an explicit list, since `ipaddress.is_global` also excludes documentation ranges.
    """
    ip = addr.ip
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in net for net in _LOCAL_NETWORKS if net.version == ip.version)


_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 "
        "::/127 fc00::/7 fe80::/10"
    ).split()
)


@attrs.frozen(order=True, repr=False, str=False)
class RelayUrl:
    """The URL of a relay, in normal form; `str()` gives it. Schemes: whatever a relay transport claims."""

    url: str

    @classmethod
    def parse(cls, text: str) -> RelayUrl:
        """Read a URL such as `https://relay.example/`; raises InvalidAddrError.

        Scheme and host are lowered, an empty path becomes `/`; user names, queries and fragments are refused.
        """
        text = text.strip()
        if len(text.encode()) > MAX_RELAY_URL or not text.isascii() or not text.isprintable() or " " in text:
            raise InvalidAddrError(
                f"not a relay URL: {text[:80]!r} (at most {MAX_RELAY_URL} printable ASCII characters)"
            )
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise InvalidAddrError(f"not a relay URL: {text!r} ({exc})") from None
        if not parts.scheme or not host:
            raise InvalidAddrError(f"not a relay URL: {text!r} (expected SCHEME://HOST)")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidAddrError(f"not a relay URL: {text!r} (no user, query or fragment is allowed)")
        if ":" in host:
            host = f"[{host}]"
        netloc = host if port is None else f"{host}:{port}"
        return cls(f"{parts.scheme.lower()}://{netloc}{parts.path or '/'}")

    @property
    def scheme(self) -> str:
        """The part before `://`."""
        return self.url.partition("://")[0]

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RelayUrl({self.url!r})"


def _relay_urls(values: Iterable[RelayUrl | str]) -> tuple[RelayUrl, ...]:
    if isinstance(values, str):
        raise InvalidAddrError("relay_urls must be a sequence of URLs, not one string")
    return tuple(dict.fromkeys(v if isinstance(v, RelayUrl) else RelayUrl.parse(v) for v in values))


def _direct_addrs(values: Iterable[SocketAddr | tuple[str, int] | str]) -> tuple[SocketAddr, ...]:
    if isinstance(values, str):
        raise InvalidAddrError("direct_addrs must be a sequence of addresses, not one string")
    return tuple(dict.fromkeys(_socket_addr(v) for v in values))


def _socket_addr(value: SocketAddr | tuple[str, int] | str) -> SocketAddr:
    if isinstance(value, SocketAddr):
        return value
    if isinstance(value, str):
        return SocketAddr.parse(value)
    host, port = value[0], value[1]
    return SocketAddr.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _user_data(value: str | None) -> str | None:
    if value is not None and len(value.encode()) > MAX_USER_DATA:
        raise InvalidAddrError(f"user data has {len(value.encode())} bytes of UTF-8; at most {MAX_USER_DATA} fit")
    return value


def _node_id(value: NodeId | str) -> NodeId:
    return NodeId.parse(value) if isinstance(value, str) else value


@attrs.frozen
class NodeAddr:
    """A NodeId and all that is known of where it is.

    `relay_urls` and `direct_addrs` take texts or values and hold RelayUrl and SocketAddr, without duplicates, in
    the order given; `user_data` is the node's own text, at most 245 bytes of UTF-8. Raises InvalidAddrError.
    """

    node_id: NodeId = attrs.field(converter=_node_id)
    relay_urls: tuple[RelayUrl, ...] = attrs.field(default=(), converter=_relay_urls)
    direct_addrs: tuple[SocketAddr, ...] = attrs.field(default=(), converter=_direct_addrs)
    user_data: str | None = attrs.field(default=None, converter=_user_data)

    def is_empty(self) -> bool:
        """Whether there is no way given to reach the node."""
        return not self.relay_urls and not self.direct_addrs

    def merged(self, other: NodeAddr) -> NodeAddr:
        """Both sets of ways, this one's first. Raises InvalidAddrError if `other` is another node."""
        if other.node_id != self.node_id:
            raise InvalidAddrError(f"can't merge addresses of {other.node_id!r} into those of {self.node_id!r}")
        return NodeAddr(
            self.node_id,
            self.relay_urls + other.relay_urls,
            self.direct_addrs + other.direct_addrs,
            self.user_data if self.user_data is not None else other.user_data,
        )
