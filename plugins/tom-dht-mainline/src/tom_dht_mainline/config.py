"""The options of the plugin, section `dht`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.config import as_tuple, is_flag, seconds_between
from tom_connect.exceptions import ConfigError, InvalidAddrError, InvalidKeyError
from tom_connect.keys import NodeId

from .bootstrap import DEFAULT_BOOTSTRAP, BootstrapNode, parse_bootstrap

if TYPE_CHECKING:
    from .core import DhtConfig as CoreConfig

Server = Literal["auto", "on", "off"]
MAX_QUORUM = 8
"""Nodes that an item is stored at (BEP 44), as the core has it."""
MAX_CONTACTS = 8
"""What is left for each of them takes some forty packets an hour."""


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _bootstrap(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a sequence of HOST:PORT texts")
    try:
        parse_bootstrap(value)
    except InvalidAddrError as exc:
        raise ConfigError(f"{field.name}: {exc}") from None


def _server(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value not in get_args(Server):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected one of {', '.join(get_args(Server))}")


def _range(low: int, high: int) -> Any:
    def check(_self: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a number from {low} to {high}")

    return check


def _contacts(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a sequence of node ids")
    try:
        distinct = {NodeId.parse(text) for text in value}
    except InvalidKeyError as exc:
        raise ConfigError(f"{field.name}: {exc}") from None
    if len(distinct) > MAX_CONTACTS:
        raise ConfigError(f"{field.name}: {len(distinct)} contacts are too many; at most {MAX_CONTACTS} are kept up")


def _host(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    try:
        ipaddress.ip_address(value)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected an IP address") from None


@attrs.frozen(kw_only=True)
class DhtConfig:
    """What a user may say about the DHT node; raises ConfigError that names the option."""

    bootstrap: tuple[str, ...] = attrs.field(
        default=DEFAULT_BOOTSTRAP,
        converter=as_tuple,
        validator=_bootstrap,
        metadata=_help("node to join the DHT through, HOST:PORT; `none`: wait for others to come"),
    )
    server: Server = attrs.field(
        default="auto",
        validator=_server,
        metadata=_help("answer the queries of others: auto (once we are seen to be reachable), on or off"),
    )
    own_socket: bool = attrs.field(
        default=False,
        validator=is_flag,
        metadata=_help("use a UDP socket of the DHT's own instead of sharing the endpoint's"),
    )
    host: str = attrs.field(
        default="0.0.0.0",  # noqa: S104 - a DHT node is reachable by design
        validator=_host,
        metadata=_help("IPv4 address of the DHT's own socket"),
    )
    host6: str = attrs.field(
        default="::",
        validator=_host,
        metadata=_help("IPv6 address of the DHT's own socket"),
    )
    port: int = attrs.field(
        default=0,
        validator=_range(0, 65535),
        metadata=_help("port of the DHT's own socket; 0: any free one"),
    )
    quorum: int = attrs.field(
        default=6,
        validator=_range(1, MAX_QUORUM),
        metadata=_help("nodes that must have stored a record before it counts as published"),
    )
    read_legacy_item: bool = attrs.field(
        default=True,
        validator=is_flag,
        metadata=_help("also look for the JSON item that older ToM programs publish"),
    )
    write_legacy_item: bool = attrs.field(
        default=False,
        validator=is_flag,
        metadata=_help("also publish the JSON item that older ToM programs read"),
    )
    rendezvous: bool = attrs.field(
        default=True,
        validator=is_flag,
        metadata=_help("be called, and call others, through the DHT where no path leads yet"),
    )
    rendezvous_poll: float = attrs.field(
        default=1.1,
        validator=seconds_between(0.1, 600.0),
        metadata=_help("seconds between two polls for calls: callers wait half as long, each poll is two packets"),
    )
    contacts: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_contacts,
        metadata=_help(
            "node id of somebody who names us too: we find and call each other at places that nobody else can work out"
        ),
    )
    contacts_only: bool = attrs.field(
        default=False,
        validator=is_flag,
        metadata=_help("publish in the DHT for `contacts` alone: nobody else finds or calls us there"),
    )
    ipv4: bool = attrs.field(default=True, validator=is_flag, metadata=_help("take part in the IPv4 DHT"))
    ipv6: bool = attrs.field(default=True, validator=is_flag, metadata=_help("take part in the IPv6 DHT"))

    def __attrs_post_init__(self) -> None:
        if not self.ipv4 and not self.ipv6:
            raise ConfigError("ipv4, ipv6: at least one must be True; disable the plugin to do without the DHT")
        if self.port and not self.own_socket:
            raise ConfigError("port: it is that of the DHT's own socket, so set own_socket too")
        if self.contacts_only and not self.contacts:
            raise ConfigError("contacts_only: without contacts nobody could find this node; name them in contacts too")
        if ":" in self.host or ":" not in self.host6:
            raise ConfigError("host, host6: expected an IPv4 and an IPv6 address")

    @property
    def bootstrap_nodes(self) -> tuple[BootstrapNode, ...]:
        """`bootstrap`, read."""
        return parse_bootstrap(self.bootstrap)

    @property
    def contact_ids(self) -> tuple[NodeId, ...]:
        """`contacts`, read, each once."""
        return tuple(dict.fromkeys(map(NodeId.parse, self.contacts)))

    def check_contacts_of(self, node_id: NodeId) -> None:
        """Raises ConfigError where this node could be found by itself alone: it would publish for ever, and in vain."""
        if self.contacts_only and self.contact_ids == (node_id,):
            raise ConfigError("dht.contacts: with contacts_only nobody could find this node: its one contact is itself")

    @property
    def bind_addrs(self) -> tuple[SocketAddr, ...]:
        """Where the DHT's own sockets are bound, if it has any."""
        return tuple(
            SocketAddr(host, self.port) for host, wanted in ((self.host, self.ipv4), (self.host6, self.ipv6)) if wanted
        )

    def core_config(self, server: Server | None = None) -> CoreConfig:
        """The settings of the node's core; `server` overrides the option."""
        from .core import DhtConfig as CoreConfig  # whoever reads options needs no DHT
        from .core import Mode

        modes: dict[Server, Mode] = {"auto": Mode.ADAPTIVE, "on": Mode.SERVER, "off": Mode.CLIENT}
        return CoreConfig(ipv4=self.ipv4, ipv6=self.ipv6, mode=modes[server or self.server], quorum=self.quorum)
