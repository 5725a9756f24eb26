"""What plugins give an endpoint, and how one that fails is kept from the others."""

from __future__ import annotations

import asyncio
import logging
import types
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.unit.plugins.fakes import (
    Found,
    Module,
    Plugin,
    hook,
    installed,
    load,
    make_facilities,
    no_context,
    reason,
    states,
)
from tom_connect.abc import ConnectionGuard, PathSelector, PluginContext
from tom_connect.config import EndpointConfig
from tom_connect.exceptions import ConfigError
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import PluginHost, host


def fails(ctx: Any) -> object:
    raise RuntimeError("no such luck")


async def _never() -> None:
    return None


def test_objects_come_with_their_plugins_name() -> None:
    """Single objects and several are given one by one, in the order of names, and unnamed ones are named."""
    one, two, three = Found(), Found("second"), Found()
    hosted = load(
        installed("b", hook("tom_discovery", lambda ctx: [one, two])),
        installed("a", hook("tom_discovery", lambda ctx: three)),
        installed("c", hook("tom_discovery", lambda ctx: None)),
        installed("d", hook("tom_discovery", lambda ctx: ())),
    )
    assert hosted.collect("tom_discovery", no_context) == [("a", three), ("b", one), ("b", two)]
    assert (one.name, two.name, three.name) == ("b", "second", "a")


def test_order_can_be_asked_for() -> None:
    """A plugin that says `tryfirst` comes before the alphabet."""
    first = Module(tom_discovery=hookimpl(lambda ctx: Found(), tryfirst=True))
    hosted = load(installed("a", Plugin()), installed("z", first))
    assert [name for name, _ in hosted.collect("tom_discovery", no_context)] == ["z", "a"]


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (fails, "tom_discovery: RuntimeError: no such luck"),
        (lambda ctx: exit(4), "SystemExit: 4"),
        (lambda ctx: 5, "returned int; expected Discovery"),
        (lambda ctx: "text", "returned str; expected Discovery"),
        (lambda ctx: [Found(), object()], "returned object; expected Discovery"),
        (lambda ctx: ConnectionGuard(), "returned ConnectionGuard; expected Discovery"),
        (lambda ctx: _never(), "returned coroutine; expected Discovery"),
    ],
)
def test_failing_factory(factory: Any, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """A factory that raises or returns something else is reported and left out; the others give their objects."""
    hosted = load(installed("a", Plugin()), installed("b", hook("tom_discovery", factory)), installed("c", Plugin()))
    with caplog.at_level(logging.WARNING, "tom_connect.plugins"):
        assert [name for name, _ in hosted.collect("tom_discovery", no_context)] == ["a", "c"]
    assert states(hosted) == {"a": "loaded", "b": "failed", "c": "loaded"}
    assert words in reason(hosted, "b")
    assert words in caplog.text


def test_failing_context_is_that_plugins_failure() -> None:
    """Where one plugin's context can't be made, the others have theirs."""

    def only_for_a(name: str) -> PluginContext:
        if name != "a":
            raise OSError("disk gone")
        return no_context(name)

    hosted = load(installed("a", Plugin()), installed("b", Plugin()))
    assert [name for name, _ in hosted.collect("tom_discovery", only_for_a)] == ["a"]
    assert states(hosted) == {"a": "loaded", "b": "failed"}


def test_other_hooks_of_a_failing_plugin_go_on() -> None:
    """A plugin that fails in one hook still gives what its other hooks make."""
    plugin = Module(tom_discovery=hookimpl(fails), tom_connection_guard=hookimpl(lambda ctx: ConnectionGuard()))
    hosted = load(installed("p", plugin))
    assert hosted.collect("tom_discovery", no_context) == []
    assert len(hosted.collect("tom_connection_guard", no_context)) == 1
    assert states(hosted) == {"p": "failed"}


def test_path_selectors() -> None:
    """The hook of which the first result wins is asked of every plugin as well."""

    class Selector(PathSelector):
        def select(self, node_id: Any, paths: Any) -> None:
            return None

    selector = Selector()
    hosted = load(
        installed("a", hook("tom_path_selector", fails)),
        installed("b", hook("tom_path_selector", lambda ctx: selector)),
        installed("c", hook("tom_path_selector", lambda ctx: None)),
    )
    assert hosted.collect("tom_path_selector", no_context) == [("b", selector)]
    assert states(hosted) == {"a": "failed", "b": "loaded", "c": "loaded"}


def test_diagnostics() -> None:
    """Each plugin's diagnostics stand under its name, and a wrong type is reported."""
    hosted = load(
        installed("a", hook("tom_diagnostics", lambda ctx: {"nodes": 3})),
        installed("b", hook("tom_diagnostics", lambda ctx: 7)),
        installed("c", hook("tom_diagnostics", lambda ctx: None)),
    )
    assert hosted.diagnostics(no_context) == {"a": {"nodes": 3}}
    assert "returned int; expected a mapping" in reason(hosted, "b")


class Bad(Found):
    """Fails in start, in aclose, or hangs in either."""

    def __init__(self, start: BaseException | None = None, aclose: BaseException | None = None) -> None:
        super().__init__()
        self._errors = {"start": start, "aclose": aclose}
        self.hanging = asyncio.Event()

    async def _do(self, what: str) -> None:
        self.calls.append(what)
        error = self._errors[what]
        if isinstance(error, TimeoutError) and not str(error):
            self.hanging.set()
            await asyncio.Event().wait()
        elif error is not None:
            raise error

    async def start(self) -> None:
        await self._do("start")

    async def aclose(self) -> None:
        await self._do("aclose")


async def test_start_and_close() -> None:
    """Objects are started and closed; one whose start raises is closed, reported and left out."""
    hosted = load(installed("a", Plugin()), installed("b", Plugin()))
    good, bad = Found(), Bad(start=OSError("port taken"))
    assert await hosted.start([("a", good), ("b", bad)]) == [("a", good)]
    assert bad.calls == ["start", "aclose"]
    assert states(hosted) == {"a": "loaded", "b": "failed"}
    assert "start(): OSError: port taken" in reason(hosted, "b")
    await hosted.close([("a", good)])
    assert good.calls == ["start", "aclose"]


async def test_slow_start_and_close_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that hangs in start or close holds nobody up for longer than the limits."""
    monkeypatch.setattr(host, "START_TIMEOUT", 0.02)
    monkeypatch.setattr(host, "CLOSE_TIMEOUT", 0.02)
    hosted = load(installed("a", Plugin()), installed("b", Plugin()), installed("c", Plugin()))
    hangs, good = Bad(start=TimeoutError()), Found()
    assert await hosted.start([("a", hangs), ("b", good)]) == [("b", good)]
    assert "start(): not done after 0.02 s" in reason(hosted, "a")
    await hosted.close([("b", good), ("c", Bad(aclose=TimeoutError()))])
    assert "aclose(): not done after 0.02 s" in reason(hosted, "c")
    assert good.calls == ["start", "aclose"]


async def test_time_out_that_a_plugin_raises_is_named() -> None:
    """A plugin's own TimeoutError is told with its words."""
    hosted = load(installed("a", Plugin()))
    assert await hosted.start([("a", Bad(start=TimeoutError("no answer from 192.0.2.1")))]) == []
    assert "no answer from 192.0.2.1" in reason(hosted, "a")


async def test_object_of_two_hooks_is_started_and_closed_once() -> None:
    """An object that two hooks returned has one life."""
    hosted = load(installed("a", Plugin()))
    both = Found()
    assert await hosted.start([("a", both), ("a", both)]) == [("a", both), ("a", both)]
    await hosted.close([("a", both), ("a", both)])
    assert both.calls == ["start", "aclose"]


async def test_cancelled_start_closes_everything() -> None:
    """Where binding is cancelled while objects start, each is closed, and once."""
    hosted = load(installed("a", Plugin()))
    ready, failed, hangs = Found(), Bad(start=OSError("no")), Bad(start=TimeoutError())
    starting = asyncio.ensure_future(hosted.start([("a", ready), ("a", failed), ("a", hangs)]))
    await hangs.hanging.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [obj.calls for obj in (ready, failed, hangs)] == [["start", "aclose"]] * 3


async def test_errors_in_close_are_reported() -> None:
    """An object that fails to close does not keep the others from closing."""
    hosted = load(installed("a", Plugin()), installed("b", Plugin()))
    good = Found()
    await hosted.close([("a", Bad(aclose=ValueError("stuck"))), ("b", good)])
    assert good.calls == ["aclose"]
    assert "aclose(): ValueError: stuck" in reason(hosted, "a")


def test_repeated_failures_fill_no_memory() -> None:
    """Equal failures are kept once, different ones up to a bound."""
    hosted = load(installed("a", Plugin()))
    for number in range(50):
        hosted.report_failure("a", f"failure {number}")
        hosted.report_failure("a", f"failure {number}")
    assert reason(hosted, "a") == "failure 46; failure 47; failure 48; failure 49"


def test_failure_of_an_unknown_plugin_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Reporting a name that no plugin has raises nothing."""
    with caplog.at_level(logging.WARNING, "tom_connect.plugins"):
        load().report_failure("core", RuntimeError("x"))
    assert "core: RuntimeError: x" in caplog.text


@attrs.frozen
class Options:
    width: int = 3


def _configured() -> types.ModuleType:
    return Module(
        tom_register_config=hookimpl(lambda registry: registry.register("opts", Options) and None),
        tom_discovery=hookimpl(lambda ctx: Found(f"width {ctx.config.width}")),
    )


def test_context(tmp_path: Path) -> None:
    """A plugin's context has its own configuration, logger, directory and shared dict, the same for all its hooks."""
    config = EndpointConfig(data_dir=tmp_path, plugin_configs={"opts": Options(9)}, allow_local=True)
    hosted = load(installed("p", _configured()), installed("q", Plugin()), config=config)
    facilities = make_facilities()
    contexts = hosted.contexts(facilities)
    ours = contexts("p")
    assert ours is contexts("p")
    assert (ours.config, contexts("q").config) == (Options(9), None)
    assert ours.logger.name == "tom_connect.plugin.p"
    assert ours.data_dir == tmp_path / "plugins" / "p"
    assert ours.data_dir.is_dir()
    assert ours.shared == {}
    assert ours.shared is not contexts("q").shared
    assert ours.node_id == facilities.node_id
    assert ours.allow_local
    assert [obj.name for _, obj in hosted.collect("tom_discovery", contexts)] == ["width 9", "q"]


def test_nothing_is_kept_if_told_so(tmp_path: Path) -> None:
    """With `persist=False` a plugin has no directory, and none is made."""
    hosted = load(installed("p", Plugin()), config=EndpointConfig(data_dir=tmp_path, persist=False))
    assert hosted.contexts(make_facilities())("p").data_dir is None
    assert list(tmp_path.iterdir()) == []


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """Where a directory can't be made, the plugin works without."""
    (tmp_path / "plugins").write_text("a file")
    hosted = load(installed("p", Plugin()), config=EndpointConfig(data_dir=tmp_path))
    assert hosted.contexts(make_facilities())("p").data_dir is None


def test_configuration_of_the_wrong_class() -> None:
    """A configuration that is not of the registered class is the caller's error."""
    with pytest.raises(ConfigError, match=r"plugin_configs\['opts'\].*expected a Options"):
        load(installed("p", _configured()), config=EndpointConfig(plugin_configs={"opts": {"width": 3}}))


def test_configuration_without_a_plugin_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Uninstalling a plugin changes nothing else: what was meant for it is passed over, with a warning."""
    with caplog.at_level(logging.WARNING, "tom_connect.plugins"):
        hosted = load(config=EndpointConfig(plugin_configs={"opts": Options()}))
    assert isinstance(hosted, PluginHost)
    assert "no plugin in use has a section 'opts'" in caplog.text


def test_a_configuration_says_that_its_plugin_should_go(caplog: pytest.LogCaptureFixture) -> None:
    """A property `deprecation` is told in one line; one that is no text is passed over, one that raises is reported."""
    texts: dict[str, object] = {"old": "should\n go", "none": None, "wrong": 7, "long": "x" * 9000}

    def registering(name: str, deprecation: property) -> types.ModuleType:
        cls = attrs.frozen(type(name.title(), (), {"deprecation": deprecation}))
        return Module(tom_register_config=hookimpl(lambda registry: registry.register(name, cls) and None))

    plugins = [installed(n, registering(n, property(lambda self, text=t: text))) for n, t in texts.items()]  # type: ignore[misc]
    broken = installed("broken", registering("broken", property(lambda self: 1 / 0)))
    hosted = load(*plugins, broken, installed("p", Plugin()))
    configs = {section: cls() for section, cls in hosted.config_classes.items()}
    assert hosted.deprecations(configs) == {"old": "should go", "long": "x" * 500}
    assert hosted.deprecations({}) == {}
    assert "deprecation: ZeroDivisionError" in caplog.text
