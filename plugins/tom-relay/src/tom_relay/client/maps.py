"""Relay maps: which relays there are, as data."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from tom_connect.addr import RelayUrl
from tom_connect.exceptions import ConfigError, InvalidAddrError
from tom_relay.client.standing import MAX_SCORE, UNKNOWN, Standing

MAX_MAP_BYTES = 1 << 20
MAX_RELAYS = 64
"""Relays of one map that are used; all of them are measured, which costs a connection each."""

PUBLIC_RELAYS: Mapping[str, tuple[str, ...]] = {
    # The relays that iroh 1.2.0 uses by default, run by number 0 (iroh/src/defaults.rs, module prod).
    "n0": (
        "https://use1-1.relay.n0.iroh.link./",
        "https://usw1-1.relay.n0.iroh.link./",
        "https://euc1-1.relay.n0.iroh.link./",
        "https://aps1-1.relay.n0.iroh.link./",
    ),
}


@attrs.frozen
class RelayEntry:
    """A relay of a map. `kind`: "configured" or "public"."""

    url: RelayUrl
    kind: str = "configured"
    standing: Standing = UNKNOWN


def public_relays(names: Iterable[str]) -> list[RelayEntry]:
    """The relays of public lists; raises ConfigError for a list that does not exist."""
    entries: list[RelayEntry] = []
    for name in names:
        if name not in PUBLIC_RELAYS:
            known = ", ".join(PUBLIC_RELAYS)
            raise ConfigError(f"public_relays: {name!r} is not allowed; expected one of {known}")
        entries += [RelayEntry(RelayUrl.parse(url), "public") for url in PUBLIC_RELAYS[name]]
    return entries


def read_map(path: pathlib.Path) -> list[RelayEntry]:
    """The relays of a file; raises ConfigError that says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MAP_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"relay map {path}: {exc.strerror or exc}") from None
    if len(data) > MAX_MAP_BYTES:
        raise ConfigError(f"relay map {path}: larger than {MAX_MAP_BYTES} bytes")
    try:
        return parse_map(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"relay map {path}: not UTF-8 text") from None
    except ConfigError as exc:
        raise ConfigError(f"relay map {path}: {exc}") from None


def parse_map(text: str) -> list[RelayEntry]:
    """Read a relay map; raises ConfigError.

    Either one URL a line (what follows `#` is a comment), or JSON: a list, or an object with a list `relays`, of URLs
    or of objects with `url` and, if known, `score` and `role`.
    """
    if text.lstrip()[:1] in ("[", "{"):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"not JSON: {exc}") from None
        if isinstance(values, dict):
            values = values.get("relays")
        if not isinstance(values, list):
            raise ConfigError("expected a list, or an object with a list named relays")
    else:
        values = [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
    if len(values) > MAX_RELAYS:
        raise ConfigError(f"{len(values)} relays; at most {MAX_RELAYS} are taken")
    entries = [_entry(value) for value in values]
    return list({entry.url: entry for entry in entries}.values())


def _entry(value: Any) -> RelayEntry:
    fields = value if isinstance(value, dict) else {"url": value}
    url, score, role = fields.get("url"), fields.get("score", UNKNOWN.score), fields.get("role", UNKNOWN.role)
    if not isinstance(url, str):
        raise ConfigError(f"expected the URL of a relay, got {str(value)[:80]!r}")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not -MAX_SCORE <= score <= MAX_SCORE:
        raise ConfigError(f"the score of {url[:80]} is not a number")
    if role not in ("relay", "peer"):
        raise ConfigError(f"the role of {url[:80]} is neither relay nor peer")
    try:
        return RelayEntry(RelayUrl.parse(url), standing=Standing(float(score), role))
    except InvalidAddrError as exc:
        raise ConfigError(str(exc)) from None
