"""Where a node is: socket addresses, relay URLs, and the NodeAddr that gathers them."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

import attrs

from tom_connect.exceptions import InvalidAddrError, InvalidKeyError
from tom_connect.keys import NodeId

MAX_USER_DATA = 245
MAX_RELAY_URL = 245
_PORT = re.compile(r"[0-9]{1,5}")
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,32}")
# What RFC 3986 section 3 calls scheme, host, port and path-abempty; a host has no percent-encoding here.
_RELAY_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://"
    r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::([0-9]{1,5}))?"
    r"((?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)"
)
# A relay that is a node: its key, and its address where that is known.
_NODE_URL = re.compile(
    r"tom://([A-Za-z0-9]{52}|[0-9A-Fa-f]{64})(?:@([0-9.]{7,15}:[0-9]{1,5}|\[[0-9A-Fa-f:.]{2,45}\]:[0-9]{1,5}))?/?", re.I
)
_SHOWN = 80  # characters of bad input that a message repeats


class SocketAddr(NamedTuple):
    """An IP address and UDP port; `str()` gives `1.2.3.4:5` or `[2001:db8::1]:5`.

    `host` is the canonical text of the address (a scope id of a link-local one included), `port` 0 to 65535. An
    IPv4-mapped IPv6 address is the IPv4 address that it stands for. It is a tuple, so that it serves
    wherever `(host, port)` does.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> SocketAddr:
        """Read `ip:port` or `[ipv6]:port`; names are not resolved. Raises InvalidAddrError."""
        shown = repr(text[:_SHOWN])
        host, sep, port = text.strip().rpartition(":")
        if not sep or not _PORT.fullmatch(port) or int(port) > 65535:
            raise InvalidAddrError(f"not a socket address: {shown} (expected IP:PORT or [IPV6]:PORT)")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            raise InvalidAddrError(f"not a socket address: {shown} (expected IP:PORT or [IPV6]:PORT)") from None
        if (ip.version == 6) != bracketed:
            raise InvalidAddrError(f"not a socket address: {shown} (IPv6, and only it, stands in brackets)")
        if ip.version == 6:
            if ip.ipv4_mapped is not None:
                return cls(str(ip.ipv4_mapped), int(port))
            if ip.scope_id is not None and not _SCOPE.fullmatch(ip.scope_id):
                raise InvalidAddrError(f"not a socket address: {shown} (a strange IPv6 scope)")
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


def is_shareable(addr: SocketAddr) -> bool:
    """Whether an address can be told to others: a scope id is one machine's name for an interface, port 0 is none."""
    return "%" not in addr.host and addr.port != 0


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
    """The URL of a relay, in normal form; `str()` gives it. Schemes: whatever a relay transport claims.

    `tom://NODEID@IP:PORT`, or `tom://NODEID` where the address is to be looked up, is a relay that is a node itself: it
    is named by its key and reached by QUIC.
    """

    url: str

    @classmethod
    def parse(cls, text: str) -> RelayUrl:
        """Read a URL such as `https://relay.example/`; raises InvalidAddrError.

        Scheme and host are lowered, an empty path becomes `/`; user names, queries and fragments are refused. One with
        the scheme `tom` has its key in hexadecimal and no path.
        """
        text = text.strip()
        shown = repr(text[:_SHOWN])
        if len(text) > MAX_RELAY_URL:
            raise InvalidAddrError(f"not a relay URL: {shown} (at most {MAX_RELAY_URL} characters)")
        if text[:6].lower() == "tom://":
            return cls._parse_node(text, shown)
        match = _RELAY_URL.fullmatch(text)
        if match is None:
            raise InvalidAddrError(f"not a relay URL: {shown} (expected SCHEME://HOST[:PORT][/PATH] and no more)")
        scheme, host, port, path = match[1].lower(), match[2].lower(), match[3], match[4]
        if host.startswith("["):
            try:
                host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
            except ValueError:
                raise InvalidAddrError(f"not a relay URL: {shown} (not an IPv6 address in brackets)") from None
        if port is not None and not 0 < int(port) <= 65535:
            raise InvalidAddrError(f"not a relay URL: {shown} (a port is 1 to 65535)")
        netloc = host if port is None else f"{host}:{int(port)}"
        url = f"{scheme}://{netloc}{path or '/'}"
        if len(url) > MAX_RELAY_URL:
            raise InvalidAddrError(f"not a relay URL: {shown} (at most {MAX_RELAY_URL} characters)")
        return cls(url)

    @classmethod
    def _parse_node(cls, text: str, shown: str) -> RelayUrl:
        match = _NODE_URL.fullmatch(text)
        if match is None:
            raise InvalidAddrError(f"not a relay URL: {shown} (expected tom://NODEID or tom://NODEID@IP:PORT)")
        try:
            node_id = NodeId.parse(match[1])
            return cls.of_node(node_id, None if match[2] is None else SocketAddr.parse(match[2]))
        except (InvalidKeyError, InvalidAddrError) as exc:
            raise InvalidAddrError(f"not a relay URL: {shown} ({exc})") from None

    @classmethod
    def of_node(cls, node_id: NodeId, addr: SocketAddr | None = None) -> RelayUrl:
        """The URL of a relay that is a node, with the address at which it is reached if that is known.

        Raises InvalidAddrError for an address that means nothing to others: a port of 0, a scope id.
        """
        if addr is not None and not is_shareable(addr):
            raise InvalidAddrError(f"a relay at {addr} can't be reached by others")
        return cls(f"tom://{node_id}" if addr is None else f"tom://{node_id}@{addr}")

    @property
    def node_id(self) -> NodeId | None:
        """The key of a relay that is a node, None for others."""
        return NodeId.parse(self.url[6:70]) if self.scheme == "tom" else None

    @property
    def node_addr(self) -> SocketAddr | None:
        """The address in the URL of a relay that is a node; None if it has none, and for others."""
        text = self.url[71:] if self.scheme == "tom" else ""
        return SocketAddr.parse(text) if text else None

    @property
    def scheme(self) -> str:
        """The part before `://`."""
        return self.url.partition("://")[0]

    @property
    def _netloc(self) -> str:
        return self.url.partition("://")[2].partition("/")[0].rpartition("@")[2]

    @property
    def host(self) -> str:
        """The host: a name, an IPv4 address, or an IPv6 address in brackets; without a dot at its end."""
        netloc = self._netloc
        host, sep, _port = netloc.rpartition(":") if not netloc.endswith("]") else ("", "", "")
        return (host if sep else netloc).rstrip(".")

    @property
    def port(self) -> int | None:
        """The port, where it is said."""
        netloc = self._netloc
        tail = netloc.rpartition(":")[2]
        return int(tail) if not netloc.endswith("]") and ":" in netloc else None

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
    if value is None:
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidAddrError("user data is not text: it holds half of a surrogate pair") from None
    if size > MAX_USER_DATA:
        raise InvalidAddrError(f"user data has {size} bytes of UTF-8; at most {MAX_USER_DATA} fit")
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
