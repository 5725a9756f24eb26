"""The options of the client, section `signaling`, among them the phase of the transition away from it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import attrs

from tom_connect.config import as_tuple, is_flag, option, seconds_between
from tom_connect.exceptions import ConfigError
from tom_signaling_legacy.core.limits import MAX_USERNAME

SECTION = "signaling"
MAX_SERVERS = 4
"""Servers that we are registered with at once."""
DEPRECATED_PHASE = 3
"""The first phase in which every use is warned of."""
DEPRECATED = (
    "legacy signaling is deprecated: nodes find each other without a server; "
    "see docs/how-to/migrate-from-signaling.md, then 'pip uninstall tom-signaling-legacy'"
)


def _urls(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected a sequence of URLs")
    for text in value:
        try:
            parts = urlsplit(text)
            is_good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            raise ConfigError(f"{field.name}: {text!r} is not allowed; expected ws://HOST:PORT or wss://HOST:PORT")
    if len(value) > MAX_SERVERS:
        raise ConfigError(f"{field.name}: {len(value)} servers are too many; at most {MAX_SERVERS} are used at once")


def _phase(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if value == 4 and not isinstance(value, bool):
        raise ConfigError(f"{field.name}: phase 4 is the package uninstalled: pip uninstall tom-signaling-legacy")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= DEPRECATED_PHASE:
        raise ConfigError(f"{field.name}: {value!r} is not allowed; expected 1, 2 or 3")


def _username(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or len(value) > MAX_USERNAME:
        raise ConfigError(
            f"{field.name}: {value!r} is not allowed; expected a text of at most {MAX_USERNAME} characters"
        )


@attrs.frozen(kw_only=True)
class SignalingConfig:
    """What a user may say about signaling; raises ConfigError that names the option."""

    enabled: bool = attrs.field(
        default=True, validator=is_flag, metadata=option("use the signaling servers that are configured")
    )
    urls: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=_urls,
        metadata=option(
            "signaling server to register with and to ask, such as ws://signaling.example:3001; default: none"
        ),
    )
    username: str = attrs.field(
        default="",
        validator=_username,
        metadata=option("name under which servers list us; default: the begin of our node id"),
    )
    phase: int = attrs.field(
        default=DEPRECATED_PHASE,
        validator=_phase,
        metadata=option("phase of the transition away from signaling: 3 warns of every use, 1 and 2 are silent"),
    )
    timeout: float = attrs.field(
        default=5.0,
        validator=seconds_between(0.1, 60),
        metadata=option("seconds that servers and the node that is looked for have to answer"),
    )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The servers to use, each once; none if it is not enabled."""
        return tuple(dict.fromkeys(self.urls)) if self.enabled else ()

    @property
    def deprecation(self) -> str | None:
        """Why this plugin should go, None in the silent phases."""
        return DEPRECATED if self.phase >= DEPRECATED_PHASE else None


def host_of(url: str) -> str:
    """Host and port of a server, as messages name it."""
    return urlsplit(url).netloc.rpartition("@")[2] or url
