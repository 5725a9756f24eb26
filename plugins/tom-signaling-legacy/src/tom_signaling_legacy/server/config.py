"""The options of the server, section `signaling_server`; TOML, environment and `signaling serve` use the same names."""

from __future__ import annotations

from typing import Any

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.config import as_tuple, number_between, option, refused, whole_number_between
from tom_connect.exceptions import ConfigError, InvalidAddrError
from tom_signaling_legacy.core.limits import HubLimits

DEFAULT_PORT = 3001
DEV_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"
PORT_VARIABLE = "PORT"
"""The environment variable by which the old server was given its port."""


def everywhere(port: int) -> tuple[str, ...]:
    """The wildcard addresses of both IP versions with a port."""
    return (f"0.0.0.0:{port}", f"[::]:{port}")


def _addrs(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not value or not all(isinstance(text, str) for text in value):
        raise refused(field, value, "at least one address, IP:PORT or [IPV6]:PORT")
    for text in value:
        try:
            SocketAddr.parse(text)
        except InvalidAddrError as exc:
            raise ConfigError(f"{field.name}: {exc}") from None


def _field(default: Any, validator: Any, text: str, converter: Any = None) -> Any:
    # Off the general command line: these options are those of `tom-connect signaling serve` alone.
    return attrs.field(default=default, validator=validator, converter=converter, metadata=option(text, cli=False))


_rate = number_between(0, 1e6, "a number")


@attrs.frozen(kw_only=True)
class SignalingServerConfig:
    """What an operator may say about the signaling server; raises ConfigError that names the option."""

    listen: tuple[str, ...] = _field(
        everywhere(DEFAULT_PORT), _addrs, "TCP address for HTTP and WebSocket, IP:PORT or [IPV6]:PORT", as_tuple
    )
    # Everyone hears of everyone, so that traffic grows with the square: 256 nodes are 13,000 heartbeats a second.
    max_clients: int = _field(256, whole_number_between(1, 10_000), "connections at once")
    max_clients_per_source: int = _field(
        32,
        whole_number_between(1, 10_000),
        "connections from one source: an IPv4 address or IPv6 /56; behind a proxy all are one",
    )
    connect_rate: float = _field(5.0, _rate, "new connections a second from one source; 0: no limit")
    connect_burst: int = _field(50, whole_number_between(1, 1_000_000), "new connections at once before that")
    max_message: int = _field(65_536, whole_number_between(1024, 1 << 24), "bytes of one message")
    message_rate: float = _field(50.0, _rate, "messages a second from one client; 0: no limit")
    message_burst: int = _field(100, whole_number_between(1, 1_000_000), "messages at once before that")
    broadcast_rate: float = _field(
        2.0, _rate, "messages a second from one client that go to everyone, such as heartbeats; 0: no limit"
    )
    broadcast_burst: int = _field(20, whole_number_between(1, 1_000_000), "such messages at once before that")
    queue_messages: int = _field(
        1024, whole_number_between(1, 1_000_000), "messages that wait for one client; a slower one is ended"
    )
    queue_bytes: int = _field(1 << 20, whole_number_between(1024, 1 << 30), "bytes of them")
    handshake_timeout: float = _field(
        10.0, number_between(0.1, 300, "a number of seconds"), "seconds for a request to come in whole"
    )
    write_timeout: float = _field(
        20.0, number_between(0.1, 300, "a number of seconds"), "seconds in which a client must take a message"
    )

    @property
    def listen_addrs(self) -> tuple[SocketAddr, ...]:
        """`listen`, read."""
        return tuple(map(SocketAddr.parse, self.listen))

    @property
    def limits(self) -> HubLimits:
        """What one client may cost."""
        return HubLimits(
            message_rate=self.message_rate,
            message_burst=self.message_burst,
            broadcast_rate=self.broadcast_rate,
            broadcast_burst=self.broadcast_burst,
            queue_messages=self.queue_messages,
            queue_bytes=self.queue_bytes,
        )

    @classmethod
    def dev(cls, **fields: Any) -> SignalingServerConfig:
        """For development: 127.0.0.1:3001, for this machine alone."""
        return cls(**{"listen": (DEV_LISTEN,), **fields})


def listen_by_port(text: str) -> tuple[str, ...]:
    """What the environment variable PORT says; raises ConfigError."""
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise ConfigError(f"environment {PORT_VARIABLE}: {text!r} is not allowed; expected a port from 0 to 65535")
    return everywhere(int(text))
