"""Options and commands that plugins register."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from typing import Any

import attrs
import click
import pytest

from tests.unit.plugins.fakes import Module, Plugin, hook, installed, load, no_context, reason, states
from tom_connect import EndpointConfig
from tom_connect.exceptions import ConfigError
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry, PluginHost


@attrs.frozen
class Good:
    size: int = 1


@attrs.define
class NotFrozen:
    size: int = 1


@attrs.define
class NotFrozenButStrict:
    size: int = attrs.field(default=1, validator=attrs.validators.instance_of(int))


@attrs.frozen
class NoDefault:
    size: int


@attrs.frozen
class OddType:
    size: dict[str, int] = attrs.Factory(dict)


@attrs.frozen
class FixedTuple:
    size: tuple[int, int] = (1, 2)


@attrs.frozen
class Unknowable:
    size: Nowhere = None  # type: ignore[name-defined]  # noqa: F821


@attrs.frozen
class BadDefault:
    size: int = attrs.field(default=-1, validator=attrs.validators.gt(0))


@attrs.frozen
class Only:
    only: bool = False


class Plain:
    size: int = 1


def registering(section: str, cls: Any, *more: Any) -> object:
    def tom_register_config(registry: ConfigRegistry) -> None:
        registry.register(section, cls)
        for other in more:
            registry.register(*other)

    return Module(tom_register_config=hookimpl(tom_register_config), tom_discovery=hookimpl(lambda ctx: None))


@pytest.mark.parametrize(
    ("section", "cls", "words"),
    [
        ("good", NotFrozen, "is not frozen"),
        ("good", NotFrozenButStrict, "is not frozen"),
        ("good", NoDefault, "NoDefault.size has no default"),
        ("good", OddType, "which can't be an option"),
        ("good", FixedTuple, "which can't be an option"),
        ("good", Unknowable, "NameError"),
        ("good", BadDefault, "ValueError"),
        ("good", Plain, "is not an attrs class"),
        ("good", Good(), "is not an attrs class"),
        ("Good", Good, "can't be a configuration section"),
        ("go od", Good, "can't be a configuration section"),
        ("dht", Only, "would be TOM_CONNECT_DHT_ONLY, which means something else already"),
    ],
)
def test_unfit_options(section: str, cls: Any, words: str) -> None:
    """A class from which no options can be derived fails its plugin, with the reason, and no other plugin."""
    host = load(installed("bad", registering(section, cls)), installed("good", registering("fine", Good)))
    assert states(host) == {"bad": "failed", "good": "loaded"}
    assert words in reason(host, "bad")
    assert host.config_classes == {"fine": Good}
    assert host.unavailable == ["bad"]
    assert [name for name, _ in host.collect("tom_discovery", no_context)] == []


def test_second_section() -> None:
    """A plugin has one section, which is its `ctx.config`."""
    host = load(installed("p", registering("one", Good, ("two", Good))))
    assert "registers a second configuration section, 'two', after 'one'" in reason(host, "p")
    assert host.config_classes == {}


def test_section_of_two_plugins() -> None:
    """A section that another plugin has is refused to the second."""
    host = load(installed("a", registering("same", Good)), installed("b", registering("same", Good)))
    assert states(host) == {"a": "loaded", "b": "failed"}


def for_commands(section: str, cls: Any, loaded: list[str]) -> object:
    def loading() -> Any:
        loaded.append(section)
        if isinstance(cls, Exception):
            raise cls
        return cls

    def tom_register_config(registry: ConfigRegistry) -> None:
        registry.register_for_commands(section, loading)

    return Module(tom_register_config=hookimpl(tom_register_config), tom_discovery=hookimpl(lambda ctx: None))


def test_options_for_commands_are_loaded_where_there_are_commands() -> None:
    """The command line knows them as any others; an endpoint does without, and the plugin's hooks are called there."""
    loaded: list[str] = []
    plugins = (installed("a", for_commands("served", Good, loaded)), installed("b", registering("fine", Good)))
    assert load(*plugins).config_classes == {"served": Good, "fine": Good}
    assert loaded == ["served"]
    host = load(*plugins, commands=False)
    assert loaded == ["served"]
    assert states(host) == {"a": "loaded", "b": "loaded"} and host.config_classes == {"fine": Good}
    assert host.plugin_configs() == {"b": Good()}


def test_options_for_commands_that_an_application_gives_are_checked() -> None:
    """An endpoint that is given an instance loads the class, refuses another's, and leaves out who has none."""
    loaded: list[str] = []
    good, bad = Good(), ImportError("no such module")
    given = EndpointConfig(plugin_configs={"served": good})
    host = load(installed("a", for_commands("served", Good, loaded)), config=given, commands=False)
    assert loaded == ["served"] and host.plugin_configs() == {"a": good}
    with pytest.raises(ConfigError, match="expected a Only"):
        load(installed("a", for_commands("served", Only, loaded)), config=given, commands=False)
    host = load(installed("a", for_commands("served", bad, loaded)), config=given, commands=False)
    assert states(host) == {"a": "failed"} and "no such module" in reason(host, "a")
    assert host.collect("tom_discovery", no_context) == []


@pytest.mark.parametrize("section", ["Good", "go od"])
def test_sections_for_commands_have_names_as_all_have(section: str) -> None:
    """A name that can't be one fails its plugin in an endpoint too."""
    host = load(installed("bad", for_commands(section, Good, [])), commands=False)
    assert states(host) == {"bad": "failed"} and "can't be a configuration section" in reason(host, "bad")


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Everything:
    a: int = 1
    b: float = 1.5
    c: bool = False
    d: str = "x"
    e: pathlib.Path | None = None
    f: tuple[str, ...] = ()
    g: Colour = Colour.RED


def test_every_type() -> None:
    """All types of options that are promised can be registered."""
    registry = ConfigRegistry()
    assert registry.register("all", Everything) is Everything
    assert [spec.name for spec in registry.options] == [f"all.{letter}" for letter in "abcdefg"]


def commands(*names: str, fail: bool = False) -> object:
    def tom_cli_commands(cli: CliRegistry) -> None:
        for name in names:
            cli.add(click.Command(name))
        if fail:
            raise RuntimeError("broken")

    return hook("tom_cli_commands", tom_cli_commands)


def added(host: PluginHost) -> dict[str, str]:
    return {name: plugin for name, (plugin, _) in host.commands(reserved=("listen",)).items()}


def test_commands() -> None:
    """Plugins add commands; one whose name is taken by the core or an earlier plugin fails, and adds none."""
    host = load(
        installed("a", commands("one", "two")),
        installed("b", commands("three", "two")),
        installed("c", commands("listen")),
        installed("d", commands("four", fail=True)),
        installed("e", commands("five")),
        installed("f", Plugin()),
    )
    assert added(host) == {"one": "a", "two": "a", "five": "e"}
    assert "command 'two' exists already; plugin a brings it" in reason(host, "b")
    assert "command 'listen' exists already; tom-connect brings it" in reason(host, "c")
    assert "RuntimeError: broken" in reason(host, "d")


@pytest.mark.parametrize(
    "what",
    [lambda: "text", lambda: click.Command(None), lambda: len, lambda: None],
    ids=["text", "unnamed", "len", "none"],
)
def test_what_is_no_command(what: Callable[[], Any]) -> None:
    """Only click commands with a name can be added."""
    host = load(installed("p", hook("tom_cli_commands", lambda cli: cli.add(what()))))
    assert added(host) == {}
    assert "is not a click command with a name" in reason(host, "p")
