"""The options of the relay, section `pkarr_server`; TOML, environment and `pkarr serve` use the same names."""

from __future__ import annotations

# ruff: noqa: RUF009 - `_field` is attrs.field with the metadata filled in
import ipaddress
import pathlib
from typing import Any, Literal

import attrs
from attrs.validators import optional

from tom_connect.addr import SocketAddr
from tom_connect.config import (
    as_path,
    as_tuple,
    is_path,
    number_between,
    option,
    refused,
    seconds_between,
    whole_number_between,
)
from tom_connect.exceptions import ConfigError, InvalidAddrError
from tom_pkarr.core.freshness import MAX_AHEAD
from tom_pkarr.core.limits import Network

DEV_LISTEN = "127.0.0.1:6882"

DhtMode = Literal["auto", "on", "off"]
MODES: tuple[DhtMode, ...] = ("auto", "on", "off")


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
    if not value:
        raise ConfigError(f"{field.name}: expected at least one address")


def _networks(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _is_texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise refused(field, text, "an address or network such as 127.0.0.1 or 10.0.0.0/8") from None


def _url(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise refused(field, value, "a URL that begins with http:// or https://")


def _mode(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value not in MODES:
        raise refused(field, value, f"one of {', '.join(MODES)}")


def _field(default: Any, validator: Any, text: str, converter: Any = None) -> Any:
    # Off the general command line: these options are those of `tom-connect pkarr serve` alone.
    return attrs.field(default=default, validator=validator, converter=converter, metadata=option(text, cli=False))


@attrs.frozen(kw_only=True)
class PkarrServerConfig:
    """What an operator may say about the Pkarr relay; raises ConfigError that names the option."""

    listen: tuple[str, ...] = _field(
        ("0.0.0.0:6882", "[::]:6882"), _addrs, "TCP address for HTTP, IP:PORT or [IPV6]:PORT", as_tuple
    )
    url: str | None = _field(None, optional(_url), "our URL as clients reach it, shown at the start")
    trusted_proxies: tuple[str, ...] = _field(
        (), _networks, "address or network of a proxy whose X-Forwarded-For is believed", as_tuple
    )

    store: pathlib.Path | None = _field(
        None, optional(is_path), "SQLite file that keeps packets; default: memory alone", as_path
    )
    max_packets: int = _field(1_000_000, whole_number_between(1, 1 << 40), "packets kept; the least recently used goes")
    max_bytes: int = _field(
        256 << 20, whole_number_between(1 << 16, 1 << 50), "bytes of packets kept; the least recently used goes"
    )
    keep: float = _field(
        86_400.0, seconds_between(60, 366 * 86_400.0), "seconds after which a packet goes that nobody has put again"
    )
    hot_bytes: int = _field(
        32 << 20, whole_number_between(0, 1 << 40), "bytes of the packets asked for most lately, kept in memory"
    )
    max_ahead: float = _field(
        MAX_AHEAD, seconds_between(0, 86_400), "seconds that a packet's timestamp may lie in the future"
    )

    get_rate: float = _field(50.0, number_between(0, 1e9, "a number"), "GETs a second from one source; 0: no limit")
    get_burst: int = _field(500, whole_number_between(1, 1 << 40), "GETs at once before that")
    put_rate: float = _field(2.0, number_between(0, 1e9, "a number"), "PUTs a second from one source; 0: no limit")
    put_burst: int = _field(60, whole_number_between(1, 1 << 40), "PUTs at once before that")
    max_connections: int = _field(4096, whole_number_between(1, 1_000_000), "connections at once")
    max_connections_per_source: int = _field(
        256, whole_number_between(1, 1_000_000), "connections from one source: an IPv4 address or IPv6 /56"
    )
    request_timeout: float = _field(10.0, seconds_between(0.1, 300), "seconds for a request to come in whole")
    idle_timeout: float = _field(60.0, seconds_between(0.1, 3600), "seconds for which a connection may lie idle")

    dht: DhtMode = _field(
        "auto", _mode, "look in the Mainline DHT for what is missing, and publish there: auto (if installed), on or off"
    )
    bootstrap: tuple[str, ...] = _field(
        (), _is_texts, "node to join the DHT through, HOST:PORT; default: the DHT plugin's", as_tuple
    )
    udp_listen: tuple[str, ...] = _field(
        ("0.0.0.0:6881", "[::]:6881"), _addrs, "UDP address of the DHT node, IP:PORT or [IPV6]:PORT", as_tuple
    )
    lookup_timeout: float = _field(3.0, seconds_between(0.1, 60), "seconds for which a GET waits for the DHT")
    recheck: float = _field(
        60.0, seconds_between(0, 86_400), "seconds at least for which the DHT is not asked again for a packet"
    )

    @property
    def listen_addrs(self) -> tuple[SocketAddr, ...]:
        """`listen`, read."""
        return tuple(map(SocketAddr.parse, self.listen))

    @property
    def dht_addrs(self) -> tuple[SocketAddr, ...]:
        """`udp_listen`, read."""
        return tuple(map(SocketAddr.parse, self.udp_listen))

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """`trusted_proxies`, read."""
        return tuple(map(ipaddress.ip_network, self.trusted_proxies))

    @classmethod
    def dev(cls, **fields: Any) -> PkarrServerConfig:
        """For development: 127.0.0.1:6882 for this machine alone, no DHT."""
        return cls(**{"listen": (DEV_LISTEN,), "dht": "off", **fields})
