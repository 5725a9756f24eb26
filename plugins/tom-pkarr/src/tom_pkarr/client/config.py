"""The options of the client, section `pkarr`."""

from __future__ import annotations

from typing import Any

import attrs

from tom_connect.addr import RelayUrl
from tom_connect.config import as_tuple, is_flag, option, seconds_between
from tom_connect.exceptions import ConfigError, InvalidAddrError

SECTION = "pkarr"
MAX_RELAYS = 8
"""Relays that are asked at once: more would be traffic without another chance."""


def _relays(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a sequence of URLs")
    for text in value:
        try:
            url = RelayUrl.parse(text)
        except InvalidAddrError as exc:
            raise ConfigError(f"{field.name}: {str(exc).replace('relay URL', 'Pkarr relay URL')}") from None
        if url.scheme not in ("http", "https"):
            raise ConfigError(f"{field.name}: {text!r} is not allowed; expected https:// or http://")
    if len(value) > MAX_RELAYS:
        raise ConfigError(f"{field.name}: {len(value)} relays are too many; at most {MAX_RELAYS} are asked at once")


@attrs.frozen(kw_only=True)
class PkarrConfig:
    """What a user may say about Pkarr relays; raises ConfigError that names the option."""

    relays: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_relays,
        metadata=option("Pkarr relay to ask and to publish to, such as https://pkarr.example/; default: none"),
    )
    publish: bool = attrs.field(
        default=True, validator=is_flag, metadata=option("publish our address to the relays, not only ask them")
    )
    # A DHT that knows a record mostly gives it within this time; whoever needs no relay then troubles none.
    delay: float = attrs.field(
        default=0.4,
        validator=seconds_between(0, 60),
        metadata=option("seconds by which the relays are asked later than the DHT"),
    )
    timeout: float = attrs.field(
        default=5.0, validator=seconds_between(0.1, 60), metadata=option("seconds that a relay has to answer")
    )
    # Relays drop what is not renewed for a day or, where they keep it in the DHT, for two hours.
    republish: float = attrs.field(
        default=3000.0,
        validator=seconds_between(60, 86_400),
        metadata=option("seconds after which our unchanged address is published again"),
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """`relays`, in normal form without a slash at the end, each once."""
        return tuple(dict.fromkeys(str(RelayUrl.parse(text)).rstrip("/") for text in self.relays))
