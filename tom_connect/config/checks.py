"""Converters and validators for the fields of configuration classes, the core's and those of plugins.

They go into `attrs.field(converter=..., validator=...)`. Validators raise ConfigError, which names the field.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from tom_connect.exceptions import ConfigError

Validator = Callable[[object, "attrs.Attribute[Any]", object], None]


def refused(field: attrs.Attribute[Any], value: object, expected: str) -> ConfigError:
    """The error for a value that a field can't have. It shows the value: not for secrets."""
    return ConfigError(f"{field.name}: {value!r} is not allowed; expected {expected}")


def as_tuple(value: Any) -> Any:
    """A tuple of any iterable but a text, of which a tuple would hold the letters; all else as it is."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else value


def home_expanded(path: str | pathlib.Path) -> pathlib.Path:
    """A path with its `~` or `~user` expanded; as in a shell it stays as it is where nobody has that home."""
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        return pathlib.Path(path)


def as_path(value: Any) -> Any:
    """The path that a text names, `~` expanded; all else as it is."""
    return home_expanded(value) if isinstance(value, str) and value else value


def is_flag(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    """True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise refused(field, value, "True or False")


def is_path(_self: object, field: attrs.Attribute[Any], value: object) -> None:
    """A path."""
    if not isinstance(value, pathlib.Path):
        raise refused(field, value, "a path")


def whole_number_between(low: int, high: int) -> Validator:
    """A whole number within these bounds, both allowed."""

    def check(_self: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise refused(field, value, f"a whole number from {low} to {high}")

    return check


def number_between(low: float, high: float, what: str) -> Validator:
    """A number within these bounds, both allowed; `what` names it, such as "a number of bytes"."""

    def check(_self: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise refused(field, value, f"{what} from {low:g} to {high:g}")

    return check


def seconds_between(low: float, high: float) -> Validator:
    """A number of seconds within these bounds, both allowed."""
    return number_between(low, high, "a number of seconds")
