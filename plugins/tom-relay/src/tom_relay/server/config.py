"""The options of the server, section `relay_server`: TOML, environment and `tom-connect relay` use the same names."""

from __future__ import annotations

# ruff: noqa: RUF009 - `_field` is attrs.field with the metadata filled in
import ipaddress
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import attrs
from attrs.validators import optional

from tom_connect.addr import SocketAddr
from tom_connect.config import as_path, as_tuple, is_path, option, refused, seconds_between, whole_number_between
from tom_connect.exceptions import ConfigError, InvalidAddrError, InvalidKeyError
from tom_connect.keys import NodeId
from tom_relay.limits import MAX_MESSAGE

DEV_LISTEN = "127.0.0.1:3340"

AccessMode = Literal["open", "allow", "deny", "token", "http"]
MODES: tuple[AccessMode, ...] = ("open", "allow", "deny", "token", "http")


def _is_texts(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(text, str) and text for text in value):
        raise refused(field, value, "a sequence of non-empty texts")


def _addrs(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _is_texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        try:
            SocketAddr.parse(text)
        except InvalidAddrError as exc:
            raise ConfigError(f"{field.name}: {exc}") from None


def _named_addrs(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _is_texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        host, _, port = text.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise refused(field, value, "addresses HOST:PORT or [IPV6]:PORT")


def _networks(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _is_texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        try:
            ipaddress.ip_network(text)
        except ValueError as exc:
            raise ConfigError(f"{field.name}: {exc}") from None


def _node_ids(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _is_texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        try:
            NodeId.parse(text)
        except InvalidKeyError as exc:
            raise ConfigError(f"{field.name}: {text!r}: {exc}") from None


def _text(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise refused(field, value, "a text that is not empty")


def _url(*schemes: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(_self: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str) or not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise refused(field, value, "a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes))

    return check


def _mode(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value not in MODES:
        raise refused(field, value, f"one of {', '.join(MODES)}")


def _field(default: Any, validator: Any, text: str, converter: Any = None) -> Any:
    # Off the general command line: these options are those of `tom-connect relay` alone.
    return attrs.field(default=default, validator=validator, converter=converter, metadata=option(text, cli=False))


@attrs.frozen(kw_only=True)
class RelayServerConfig:
    """What an operator may say about the relay; raises ConfigError that names the option."""

    listen: tuple[str, ...] = _field(
        ("0.0.0.0:3340", "[::]:3340"), _addrs, "TCP address for HTTP and WebSocket, IP:PORT or [IPV6]:PORT", as_tuple
    )
    tls_cert: pathlib.Path | None = _field(
        None, optional(is_path), "PEM file with the certificate chain; read again when it changes", as_path
    )
    tls_key: pathlib.Path | None = _field(
        None, optional(is_path), "PEM file with the certificate's key; read again when it changes", as_path
    )
    url: str | None = _field(None, optional(_url("http", "https")), "our URL as nodes reach it, shown at /relays")
    relays: tuple[str, ...] = _field((), _is_texts, "URLs of further relays that /relays names", as_tuple)

    trust_forwarded: tuple[str, ...] = _field(
        (), _networks, "IP address or network of a proxy whose X-Forwarded-For is believed", as_tuple
    )

    qad_listen: tuple[str, ...] = _field(
        ("0.0.0.0:7842", "[::]:7842"),
        _named_addrs,
        "UDP address for QUIC address discovery; it needs a certificate",
        as_tuple,
    )
    stun_listen: tuple[str, ...] = _field(
        ("0.0.0.0:3478", "[::]:3478"), _named_addrs, "UDP address for STUN; the port after it is used too", as_tuple
    )

    access: AccessMode = _field("open", _mode, "who may use the relay")
    allow: tuple[str, ...] = _field((), _node_ids, "NodeId that access mode allow lets in", as_tuple)
    allow_file: pathlib.Path | None = _field(
        None, optional(is_path), "file with further NodeIds to let in, one a line; read again when it changes", as_path
    )
    deny: tuple[str, ...] = _field((), _node_ids, "NodeId that access mode deny keeps out", as_tuple)
    deny_file: pathlib.Path | None = _field(
        None,
        optional(is_path),
        "file with further NodeIds to keep out, one a line; read again when it changes",
        as_path,
    )
    tokens: tuple[str, ...] = _field((), _is_texts, "token that access mode token asks for", as_tuple)
    token_file: pathlib.Path | None = _field(
        None, optional(is_path), "file with further tokens, one a line; read again when it changes", as_path
    )
    access_url: str | None = _field(
        None, optional(_url("http", "https")), "URL that access mode http asks by POST with X-Iroh-NodeId"
    )
    access_bearer: str | None = _field(None, optional(_text), "bearer token sent to access_url")
    access_timeout: float = _field(5.0, seconds_between(0.1, 60), "seconds that access_url has to answer; then no")

    max_clients: int = _field(10_000, whole_number_between(1, 1_000_000), "nodes connected at once")
    max_pending: int = _field(2048, whole_number_between(1, 1_000_000), "connections that have not proven a key yet")
    max_pending_per_host: int = _field(
        256, whole_number_between(1, 1_000_000), "such connections from one IPv4 address or IPv6 /64"
    )
    client_rate: int = _field(
        0, whole_number_between(0, 1 << 40), "bytes a second that each client may send; 0: no limit"
    )
    client_burst: int = _field(
        4 << 20, whole_number_between(MAX_MESSAGE, 1 << 40), "bytes that a client may send at once before that"
    )
    total_rate: int = _field(
        0, whole_number_between(0, 1 << 40), "bytes a second that all clients may send; 0: no limit"
    )
    total_burst: int = _field(
        64 << 20, whole_number_between(MAX_MESSAGE, 1 << 40), "bytes that all may send at once before that"
    )
    queue_packets: int = _field(
        512, whole_number_between(1, 65_536), "frames that wait for one client; more are dropped"
    )
    queue_bytes: int = _field(4 << 20, whole_number_between(65_536, 1 << 30), "bytes that wait for one client")
    total_queue_bytes: int = _field(256 << 20, whole_number_between(65_536, 1 << 40), "bytes that wait for all clients")
    handshake_timeout: float = _field(10.0, seconds_between(0.1, 300), "seconds for a new connection to prove its key")
    write_timeout: float = _field(2.0, seconds_between(0.1, 300), "seconds for which a client may accept no data")
    # iroh's: half of QUIC's default idle time-out.
    ping_interval: float = _field(15.0, seconds_between(1, 300), "seconds between two pings to a client")
    ping_timeout: float = _field(10.0, seconds_between(0.1, 300), "seconds for a client to answer a ping")

    stats_file: pathlib.Path | None = _field(
        None, optional(is_path), "SQLite file that keeps contribution statistics; default: memory alone", as_path
    )
    stats_nodes: int = _field(10_000, whole_number_between(1, 10_000_000), "nodes of which statistics are kept")
    operator_token: str | None = _field(
        None, optional(_text), "bearer token for /stats; without one it is shown to this machine alone"
    )
    # The command line ends 0.9 s after a signal.
    drain: float = _field(0.5, seconds_between(0, 60), "seconds that a stop lets queues empty")
    reconnect_in: float = _field(
        1.0, seconds_between(0, 600), "seconds after which clients should come back after a stop"
    )
    try_for: float = _field(10.0, seconds_between(0, 600), "seconds for which they should try to")

    def __attrs_post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert, tls_key: give both or none")
        if not self.listen:
            raise ConfigError("listen: expected at least one address")
        if self.access == "allow" and not (self.allow or self.allow_file):
            raise ConfigError("access: mode allow needs allow or allow_file")
        if self.access == "deny" and not (self.deny or self.deny_file):
            raise ConfigError("access: mode deny needs deny or deny_file")
        if self.access == "token" and not (self.tokens or self.token_file):
            raise ConfigError("access: mode token needs tokens or token_file")
        if self.access == "http" and self.access_url is None:
            raise ConfigError("access: mode http needs access_url")

    @property
    def listen_addrs(self) -> tuple[SocketAddr, ...]:
        """`listen`, read."""
        return tuple(SocketAddr.parse(text) for text in self.listen)

    @property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trust_forwarded`, read."""
        return tuple(ipaddress.ip_network(text) for text in self.trust_forwarded)

    @classmethod
    def dev(cls, **fields: Any) -> RelayServerConfig:
        """For development: plain HTTP on 127.0.0.1:3340 for everyone on this machine, no UDP."""
        return cls(**{"listen": (DEV_LISTEN,), "qad_listen": (), "stun_listen": (), **fields})
