"""Values of JSON as the types that attrs classes say; what does not fit is refused with its place."""

from __future__ import annotations

import functools
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, cast

import attrs

T = TypeVar("T")


class MistypedError(ValueError):
    """A value is not of the type that its field has; the message says where."""


def typed(cls: type[T], value: object, where: str) -> T:
    """An object of an attrs class from a JSON object; raises MistypedError. `where` names it in messages.

    Fields may be str, int, float, bool, Literal, other attrs classes, `tuple[X, ...]`, `dict[str, X]`, `X | None` or
    Any. A validator's ValueError becomes MistypedError too.
    """
    if not isinstance(value, dict):
        raise MistypedError(f"{where}: expected an object")
    fields = {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            raise MistypedError(f"{where}: unknown field {name[:40]!r}")
    for name, field in fields.items():
        if name not in value and field.default is attrs.NOTHING:
            raise MistypedError(f"{where}: the field {name!r} is missing")
    hints = _hints(cast(Any, cls))
    found = {name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return cls(**found)
    except MistypedError:
        raise
    except ValueError as exc:
        raise MistypedError(f"{where}: {exc}") from None


@functools.lru_cache(maxsize=64)
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if attrs.has(hint):
        return typed(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _read(hint, value, where)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise MistypedError(f"{where}: {str(value)[:40]!r} is not allowed there")
