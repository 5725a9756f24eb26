"""Options derived from attrs classes: their names in files, environment and command line, and how values are read."""

from __future__ import annotations

import enum
import functools
import pathlib
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union

import attrs

from tom_connect.config.checks import home_expanded
from tom_connect.config.endpoint import EndpointConfig
from tom_connect.config.options import CLI, HELP, PROGRAM_ONLY
from tom_connect.exceptions import ConfigError

ENV_PREFIX = "TOM_CONNECT_"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SHOWN = 200


@attrs.frozen
class ValueType:
    """One type of value. `words`: all that it can be, if that is a list; `read`: from a text or a TOML value.

    `read` raises ValueError, whose text is not shown: `expected` says it all.
    """

    expected: str
    read: Callable[[Any], Any]
    words: tuple[str, ...] = ()
    is_flag: bool = False
    is_text: bool = True
    """Whether TOML writes it as a text; if not, a text is a mistake there, since TOML has a type for it."""


@attrs.frozen
class OptionSpec:
    """One option. `section` is empty for the core's own; `many`: a tuple of values; `optional`: None is allowed."""

    section: str
    field: str
    type: ValueType
    default: Any
    help: str
    many: bool
    optional: bool
    on_cli: bool

    @property
    def name(self) -> str:
        """As in TOML: `bind` or `dht.bootstrap`."""
        return f"{self.section}.{self.field}" if self.section else self.field

    @property
    def env(self) -> str:
        """As in the environment: `TOM_CONNECT_DHT_BOOTSTRAP`."""
        return ENV_PREFIX + self.name.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """As on the command line: `--dht-bootstrap`."""
        return "--" + self.name.replace(".", "-").replace("_", "-")

    @property
    def expected(self) -> str:
        """What is allowed, in words."""
        text = f"a list, each {self.type.expected}" if self.many else self.type.expected
        return f"{text}, or none" if self.optional else text

    def from_text(self, text: str) -> Any:
        """Read what stands in the environment: several values are separated by commas. Raises ConfigError."""
        if self._is_none(text):
            return None
        if not self.many:
            return self._one(text)
        return tuple(self._one(part) for item in text.split(",") if (part := item.strip()))

    def from_toml(self, value: object) -> Any:
        """Read what a TOML file gives: as `from_value`, but a number in quotes is refused. Raises ConfigError."""
        if not self.type.is_text and not self._is_none(value):
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, str):
                    raise ConfigError(f"{_shown(item)} is not allowed; expected {self.expected}, without quotes")
        return self.from_value(value)

    def from_value(self, value: object) -> Any:
        """Read what the command line or a program gives, where a text may be a number. Raises ConfigError."""
        if self._is_none(value):
            return None
        if not self.many:
            return self._one(value)
        if not isinstance(value, (list, tuple)):
            raise self._error(value)
        return tuple(self._one(item) for item in value)

    def _is_none(self, value: object) -> bool:
        if not self.optional:
            return False
        # A text or path may well be called "none".
        return value is None or (isinstance(value, str) and value.lower() == "none" and self.type.expected != "text")

    def _one(self, value: object) -> Any:
        try:
            return self.type.read(value)
        except (ValueError, TypeError, OverflowError):
            raise self._error(value) from None

    def _error(self, value: object) -> ConfigError:
        return ConfigError(f"{_shown(value)} is not allowed; expected {self.expected}")


def _shown(value: object) -> str:
    """A value as a program would write it, cut to what a line of a terminal or two can hold."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes no number of more than some thousand digits
        return "a value too large to be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def endpoint_options() -> tuple[OptionSpec, ...]:
    """The options of EndpointConfig that people may set."""
    return _options_of("", EndpointConfig)


def section_options(section: str, cls: type[Any]) -> tuple[OptionSpec, ...]:
    """The options of a class that a plugin registers; raises ConfigError if it is not fit for that."""
    if not isinstance(cls, type) or not attrs.has(cls):
        raise ConfigError(f"section {section!r}: {cls!r} is not an attrs class")
    return _options_of(section, cls)


@functools.lru_cache(maxsize=256)
def _options_of(section: str, cls: type[Any]) -> tuple[OptionSpec, ...]:
    where = f"section {section!r}: {cls.__name__}"
    for field in attrs.fields(cls):
        if field.init and field.default is attrs.NOTHING:
            raise ConfigError(f"{where}.{field.name} has no default")
    try:
        defaults = cls()
        hints = typing.get_type_hints(cls)
    except Exception as exc:
        raise ConfigError(f"{where}: {type(exc).__name__}: {exc}") from None
    try:
        setattr(defaults, attrs.fields(cls)[0].name if attrs.fields(cls) else "anything", None)
    except attrs.exceptions.FrozenInstanceError:
        pass
    except Exception:
        raise ConfigError(f"{where} is not frozen") from None
    else:
        raise ConfigError(f"{where} is not frozen")
    specs = []
    for field in attrs.fields(cls):
        metadata = field.metadata
        if not field.init or metadata.get(PROGRAM_ONLY, False):
            continue
        optional, many, value_type = _analyse(hints[field.name])
        if value_type is None:
            raise ConfigError(f"{where}.{field.name} has the type {hints[field.name]}, which can't be an option")
        specs.append(
            OptionSpec(
                section=section,
                field=field.alias or field.name,
                type=value_type,
                default=getattr(defaults, field.name),
                help=str(metadata.get(HELP, "")),
                many=many,
                optional=optional,
                on_cli=bool(metadata.get(CLI, True)),
            )
        )
    return tuple(specs)


def _analyse(hint: Any) -> tuple[bool, bool, ValueType | None]:
    optional = False
    if typing.get_origin(hint) in (Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        if len(members) != 1:
            return optional, False, None
        hint = members[0]
    many = typing.get_origin(hint) is tuple
    if many:
        arguments = typing.get_args(hint)
        if len(arguments) != 2 or arguments[1] is not Ellipsis:
            return optional, many, None
        hint = arguments[0]
    return optional, many, _value_type(hint)


def _value_type(hint: Any) -> ValueType | None:
    if typing.get_origin(hint) is Literal:
        return _choice({str(value): value for value in typing.get_args(hint)})
    if not isinstance(hint, type):
        return None
    if hint is bool:
        return ValueType("true or false", _read_bool, is_flag=True, is_text=False)
    if hint is int:
        return ValueType("a whole number", _read_int, is_text=False)
    if hint is float:
        return ValueType("a number", _read_float, is_text=False)
    if hint is str:
        return ValueType("text", _read_str)
    if hint is pathlib.Path:
        return ValueType("a path", _read_path)
    if issubclass(hint, enum.Enum):
        return _choice({_word(member): member for member in hint})
    if callable(getattr(hint, "parse", None)):
        return ValueType(_words_of(hint.__name__), functools.partial(_read_parsed, hint))
    return None


def _word(member: enum.Enum) -> str:
    return member.value if isinstance(member.value, str) else member.name.lower().replace("_", "-")


def _words_of(class_name: str) -> str:
    """`SocketAddr` as `a socket addr`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", class_name).lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _choice(members: dict[str, Any]) -> ValueType:
    def read(value: object) -> Any:
        if isinstance(value, str) and value in members:
            return members[value]
        for member in members.values():
            if value is member or (type(value) is type(member) and value == member):
                return member
        raise ValueError

    return ValueType("one of " + ", ".join(members), read, words=tuple(members))


def _read_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError


def _read_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError
    return int(value)


def _read_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _read_str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _read_path(value: object) -> pathlib.Path:
    if not isinstance(value, (str, pathlib.Path)) or not str(value) or "\0" in str(value):
        raise ValueError
    path = home_expanded(value)
    if str(path).startswith("~"):
        raise ValueError  # nobody has that home
    return path


def _read_parsed(cls: Any, value: object) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, str):
        raise ValueError
    return cls.parse(value)
