"""What plugins register before an endpoint exists: options and commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tom_connect.config.schema import OptionSpec, endpoint_options, section_options
from tom_connect.exceptions import ConfigError, PluginError

if TYPE_CHECKING:
    import click

C = TypeVar("C", bound=type[Any])

# A section becomes a TOML table, part of an environment name and of an option.
_SECTION = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class ConfigRegistry:
    """Takes the options of one plugin."""

    def __init__(self, taken: frozenset[str] = frozenset(), *, commands: bool = True) -> None:
        """`taken`: environment names that the core or other plugins use already; `commands`: whether there are any."""
        self._taken = taken
        self._commands = commands
        self._load: Callable[[], type[Any]] | None = None
        self.section: str | None = None
        self.cls: type[Any] | None = None
        self.options: tuple[OptionSpec, ...] = ()

    def register(self, section: str, cls: C) -> C:
        """Register a frozen attrs class, each field of which has a default; returns the class.

        Section `dht` gives the TOML table `[dht]`, and field `bootstrap` of it `TOM_CONNECT_DHT_BOOTSTRAP` and
        `--dht-bootstrap`. Fields are of type str, int, float, bool, Path, an enum, a Literal, a class with a
        classmethod `parse(text)`, an optional one of these, or a tuple of them (`tuple[str, ...]`); metadata
        `{"help": "..."}` (or `tom_connect.config.option`) describe them. A plugin registers one class. A property
        `deprecation` of it, a text or None, says why the plugin should go; `tom-connect plugins` shows it.
        Raises PluginError if that can't be.
        """
        self._check_section(section)
        try:
            options = section_options(section, cls)
        except ConfigError as exc:
            raise PluginError(str(exc)) from None
        for spec in options:
            if spec.env in self._taken:
                raise PluginError(f"option {spec.name} would be {spec.env}, which means something else already")
        self.section, self.cls, self.options = section, cls, options
        return cls

    def register_for_commands(self, section: str, load: Callable[[], type[Any]]) -> None:
        """As `register`, for options that the plugin's commands alone read; `load()` imports the class and returns it.

        An endpoint does without, unless it is given an instance, and is bound sooner for that; `ctx.config` is None.
        """
        if self._commands:
            self.register(section, load())
        else:
            self._check_section(section)
            self.section, self._load = section, load

    def complete(self) -> None:
        """Load the class that was left out, if there is one; raises what `register` and loading it do."""
        if self._load is not None and self.section is not None:
            section, load = self.section, self._load
            self.section = self._load = None
            self.register(section, load())

    def _check_section(self, section: str) -> None:
        if self.section is not None:
            raise PluginError(f"registers a second configuration section, {section!r}, after {self.section!r}")
        if not _SECTION.fullmatch(section):
            raise PluginError(f"{section!r} can't be a configuration section: use lower-case words joined by '_'")


def core_env_names() -> frozenset[str]:
    """The environment names that the core uses."""
    own = {"TOM_CONNECT_CONFIG", "TOM_CONNECT_LOG_LEVEL", "TOM_CONNECT_JSON", "TOM_CONNECT_BOOTSTRAP"}
    return frozenset({spec.env for spec in endpoint_options()} | own)


class CliRegistry:
    """Takes the commands of one plugin."""

    def __init__(self, owner_of: Callable[[str], str | None]) -> None:
        """`owner_of`: who has a command name already, such as "tom-connect" or another plugin; None: nobody."""
        self._owner_of = owner_of
        self.commands: dict[str, click.Command] = {}

    def add(self, command: click.Command, name: str | None = None) -> None:
        """Add a click command or group as `tom-connect NAME`; raises PluginError if the name is taken or missing."""
        name = name or getattr(command, "name", None)
        if not name or not callable(getattr(command, "make_context", None)):
            raise PluginError(f"{command!r} is not a click command with a name")
        owner = "it" if name in self.commands else self._owner_of(name)
        if owner:
            raise PluginError(f"command {name!r} exists already; {owner} brings it")
        self.commands[name] = command
