"""The options of a command that serves: one for each field of a plugin's configuration class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import click

from tom_connect.config import OptionSpec
from tom_connect.config.schema import section_options
from tom_connect.exceptions import ConfigError

if TYPE_CHECKING:
    from tom_connect.cli.options import Invocation

C = TypeVar("C", bound=attrs.AttrsInstance)
F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class ServerOptions(Generic[C]):
    """The fields of `cls`, which is registered as `section`, as options of one command.

    `left_out`: fields that are none, such as those that all commands share.
    """

    section: str
    cls: type[C]
    left_out: frozenset[str] = frozenset()

    def _specs(self) -> list[OptionSpec]:
        return [spec for spec in section_options(self.section, self.cls) if spec.field not in self.left_out]

    def _parameter(self, spec: OptionSpec) -> str:
        return f"{self.section}_{spec.field}"

    def add(self, function: F) -> F:
        """Decorate a click command's function: it gets each option as SECTION_FIELD, in the order of the fields."""
        for spec in reversed(self._specs()):
            shown = spec.help + (f"; one of {', '.join(spec.type.words)}" if spec.type.words else "")
            text = shown[:1].upper() + shown[1:] + ("; repeatable" if spec.many else "") + "."
            function = click.option(
                _flag(spec), self._parameter(spec), default=None, multiple=spec.many, type=click.UNPROCESSED, help=text
            )(function)
        return function

    def configured(self, base: C, given: Mapping[str, Any], **fields: Any) -> C:
        """`base` with `fields`, and with what the command line gave; raises ConfigError naming the option.

        `given`: the parameters that `add` made, None or () for those that were not given.
        """
        for spec in self._specs():
            value = given.get(self._parameter(spec))
            if value is None or value == ():
                continue
            try:
                fields[spec.field] = spec.from_value(value)
            except ConfigError as exc:
                raise ConfigError(f"{_flag(spec)}: {exc}") from None
        evolve: Callable[..., C] = attrs.evolve  # that the class is one of attrs, its registration has checked
        try:
            return evolve(base, **fields)
        except ConfigError as exc:
            # Its validators know the field; whoever typed an option is told the option.
            field, separator, problem = str(exc).partition(": ")
            typed = next((s for s in self._specs() if s.field == field and given.get(self._parameter(s))), None)
            if typed is None:
                raise
            raise ConfigError(f"{_flag(typed)}{separator}{problem}") from None

    def base(self, run: Invocation) -> C:
        """What file and environment say, defaults for the rest."""
        found = run.config.plugin_configs.get(self.section)
        return found if isinstance(found, self.cls) else self.cls()

    def is_default(self, run: Invocation, field: str) -> bool:
        """Whether neither file nor environment says anything of a field."""
        return bool(run.loaded.entry(f"{self.section}.{field}").origin == "default")


def _flag(spec: OptionSpec) -> str:
    return "--" + spec.field.replace("_", "-")
