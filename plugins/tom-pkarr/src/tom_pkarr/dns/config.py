"""The options of DNS, section `dns`."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import attrs
from attrs.validators import optional

from tom_connect.config import as_path, as_tuple, is_path, option, seconds_between
from tom_connect.exceptions import ConfigError
from tom_pkarr.dns.servers import NameServer

SECTION = "dns"
MAX_ORIGINS = 4
MAX_SERVERS = 8
# `_iroh.`, 52 letters and a dot go before it, and a name has at most 253 characters (RFC 1035 section 2.3.4).
_ORIGIN = re.compile(r"(?=.{1,190}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?")


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


@attrs.frozen(kw_only=True)
class DnsConfig:
    """What a user may say about finding nodes by DNS; raises ConfigError that names the option."""

    origins: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_origins,
        metadata=option("domain under which nodes have records, such as dns.iroh.link; default: none"),
    )
    servers: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_servers,
        metadata=option(
            "name server to ask: IP[:PORT], tcp://, tls://IP#NAME, https://HOST/dns-query; default: the system's"
        ),
    )
    ca_file: pathlib.Path | None = attrs.field(
        default=None,
        converter=as_path,
        validator=optional(is_path),
        metadata=option("PEM file with authorities that tls:// and https:// servers may have, besides the system's"),
    )
    delay: float = attrs.field(
        default=0.4,
        validator=seconds_between(0, 60),
        metadata=option("seconds by which DNS is asked later than the DHT"),
    )
    # Most answers come within 0.1 s; a name server that is silent for longer is not waited for.
    stagger: float = attrs.field(
        default=0.3,
        validator=seconds_between(0.01, 10),
        metadata=option("seconds without an answer after which the next name server is asked too"),
    )
    timeout: float = attrs.field(
        default=4.0, validator=seconds_between(0.1, 60), metadata=option("seconds that one name server has to answer")
    )

    @property
    def name_servers(self) -> tuple[NameServer, ...]:
        """`servers`, read, each once."""
        return tuple(dict.fromkeys(map(NameServer.parse, self.servers)))
