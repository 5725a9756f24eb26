"""The options of the client, section `relay_client`."""

from __future__ import annotations

import pathlib
from typing import Any, Final, Literal

import attrs
from attrs.validators import optional

from tom_connect.config import as_path, is_path, option, refused
from tom_connect.exceptions import ConfigError

SCHEMES: Final = {"http": "ws", "https": "wss"}
"""Schemes of relay URLs, and what they are as WebSockets."""
SCHEME: Final = "tom"
"""The scheme of relays that are nodes, reached over QUIC."""
SECTION = "relay_client"


def _token(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        # A secret is not shown.
        raise ConfigError(f"{field.name}: not allowed; expected printable ASCII text")


def _proxy(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value != "none" and (not isinstance(value, str) or not value.startswith(("http://", "https://"))):
        raise ConfigError(f"{field.name}: not allowed; expected http://[USER:PASSWORD@]HOST:PORT, or none")


def _volunteers(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value not in ("auto", "always", "off"):
        raise refused(field, value, "auto, always or off")


@attrs.frozen(kw_only=True)
class RelayClientConfig:
    """What a user may say about how relays are reached; raises ConfigError that names the option."""

    volunteers: Literal["auto", "always", "off"] = attrs.field(
        default="auto",
        validator=_volunteers,
        metadata=option(
            "relays that other nodes run, found through the DHT, where no relay is configured; auto: unless strangers "
            "reach us anyway"
        ),
    )
    map: pathlib.Path | None = attrs.field(
        default=None,
        converter=as_path,
        validator=optional(is_path),
        metadata=option("file with further relays: one URL a line, or the JSON that a relay gives at /relays"),
    )
    token: str | None = attrs.field(
        default=None,
        validator=optional(_token),
        repr=False,
        metadata=option("token that the relays we are configured for ask for"),
    )
    ca_file: pathlib.Path | None = attrs.field(
        default=None,
        converter=as_path,
        validator=optional(is_path),
        metadata=option("PEM file with certificates of authorities to trust besides the system's"),
    )
    proxy: str | None = attrs.field(
        default=None,
        validator=optional(_proxy),
        repr=False,
        metadata=option("HTTP proxy to go through; default: what the environment says; none: no proxy"),
    )
