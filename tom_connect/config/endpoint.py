"""EndpointConfig: everything that an application may say about an endpoint."""

from __future__ import annotations

import ipaddress
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
from attrs.validators import optional

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.config.checks import as_path, as_tuple, is_flag, refused
from tom_connect.config.options import option
from tom_connect.exceptions import ConfigError, InvalidAddrError
from tom_connect.keys import SecretKey

MAX_ALPN_BYTES = 255
KEEP_ALIVE = 20.0
"""Seconds. NATs drop UDP bindings after 30 s at the earliest in practice (RFC 4787 asks for two minutes)."""

VIRTUAL_INTERFACES = (
    *(
        "docker*",
        "br-????????????",
        "veth*",
        "podman*",
        "cni*",
        "flannel*",
        "cali*",
        "cilium*",
        "kube*",
        "lxcbr*",
    ),
    *("lxdbr*", "incusbr*", "virbr*", "vmnet*", "vboxnet*", "VirtualBox Host-Only*", "VMware Network Adapter*"),
    *("vEthernet (WSL*", "vEthernet (Default Switch)"),
)
"""Bridges to containers and virtual machines on Linux, macOS and Windows: nobody else is where they lead.

Docker names bridges with 12 digits, so `br-lan` of a router is not meant.
"""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _texts(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
        raise refused(field, value, "a sequence of non-empty texts, such as ('name',)")


def _alpns(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _texts(self, field, value)
    assert isinstance(value, tuple)
    for alpn in value:
        if len(alpn.encode()) > MAX_ALPN_BYTES:
            raise refused(field, alpn, f"at most {MAX_ALPN_BYTES} bytes of UTF-8 (RFC 7301 section 3.1)")
    if len(set(value)) != len(value):
        raise refused(field, value, "each ALPN once")


def _bind(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _texts(self, field, value)
    assert isinstance(value, tuple)
    if not value:
        raise refused(field, value, "at least one address to bind, such as '0.0.0.0:0'")
    families = set()
    for text in value:
        try:
            addr = SocketAddr.parse(text)
        except InvalidAddrError as exc:
            raise ConfigError(f"{field.name}: {exc}") from None
        if addr.family in families:
            raise refused(field, value, "at most one IPv4 and one IPv6 address: an endpoint has one socket a family")
        families.add(addr.family)


def _relay_urls(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        try:
            RelayUrl.parse(text)
        except InvalidAddrError as exc:
            raise ConfigError(f"{field.name}: {exc}") from None


def _networks(self: object, field: attrs.Attribute[Any], value: object) -> None:
    _texts(self, field, value)
    assert isinstance(value, tuple)
    for text in value:
        try:
            ipaddress.ip_network(text)
        except ValueError as exc:
            raise ConfigError(f"{field.name}: {exc}; expected a network such as 192.168.0.0/16 or fd00::/8") from None


def _seconds(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < 1e9:  # type: ignore[operator]
        raise refused(field, value, "a number of seconds above 0")


def _seconds_or_none(self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _seconds(self, field, value)


def _keep_alive_for(idle_timeout: object) -> float:
    """The keep-alive where none is given: such that two lost pings do not end a connection."""
    return min(KEEP_ALIVE, idle_timeout / 3) if isinstance(idle_timeout, (int, float)) else KEEP_ALIVE


def _count(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refused(field, value, "a whole number of at least 1")


def _of(kind: type, expected: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(_self: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise refused(field, value, expected)

    return check


def _secret_key(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, SecretKey):
        # The value may be the secret itself in another form, so it is not shown.
        raise ConfigError(f"{field.name}: a {type(value).__name__} is not allowed; expected a SecretKey")


def _configs(value: object) -> object:
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value


@attrs.frozen(kw_only=True)
class EndpointConfig:
    """What an endpoint is to do; every field has a default. Raises ConfigError that names the field.

    The fields that people rather than programs choose can also come from a file, the environment and the command
    line, in that order of precedence: see `tom_connect.config.load_config`.
    """

    alpns: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_alpns,
        metadata=option("application protocols that are accepted", program_only=True),
    )
    bind: tuple[str, ...] = attrs.field(
        default=("0.0.0.0:0", "[::]:0"),
        converter=as_tuple,
        validator=_bind,
        metadata=option("UDP address to bind, IP:PORT or [IPV6]:PORT, one for each family; port 0: any free one"),
    )
    secret_key: SecretKey | None = attrs.field(
        default=None, validator=optional(_secret_key), metadata=option("our identity", program_only=True)
    )
    secret_key_file: pathlib.Path | None = attrs.field(
        default=None,
        converter=as_path,
        validator=optional(_of(pathlib.Path, "a path")),
        metadata=option("file with our secret key, made if it is missing"),
    )
    data_dir: pathlib.Path | None = attrs.field(
        default=None,
        converter=as_path,
        validator=optional(_of(pathlib.Path, "a path")),
        metadata=option("directory for what should survive a restart; default: the platform's"),
    )
    persist: bool = attrs.field(
        default=True, validator=is_flag, metadata=option("keep routing tables and the like between runs")
    )
    allow_local: bool = attrs.field(
        default=False, validator=is_flag, metadata=option("publish and dial private, loopback and link-local addresses")
    )
    dht_only: bool = attrs.field(
        default=False,
        validator=is_flag,
        metadata=option("find nodes through serverless discovery alone: no server of anyone's is asked"),
    )
    nodes_file: pathlib.Path | None = attrs.field(
        default=None,
        converter=as_path,
        validator=optional(_of(pathlib.Path, "a path")),
        metadata=option("file with the tickets of nodes that are known, one a line"),
    )
    relay: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_relay_urls,
        metadata=option("URL of a relay through which others reach us, such as https://relay.example/"),
    )
    public_relays: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_texts,
        metadata=option("list of public relays to fall back on where no other relay works, such as n0; default: none"),
    )
    direct: bool = attrs.field(
        default=True,
        validator=is_flag,
        metadata=option("send and take packets directly, not only through relays"),
    )
    port_probing: bool = attrs.field(
        default=True,
        validator=is_flag,
        metadata=option("where nothing else works, try many ports to get through a NAT that maps by destination"),
    )
    lan: bool = attrs.field(
        default=True,
        validator=is_flag,
        metadata=option("offer private addresses to peers, sealed, and probe theirs"),
    )
    public_only: bool = attrs.field(
        default=False,
        validator=is_flag,
        metadata=option("no direct packets but to addresses of the public Internet, whoever names others"),
    )
    addr_allow: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_networks,
        metadata=option("network, such as 10.0.0.0/8, outside of which no direct packets go; default: everywhere"),
    )
    addr_deny: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_networks,
        metadata=option("network into which no direct packets go, even where addr_allow has it"),
    )
    skip_interfaces: tuple[str, ...] = attrs.field(
        default=VIRTUAL_INTERFACES,
        converter=as_tuple,
        validator=_texts,
        metadata=option(
            "network interface, by name or pattern, whose addresses are neither published nor offered; "
            "default: bridges to containers and virtual machines of this computer"
        ),
    )
    watch_network: bool = attrs.field(
        default=True, validator=is_flag, metadata=option("notice by ourselves when the network changes or sleep ends")
    )
    plugins: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=as_tuple,
        validator=optional(_texts),
        metadata=option("installed plugins that may be used, by name or pattern; default: all", cli=False),
    )
    disable_plugins: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_texts,
        metadata=option("plugins that may not be used, by name or pattern", cli=False),
    )
    extra_plugins: tuple[object, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_of(tuple, "a sequence of plugins"),
        metadata=option("plugin objects", program_only=True),
    )
    """Plugins of the application itself: objects, or (name, object) pairs, beside those that are installed."""
    plugin_configs: Mapping[str, Any] = attrs.field(
        factory=dict,
        converter=_configs,
        validator=_of(Mapping, "a mapping"),
        hash=False,
        metadata=option("options of plugins", program_only=True),
    )
    """Instances of the classes that plugins registered, by section name; a missing one means its defaults."""
    connect_timeout: float = attrs.field(
        default=30.0, validator=_seconds, metadata=option("seconds after which a dial is given up")
    )
    # Above 60 s, so that a connection outlives an outage of a minute or a laptop that slept for one.
    idle_timeout: float = attrs.field(
        default=75.0, validator=_seconds, metadata=option("seconds of silence after which a connection is lost")
    )
    keep_alive: float | None = attrs.field(
        default=attrs.Factory(lambda self: _keep_alive_for(self.idle_timeout), takes_self=True),
        validator=_seconds_or_none,
        metadata=option(
            "seconds of silence after which a connection sends a ping, at most a third of idle_timeout unless given; "
            "none: never"
        ),
    )
    early_data_alpns: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_alpns,
        metadata=option("protocols that may use 0-RTT", program_only=True),
    )
    """Only protocols that bear replay (RFC 9001 section 9.2) should be named here."""
    one_connection_alpns: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_alpns,
        metadata=option(
            "protocols of which two nodes that dial each other at once get one connection", program_only=True
        ),
    )
    """For protocols whose two ends are equal: which end dialed says nothing. Both ends name them. Of others, each dial
    makes a connection."""
    max_incoming: int = attrs.field(
        default=256,
        validator=_count,
        metadata=option("incoming connections at most that are not yet accepted; more are refused"),
    )

    @property
    def bind_addrs(self) -> tuple[SocketAddr, ...]:
        """`bind`, read."""
        return tuple(SocketAddr.parse(text) for text in self.bind)

    @property
    def relay_urls(self) -> tuple[RelayUrl, ...]:
        """`relay`, read, each once."""
        return tuple(dict.fromkeys(map(RelayUrl.parse, self.relay)))

    def data_path(self) -> pathlib.Path | None:
        """The directory for what should survive a restart, which may not be there yet; None: nothing is kept."""
        if not self.persist:
            return None
        if self.data_dir is not None:
            return self.data_dir
        import platformdirs  # not needed by those who say where their data go, or keep none

        return platformdirs.user_data_path("tom-connect", appauthor=False)

    @property
    def addr_allow_networks(self) -> tuple[Network, ...]:
        """`addr_allow`, read."""
        return tuple(map(ipaddress.ip_network, self.addr_allow))

    @property
    def addr_deny_networks(self) -> tuple[Network, ...]:
        """`addr_deny`, read."""
        return tuple(map(ipaddress.ip_network, self.addr_deny))

    def __attrs_post_init__(self) -> None:
        if self.public_only and self.allow_local:
            raise ConfigError("public_only: can't be together with allow_local; choose one of them")
        if self.keep_alive is not None and self.keep_alive >= self.idle_timeout:
            raise ConfigError(
                f"keep_alive: {self.keep_alive!r} is not allowed; "
                f"expected less than idle_timeout, which is {self.idle_timeout!r}"
            )
        early = set(self.one_connection_alpns).intersection(self.early_data_alpns)
        if early:
            raise ConfigError(
                f"one_connection_alpns: {min(early)!r} is in early_data_alpns too; choose one, since with 0-RTT "
                "both would have their connection before either hears of the other's"
            )
        if self.secret_key is not None and self.secret_key_file is not None:
            raise ConfigError("secret_key: give either secret_key or secret_key_file, not both")
