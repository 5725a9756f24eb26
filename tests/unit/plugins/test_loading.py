"""Which plugins are let in, and what is said of the others."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.fakes import (
    Found,
    Module,
    Plugin,
    hook,
    installed,
    load,
    no_context,
    reason,
    states,
)
from tom_connect.config import EndpointConfig
from tom_connect.hookspecs import TomHookSpecs, hookimpl
from tom_connect.plugins import API_VERSION, PluginCatalog, PluginHost, PluginState
from tom_connect.plugins.catalog import scan_entry_points
from tom_connect.plugins.checks import hook_arguments


def test_good_plugin() -> None:
    """A good plugin is loaded and shown with its package, version and hooks."""
    (info,) = load(installed("good", Plugin())).infos
    assert (info.name, info.package, info.version) == ("good", "pkg", "1.0")
    assert (info.hooks, info.state, info.reason) == (("tom_discovery",), PluginState.LOADED, "")


@pytest.mark.parametrize("error", [ImportError("no module x"), RuntimeError("boom"), SyntaxError("bad"), SystemExit(3)])
def test_broken_import(error: BaseException) -> None:
    """A plugin whose import raises anything is reported with the reason, and the others are loaded."""
    host = load(installed("a", Plugin()), installed("b", error), installed("c", Plugin()))
    assert states(host) == {"a": "loaded", "b": "failed", "c": "loaded"}
    assert type(error).__name__ in reason(host, "b")
    assert "\n" not in reason(host, "b")


def test_interrupt_is_not_swallowed() -> None:
    """Ctrl-C during an import ends the program instead of counting as the plugin's failure."""
    with pytest.raises(KeyboardInterrupt):
        load(installed("a", KeyboardInterrupt()))


MAJOR, MINOR = API_VERSION


@pytest.mark.parametrize(
    ("declared", "state", "words"),
    [
        (API_VERSION, "loaded", ""),
        ((MAJOR, MINOR + 1), "incompatible", "too new: written for plugin API 1.2, this core has 1.1"),
        ((MAJOR + 1, 0), "incompatible", "too new: written for plugin API 2.0"),
        ((MAJOR - 1, 9), "incompatible", "too old: written for plugin API 0.9, this core serves 1.0"),
        ("1.0", "incompatible", "expected two numbers"),
        ((1,), "incompatible", "expected two numbers"),
        ((True, False), "incompatible", "expected two numbers"),
        (None, "incompatible", "declares no plugin API version"),
        (((MAJOR - 1, 3), API_VERSION), "loaded", ""),
        ((API_VERSION, (MAJOR + 3, 0)), "loaded", ""),
        (((MAJOR, MINOR + 1), (MAJOR + 3, 0)), "incompatible", f"too new: written for plugin API {MAJOR}.{MINOR + 1}"),
        (((MAJOR - 1, 0), (MAJOR - 1, 4)), "incompatible", f"too old: written for plugin API {MAJOR - 1}.4, this core"),
        (((MAJOR + 1, 0), API_VERSION), "incompatible", "or two such versions"),
        ((API_VERSION, 2), "incompatible", "expected two numbers"),
    ],
)
def test_api_versions(declared: object, state: str, words: str) -> None:
    """A plugin of another API version is left out, and the reason says which way and what to do."""
    plugin = Plugin()
    plugin.TOM_CONNECT_API = declared
    host = load(installed("p", plugin))
    assert states(host) == {"p": state}
    assert words in host.infos[0].reason


@pytest.mark.parametrize(
    ("declared", "shown"),
    [((1, 0), "1.0"), (((1, 0), (2, 3)), "1.0 to 2.3"), ((9, 0), "9.0"), (None, ""), ("1.0", ""), (((1, 0),), "")],
)
def test_the_declared_api_is_shown(declared: object, shown: str) -> None:
    """What a plugin says of its API is known of it, also where that is why it is left out."""
    plugin = Plugin()
    plugin.TOM_CONNECT_API = declared
    assert load(installed("p", plugin)).infos[0].api == shown


def test_application_needs_no_api_version() -> None:
    """An application's own plugin need not say for which API it was written, but a wrong one is refused."""
    plain = hook("tom_discovery", lambda ctx: None)
    del plain.TOM_CONNECT_API  # type: ignore[attr-defined]
    wrong = Plugin()
    wrong.TOM_CONNECT_API = (9, 0)
    host = load(config=EndpointConfig(extra_plugins=(("plain", plain), ("wrong", wrong))))
    assert states(host) == {"plain": "loaded", "wrong": "incompatible"}


def _unmarked(ctx: Any) -> None:
    return None


async def _coroutine(ctx: Any) -> None:
    return None


async def _generator(ctx: Any) -> Any:
    yield None


def _variadic(*ctx: Any) -> None:
    return None


def _keyword_only(*, ctx: Any) -> None:
    return None


def _defaulted(ctx: Any = None) -> None:
    return None


def _wrapper(ctx: Any) -> Any:
    return (yield)


class Unhashable(Plugin):
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (hook("tom_discovry", lambda ctx: None), "unknown hook tom_discovry; did you mean tom_discovery?"),
        (hook("tom_zzzzzz", lambda ctx: None), "unknown hook tom_zzzzzz"),
        (hook("tom_discovery", lambda endpoint: None), "unknown argument 'endpoint'; known: ctx"),
        (hook("tom_discovery", lambda ctx, more: None), "unknown argument 'more'; known: ctx"),
        (hook("tom_discovery", _coroutine), "tom_discovery is async"),
        (hook("tom_discovery", _generator), "tom_discovery is async"),
        (hook("tom_discovery", _variadic), "takes *ctx"),
        (hook("tom_discovery", _keyword_only), "would never be given 'ctx'"),
        (hook("tom_discovery", _defaulted), "would never be given 'ctx'"),
        (Module(tom_discovery=_unmarked), "tom_discovery is not marked; put @hookimpl"),
        (Module(tom_discovery=hookimpl(_wrapper, wrapper=True)), "tom_discovery is a wrapper"),
        (Module(), "implements no hook"),
        (Plugin, "is the class Plugin"),
        (Unhashable(), "has no hash"),
    ],
)
def test_validation(plugin: object, words: str) -> None:
    """A plugin whose hooks can't be called is left out with the reason, and the others are loaded."""
    host = load(installed("bad", plugin), installed("good", Plugin()))
    assert states(host) == {"bad": "failed", "good": "loaded"}
    assert words in reason(host, "bad")


def test_fewer_arguments_and_optional_hooks() -> None:
    """A plugin may take fewer arguments, and mark hooks of a later core as optional."""
    plugin = Module(
        tom_discovery=hookimpl(lambda: Found()), tom_of_tomorrow=hookimpl(lambda anything: None, optionalhook=True)
    )
    host = load(installed("p", plugin))
    assert states(host) == {"p": "loaded"}
    assert [name for name, _ in host.collect("tom_discovery", no_context)] == ["p"]


def test_hook_arguments_are_those_of_the_specs() -> None:
    """What plugins are checked against is every hook with its documented arguments."""
    specs = {name for name in vars(TomHookSpecs) if not name.startswith("_")}
    assert set(hook_arguments()) == specs
    assert hook_arguments()["tom_register_config"] == ("registry",)
    assert hook_arguments()["tom_discovery"] == ("ctx",)


def test_duplicate_names() -> None:
    """Of two plugins of one name, the first package's is used, and the other says whose took it."""
    host = load(installed("a", Plugin(), "alpha", "2.0"), installed("a", Plugin(), "beta"))
    assert [(info.package, str(info.state)) for info in host.infos] == [("alpha", "loaded"), ("beta", "duplicate")]
    assert "taken by the plugin of alpha 2.0" in host.infos[1].reason


def test_same_object_twice() -> None:
    """One object under two names is used once."""
    plugin = Plugin()
    host = load(installed("a", plugin), installed("b", plugin))
    assert states(host) == {"a": "loaded", "b": "duplicate"}


def test_application_plugin_replaces_an_installed_one() -> None:
    """A plugin that the application gives takes the place of an installed one of the same name."""
    host = load(installed("a", Plugin()), config=EndpointConfig(extra_plugins=(("a", Plugin()),)))
    assert [(info.package, str(info.state)) for info in host.infos] == [(None, "loaded"), ("pkg", "duplicate")]


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", "a,b", "x" * 65, "\u00e9"])
def test_names_that_are_no_names(name: str) -> None:
    """A name that could not be a directory, logger or list item is refused."""
    assert states(load(installed(name, Plugin()))) == {name: "failed"}


@pytest.mark.parametrize(
    ("config", "environ", "blocked", "words"),
    [
        ({}, {"TOM_CONNECT_PLUGINS": "a, c"}, {"b"}, "not among those allowed by TOM_CONNECT_PLUGINS"),
        ({}, {"TOM_CONNECT_DISABLE_PLUGINS": "b"}, {"b"}, "blocked by TOM_CONNECT_DISABLE_PLUGINS"),
        ({}, {"TOM_CONNECT_DISABLE_PLUGINS": "*"}, {"a", "b", "c"}, "blocked by"),
        ({}, {"TOM_CONNECT_PLUGINS": " "}, set(), ""),
        ({"plugins": ()}, {}, {"a", "b", "c"}, "not among those allowed by the option plugins"),
        ({"plugins": ("B",)}, {}, {"a", "c"}, "not among those allowed by the option plugins"),
        ({"disable_plugins": ("b",)}, {}, {"b"}, "blocked by the option disable_plugins"),
        ({"plugins": ("a", "b")}, {"TOM_CONNECT_PLUGINS": "b,c"}, {"a", "c"}, "allowed by"),
        ({"disable_plugins": ("pkg-b",)}, {}, {"b"}, "blocked by"),
    ],
)
def test_allow_and_block(config: dict[str, Any], environ: dict[str, str], blocked: set[str], words: str) -> None:
    """Allow and block lists of configuration and environment all hold, and a blocked plugin is not imported."""
    imported: list[str] = []

    def plugin(name: str) -> Any:
        entry = installed(name, Plugin(), f"pkg-{name}")

        def import_it() -> object:
            imported.append(name)
            return entry.load()

        return type(entry)(entry.name, entry.package, entry.version, import_it)

    host = load(plugin("a"), plugin("b"), plugin("c"), config=EndpointConfig(**config), environ=environ)
    assert {name for name, state in states(host).items() if state == "blocked"} == blocked
    assert {"a", "b", "c"} - blocked == set(imported)
    assert all(words in info.reason for info in host.infos if info.name in blocked)


def test_application_plugins_can_be_blocked_but_need_no_allowing() -> None:
    """An allow list is about what is installed; a block list about all."""
    config = EndpointConfig(extra_plugins=(("mine", Plugin()), ("other", Plugin())), plugins=())
    host = load(config=config, environ={"TOM_CONNECT_DISABLE_PLUGINS": "other", "TOM_CONNECT_PLUGINS": "x"})
    assert states(host) == {"mine": "loaded", "other": "blocked"}


def test_slip_in_a_list_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A list that names no installed plugin says so, with what was perhaps meant."""
    with caplog.at_level(logging.INFO, "tom_connect.plugins"):
        load(installed("campaign", Plugin()), environ={"TOM_CONNECT_DISABLE_PLUGINS": "campain"})
    assert "names 'campain', which is not installed; did you mean campaign?" in caplog.text


def test_a_wanted_plugin_that_is_not_installed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each list that names it is said, with what was perhaps meant; the next endpoints of the process say nothing."""
    catalog = PluginCatalog(lambda: [installed("campaign", Plugin(), package="tom-campaign")])
    config = EndpointConfig(plugins=("dht", "tom-camp*"), extra_plugins=(("mine", Plugin()),))
    for _ in range(3):
        host = PluginHost.load(config, catalog=catalog, environ={"TOM_CONNECT_PLUGINS": "campain, tom-*,mine"})
        assert [(info.name, str(info.state), info.reason) for info in host.missing] == [
            ("campain", "missing", "named by TOM_CONNECT_PLUGINS, but not installed; did you mean campaign?"),
            ("dht", "missing", "named by the option plugins, but not installed"),
        ]
        assert "campain" not in states(host)
    told = [record.getMessage() for record in caplog.records if "missing" in record.getMessage()]
    assert [text.split()[1] for text in told] == ["campain", "dht"]
    assert "did you mean campaign?" in told[0]


def test_names_of_application_plugins() -> None:
    """A plugin without a given name is called by its `name`, else its module's or class's."""
    named = Plugin()
    named.name = "own"  # type: ignore[attr-defined]
    module = Module("deep.inside.mod", tom_discovery=hookimpl(lambda ctx: None))
    host = load(config=EndpointConfig(extra_plugins=(named, module, Plugin())))
    assert [info.name for info in host.infos] == ["Plugin", "mod", "own"]


def test_one_scan_serves_many_hosts() -> None:
    """The disk is read once, however many endpoints there are."""
    scans = []

    def scan() -> list[Any]:
        scans.append(1)
        return [installed("a", Plugin())]

    catalog = PluginCatalog(scan)
    hosts = [PluginHost.load(catalog=catalog, environ={}) for _ in range(3)]
    assert [states(host) for host in hosts] == [{"a": "loaded"}] * 3
    assert len(scans) == 1


def test_hosts_do_not_share_state() -> None:
    """What fails in one endpoint does not show in another."""
    catalog = PluginCatalog(lambda: [installed("a", Plugin())])
    first, second = (PluginHost.load(catalog=catalog, environ={}) for _ in range(2))
    first.report_failure("a", "gone")
    assert (states(first), states(second)) == ({"a": "failed"}, {"a": "loaded"})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path in which distributions can be put."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("tom_test_plugin")]:
        del sys.modules[name]


def test_entry_points_are_found(site: Path) -> None:
    """Plugins are found by the metadata of their distributions, with package and version, and imported on load."""
    info = site / "tom_test_plugin-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tom-test-plugin\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[tom_connect]\ntest_here = tom_test_plugin\ntest_gone = tom_test_plugin.no\n"
    )
    (site / "tom_test_plugin.py").write_text(
        "from tom_connect.hookspecs import hookimpl\nTOM_CONNECT_API = (1, 0)\n@hookimpl\ndef tom_discovery(): ...\n"
    )
    found = {plugin.name: plugin for plugin in scan_entry_points()}
    assert (found["test_here"].package, found["test_here"].version) == ("tom-test-plugin", "1.2")
    assert "tom_test_plugin" not in sys.modules
    host = load(found["test_here"], found["test_gone"])
    assert states(host) == {"test_here": "loaded", "test_gone": "failed"}
    assert "ModuleNotFoundError" in reason(host, "test_gone")


def test_damaged_metadata_hurt_nobody(site: Path) -> None:
    """A distribution without name and version still gives its plugins."""
    info = site / "tom_test_plugin-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("")
    (info / "entry_points.txt").write_text("[tom_connect]\ntest_anonymous = tom_test_plugin\n")
    assert "test_anonymous" in {plugin.name for plugin in scan_entry_points()}
