"""The options of the plugin, section `portmap`."""

from __future__ import annotations

from typing import Any

import attrs

from tom_connect.config import as_tuple, is_flag, option
from tom_connect.exceptions import ConfigError
from tom_portmap.core.eligible import PROTOCOLS, Protocol

SECTION = "portmap"
SHORTEST, LONGEST = 120, 86_400
"""Seconds: what RFC 6887 section 15 suggests to servers as the bounds of a lifetime."""


def _protocols(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not value or any(word not in PROTOCOLS for word in value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected some of {', '.join(PROTOCOLS)}")
    if len(set(value)) != len(value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected each protocol once")


def _lifetime(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not SHORTEST <= value <= LONGEST:
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a number from {SHORTEST} to {LONGEST}")


@attrs.frozen(kw_only=True)
class PortmapConfig:
    """What a user may say about port mappings; raises ConfigError that names the option."""

    enabled: bool = attrs.field(
        default=True, validator=is_flag, metadata=option("ask the router to let others reach our port")
    )
    protocols: tuple[Protocol, ...] = attrs.field(
        default=PROTOCOLS,
        converter=as_tuple,
        validator=_protocols,
        metadata=option("protocols by which the router is asked"),
    )
    lifetime: int = attrs.field(
        default=7200,
        validator=_lifetime,
        metadata=option("seconds that the port stays open if this program ends without closing it"),
    )
