"""The options of DNS, section `dns`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable
from typing import Any

import attrs
from attrs.validators import optional

from tom_connect.config import option
from tom_connect.exceptions import ConfigError
from tom_pkarr.dns.servers import NameServer

SECTION = "dns"
MAX_ORIGINS = 4
MAX_SERVERS = 8
# `_iroh.`, 52 letters and a dot go before it, and a name has at most 253 characters (RFC 1035 section 2.3.4).
_ORIGIN = re.compile(r"(?=.{1,190}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?")


def _texts(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else value


def _is_texts(field: attrs.Attribute[Any], value: object, limit: int) -> tuple[str, ...]:
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a sequence of texts")
    if len(value) > limit:
        raise ConfigError(f"{field.name}: {len(value)} are too many; at most {limit} are asked")
    return value


def _origins(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    for text in _is_texts(field, value, MAX_ORIGINS):
        if not _ORIGIN.fullmatch(text):
            raise ConfigError(f"{field.name}: {text!r} is not allowed; expected a domain such as dns.example")


def _servers(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    for text in _is_texts(field, value, MAX_SERVERS):
        try:
            NameServer.parse(text)
        except ConfigError as exc:
            raise ConfigError(f"{field.name}: {exc}") from None


def _path(value: Any) -> Any:
    return pathlib.Path(value).expanduser() if isinstance(value, str) and value else value


def _is_path(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, pathlib.Path):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a path")


def _seconds(low: float, high: float) -> Any:
    def check(_self: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(
                f"{field.name}: {value!r} is not allowed; expected a number of seconds from {low:g} to {high:g}"
            )

    return check


@attrs.frozen(kw_only=True)
class DnsConfig:
    """What a user may say about finding nodes by DNS; raises ConfigError that names the option."""

    origins: tuple[str, ...] = attrs.field(
        default=(),
        converter=_texts,
        validator=_origins,
        metadata=option("domain under which nodes have records, such as dns.iroh.link; default: none"),
    )
    servers: tuple[str, ...] = attrs.field(
        default=(),
        converter=_texts,
        validator=_servers,
        metadata=option(
            "name server to ask: IP[:PORT], tcp://, tls://IP#NAME, https://HOST/dns-query; default: the system's"
        ),
    )
    ca_file: pathlib.Path | None = attrs.field(
        default=None,
        converter=_path,
        validator=optional(_is_path),
        metadata=option("PEM file with authorities that tls:// and https:// servers may have, besides the system's"),
    )
    delay: float = attrs.field(
        default=0.4,
        validator=_seconds(0, 60),
        metadata=option("seconds by which DNS is asked later than the DHT"),
    )
    # Most answers come within 0.1 s; a name server that is silent for longer is not waited for.
    stagger: float = attrs.field(
        default=0.3,
        validator=_seconds(0.01, 10),
        metadata=option("seconds without an answer after which the next name server is asked too"),
    )
    timeout: float = attrs.field(
        default=4.0, validator=_seconds(0.1, 60), metadata=option("seconds that one name server has to answer")
    )

    @property
    def name_servers(self) -> tuple[NameServer, ...]:
        """`servers`, read, each once."""
        return tuple(dict.fromkeys(map(NameServer.parse, self.servers)))
