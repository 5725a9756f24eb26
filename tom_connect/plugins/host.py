"""PluginHost: one endpoint's plugins, each kept from harming the others."""

from __future__ import annotations

import asyncio
import difflib
import fnmatch
import functools
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import attrs
import pluggy

from tom_connect.abc import (
    AddressSource,
    ConnectionGuard,
    DatagramProtocol,
    Diagnostics,
    Discovery,
    PathSelector,
    PluginContext,
    PluginObject,
    Publisher,
    RelayTransport,
    Rendezvous,
    TopicDirectory,
)
from tom_connect.config import EndpointConfig
from tom_connect.exceptions import ConfigError
from tom_connect.hookspecs import PROJECT, TomHookSpecs
from tom_connect.plugins.catalog import InstalledPlugin, PluginCatalog, process_catalog
from tom_connect.plugins.checks import api_problem, declared_api, hooks_problem, name_problem
from tom_connect.plugins.context import Facilities, PluginContexts
from tom_connect.plugins.info import PluginInfo, PluginState
from tom_connect.plugins.registries import CliRegistry, ConfigRegistry, core_env_names

if TYPE_CHECKING:
    import click

logger = logging.getLogger("tom_connect.plugins")

ALLOW_VARIABLE = "TOM_CONNECT_PLUGINS"
BLOCK_VARIABLE = "TOM_CONNECT_DISABLE_PLUGINS"
START_TIMEOUT = 10.0
"""Seconds that `start()` of an object may take: longer than resolving names or binding takes, short of a hang."""
CLOSE_TIMEOUT = 0.8
"""Seconds that `aclose()` may take: an endpoint must be gone within one."""
MAX_REASONS = 4
"""Different failures that are remembered of one plugin; a plugin that fails on and on fills no memory."""

ContextFactory = Callable[[str], PluginContext]
O = TypeVar("O", bound=PluginObject)  # noqa: E741 - the object that a hook returned
T = TypeVar("T")

_RESULT_TYPES: Mapping[str, type] = {
    "tom_discovery": Discovery,
    "tom_publisher": Publisher,
    "tom_relay_transport": RelayTransport,
    "tom_datagram_protocol": DatagramProtocol,
    "tom_address_source": AddressSource,
    "tom_rendezvous": Rendezvous,
    "tom_topic_directory": TopicDirectory,
    "tom_service": PluginObject,
    "tom_connection_guard": ConnectionGuard,
    "tom_path_selector": PathSelector,
}


@attrs.define
class _Entry:
    info: PluginInfo
    plugin: object | None = None
    reasons: list[str] = attrs.Factory(list)
    registry: ConfigRegistry | None = None


class PluginHost:
    """The plugins of one endpoint; made by `PluginHost.load`.

    Whatever a plugin does wrong is logged, kept in `infos`, and never raised.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(TomHookSpecs)
        self._entries: list[_Entry] = []
        self.missing: list[PluginInfo] = []
        """What a list of plugins that may be used names, and nobody has installed."""

    @classmethod
    def load(
        cls,
        config: EndpointConfig | None = None,
        *,
        catalog: PluginCatalog | None = None,
        environ: Mapping[str, str] | None = None,
        commands: bool = True,
    ) -> PluginHost:
        """Import and check every wanted plugin, and take its options.

        `catalog`: where installed plugins come from, by default the one of this process; `environ`: by default
        that of the process; `commands`: whether options are read for commands too, which an endpoint does not have.
        Raises ConfigError only, if `config` itself is wrong for the plugins.
        """
        host = cls(config or EndpointConfig())
        catalog = catalog or process_catalog()
        wanted = _Selection(host.config, os.environ if environ is None else environ)
        for name, plugin in _named(host.config.extra_plugins):
            host._admit(InstalledPlugin(name, None, None, functools.partial(_same, plugin)), wanted, extra=True)
        for installed in catalog.installed():
            host._admit(installed, wanted, extra=False)
        host._register_all(commands=commands)
        found = {name for e in host._entries for name in (e.info.name, e.info.package or "")}
        host.missing = wanted.missing(found)
        for info in host.missing:
            if catalog.is_news(f"{info.name}: {info.reason}"):
                logger.warning("plugin %s can't be used (%s): %s", info.name, info.state, info.reason)
        wanted.log_unknown_blocks(found)
        host._check_given_configs()
        return host

    # What is known

    @property
    def infos(self) -> list[PluginInfo]:
        """Every plugin that was found, by name, with its state."""
        return sorted((entry.info for entry in self._entries), key=lambda info: (info.name, info.package or ""))

    @property
    def config_classes(self) -> dict[str, type[Any]]:
        """The classes that usable plugins registered, by section."""
        return {r.section: r.cls for r in self._registries() if r.section is not None and r.cls is not None}

    @property
    def unavailable(self) -> list[str]:
        """Names of the plugins that are installed but not in use: what is written for them can't be checked."""
        return [entry.info.name for entry in self._entries if entry.plugin is None]

    def plugin_configs(self) -> dict[str, Any]:
        """Each plugin's configuration by plugin name: as given in `EndpointConfig.plugin_configs`, or its defaults."""
        given = self.config.plugin_configs
        return {
            entry.info.name: given[registry.section] if registry.section in given else registry.cls()
            for entry in self._entries
            if (registry := entry.registry) is not None and registry.cls is not None and registry.section is not None
        }

    def deprecations(self, plugin_configs: Mapping[str, Any]) -> dict[str, str]:
        """Why plugins in use should go, by plugin name, as far as their configuration (by section) says so."""
        told: dict[str, str] = {}
        for entry in self._entries:
            registry = entry.registry
            if entry.plugin is None or registry is None or registry.section is None:
                continue
            try:
                reason = getattr(plugin_configs.get(registry.section), "deprecation", None)
            except Exception as exc:  # a plugin may raise anything, and the others go on
                self._fail(entry, f"deprecation: {describe(exc)}")
                continue
            if isinstance(reason, str) and reason:
                told[entry.info.name] = " ".join(reason.split())[:500]
        return told

    def contexts(self, facilities: Facilities) -> PluginContexts:
        """What `collect` takes as `ctx_factory`: each plugin's context from what the endpoint lends."""
        return PluginContexts(facilities, self.config, self.plugin_configs())

    # What plugins give

    @overload
    def collect(self, hook: Literal["tom_discovery"], ctx_factory: ContextFactory) -> list[tuple[str, Discovery]]: ...
    @overload
    def collect(self, hook: Literal["tom_publisher"], ctx_factory: ContextFactory) -> list[tuple[str, Publisher]]: ...
    @overload
    def collect(
        self, hook: Literal["tom_relay_transport"], ctx_factory: ContextFactory
    ) -> list[tuple[str, RelayTransport]]: ...
    @overload
    def collect(
        self, hook: Literal["tom_datagram_protocol"], ctx_factory: ContextFactory
    ) -> list[tuple[str, DatagramProtocol]]: ...
    @overload
    def collect(
        self, hook: Literal["tom_address_source"], ctx_factory: ContextFactory
    ) -> list[tuple[str, AddressSource]]: ...
    @overload
    def collect(self, hook: Literal["tom_rendezvous"], ctx_factory: ContextFactory) -> list[tuple[str, Rendezvous]]: ...
    @overload
    def collect(
        self, hook: Literal["tom_topic_directory"], ctx_factory: ContextFactory
    ) -> list[tuple[str, TopicDirectory]]: ...
    @overload
    def collect(self, hook: Literal["tom_service"], ctx_factory: ContextFactory) -> list[tuple[str, PluginObject]]: ...
    @overload
    def collect(
        self, hook: Literal["tom_connection_guard"], ctx_factory: ContextFactory
    ) -> list[tuple[str, ConnectionGuard]]: ...
    @overload
    def collect(
        self, hook: Literal["tom_path_selector"], ctx_factory: ContextFactory
    ) -> list[tuple[str, PathSelector]]: ...
    def collect(self, hook: str, ctx_factory: ContextFactory) -> list[tuple[str, Any]]:
        """Call a hook of every usable plugin, one at a time; returns (plugin name, object) for each object.

        A plugin whose implementation raises, or returns something else than the hook's contract, is reported and
        gives nothing for this hook; its objects for other hooks stay. An object without a name gets its plugin's.
        """
        expected = _RESULT_TYPES[hook]
        objects: list[tuple[str, Any]] = []
        for entry in self._implementers(hook):
            name = entry.info.name
            for result in self._call(entry, hook, functools.partial(ctx_factory, name), _objects_of(expected)) or ():
                if not result.name:
                    result.name = name
                objects.append((name, result))
        return objects

    def diagnostics(self, ctx_factory: ContextFactory) -> dict[str, Diagnostics]:
        """What each plugin tells `tom-connect doctor`, by plugin name."""
        told: dict[str, Diagnostics] = {}
        for entry in self._implementers("tom_diagnostics"):
            name = entry.info.name
            result = self._call(entry, "tom_diagnostics", functools.partial(ctx_factory, name), _mapping)
            if result is not None:
                told[name] = result
        return told

    def commands(self, reserved: Iterable[str]) -> dict[str, tuple[str, click.Command]]:
        """The commands that plugins add to `tom-connect`: (plugin name, command) by command name.

        `reserved`: the core's own. A plugin whose command has a name that is taken is reported and adds none.
        """
        owners = dict.fromkeys(reserved, "tom-connect")
        added: dict[str, tuple[str, click.Command]] = {}
        for entry in self._implementers("tom_cli_commands"):
            registry = CliRegistry(owners.get)
            done = self._call(entry, "tom_cli_commands", functools.partial(_same, registry), _nothing)
            if done is None:
                continue
            for command_name, command in registry.commands.items():
                owners[command_name] = f"plugin {entry.info.name}"
                added[command_name] = (entry.info.name, command)
        return added

    # Life of the objects

    async def start(self, objects: Sequence[tuple[str, O]]) -> list[tuple[str, O]]:
        """Start all objects side by side, each once; returns those that did, in the same order.

        One that raises, or takes longer than START_TIMEOUT, is closed, reported and left out. If this is cancelled,
        all are closed.
        """
        distinct = {id(obj): (name, obj) for name, obj in objects}
        failed: set[int] = set()
        try:
            await asyncio.gather(*(self._start(name, obj, failed) for name, obj in distinct.values()))
        except asyncio.CancelledError:
            await self.close([pair for key, pair in distinct.items() if key not in failed])
            raise
        return [(name, obj) for name, obj in objects if id(obj) not in failed]

    async def close(self, objects: Sequence[tuple[str, PluginObject]]) -> None:
        """Close all objects side by side, each once and within CLOSE_TIMEOUT; what goes wrong is reported."""
        distinct = {id(obj): (name, obj) for name, obj in objects}
        closing = (self._bounded(name, "aclose", obj.aclose, CLOSE_TIMEOUT) for name, obj in distinct.values())
        await asyncio.gather(*closing)

    def report_failure(self, name: str, reason: object) -> None:
        """Say that a plugin failed at run time; `reason`: an exception or one line."""
        text = describe(reason) if isinstance(reason, BaseException) else str(reason)
        for entry in self._entries:
            if entry.info.name == name and entry.info.state is not PluginState.DUPLICATE:
                self._fail(entry, text)
                return
        logger.warning("plugin %s: %s", name, text)

    async def _start(self, name: str, obj: PluginObject, failed: set[int]) -> None:
        if not await self._bounded(name, "start", obj.start, START_TIMEOUT):
            failed.add(id(obj))
            await self._bounded(name, "aclose", obj.aclose, CLOSE_TIMEOUT)

    async def _bounded(self, name: str, what: str, call: Callable[[], Awaitable[None]], limit: float) -> bool:
        try:
            async with asyncio.timeout(limit):
                await call()
        except TimeoutError as exc:
            self.report_failure(name, f"{what}(): {describe(exc) if str(exc) else f'not done after {limit:g} s'}")
        except Exception as exc:
            self.report_failure(name, f"{what}(): {describe(exc)}")
        else:
            return True
        return False

    # Loading

    def _admit(self, installed: InstalledPlugin, wanted: _Selection, *, extra: bool) -> None:
        info = PluginInfo(installed.name, installed.package, installed.version)
        first = next((e.info for e in self._entries if e.info.name == info.name), None)
        entry = _Entry(info)
        self._entries.append(entry)
        reason = wanted.refusal({info.name, info.package or info.name}, extra=extra)
        if first is not None:
            origin = f"{first.package} {first.version or ''}".strip() if first.package else "the application"
            self._reject(entry, PluginState.DUPLICATE, f"the name {info.name!r} is taken by the plugin of {origin}")
        elif reason is not None:
            self._reject(entry, PluginState.BLOCKED, reason)
        elif (reason := name_problem(info.name)) is not None:
            self._reject(entry, PluginState.FAILED, reason)
        else:
            self._import(entry, installed, extra=extra)

    def _import(self, entry: _Entry, installed: InstalledPlugin, *, extra: bool) -> None:
        try:
            plugin = installed.load()
            entry.info = attrs.evolve(entry.info, api=declared_api(plugin))
            incompatible = api_problem(plugin, required=not extra)
            problem = None if incompatible else hooks_problem(plugin)
        except (Exception, SystemExit) as exc:
            self._reject(entry, PluginState.FAILED, f"can't be imported: {describe(exc)}")
            return
        if incompatible is not None:
            self._reject(entry, PluginState.INCOMPATIBLE, incompatible)
        elif problem is not None:
            self._reject(entry, PluginState.FAILED, problem)
        elif any(other.plugin is plugin for other in self._entries):
            same = next(other.info.name for other in self._entries if other.plugin is plugin)
            self._reject(entry, PluginState.DUPLICATE, f"is the same object as plugin {same!r}")
        else:
            entry.plugin = plugin

    def _register_all(self, *, commands: bool) -> None:
        # pluggy calls the last registered first: registering backwards makes the order of calls that of names.
        for entry in reversed(self._entries):
            if entry.plugin is None:
                continue
            try:
                self._manager.register(entry.plugin, entry.info.name)
            except Exception as exc:
                self._reject(entry, PluginState.FAILED, describe(exc))
                continue
            hooks = [caller.name for caller in self._manager.get_hookcallers(entry.plugin) or ()]
            entry.info = attrs.evolve(entry.info, hooks=tuple(sorted(hooks)))
        for entry in self._implementers("tom_register_config"):
            taken = core_env_names() | {o.env for r in self._registries() for o in r.options}
            registry = ConfigRegistry(taken, commands=commands)
            if self._call(entry, "tom_register_config", functools.partial(_same, registry), _nothing) is None:
                self._leave_out(entry)
            else:
                entry.registry = registry
                self._complete(entry)

    def _complete(self, entry: _Entry) -> None:
        """Have the class loaded of which the application gives an instance."""
        if entry.registry is None or entry.registry.section not in self.config.plugin_configs:
            return
        try:
            entry.registry.complete()
        except (Exception, SystemExit) as exc:  # what is imported there may raise anything
            self._fail(entry, f"options: {describe(exc)}")
            self._leave_out(entry)

    def _leave_out(self, entry: _Entry) -> None:
        self._manager.unregister(entry.plugin)
        entry.plugin = entry.registry = None

    def _check_given_configs(self) -> None:
        classes = self.config_classes
        for section, given in self.config.plugin_configs.items():
            cls = classes.get(section)
            if cls is None:
                logger.warning("plugin_configs: no plugin in use has a section %r; what is given is not used", section)
            elif not isinstance(given, cls):
                raise ConfigError(f"plugin_configs[{section!r}]: {given!r} is not allowed; expected a {cls.__name__}")

    def _registries(self) -> list[ConfigRegistry]:
        return [entry.registry for entry in self._entries if entry.registry is not None]

    # Calling

    def _implementers(self, hook: str) -> list[_Entry]:
        """The usable plugins with this hook, in pluggy's order of calling."""
        by_plugin = {id(entry.plugin): entry for entry in self._entries if entry.plugin is not None}
        impls = getattr(self._manager.hook, hook).get_hookimpls()
        return [by_plugin[id(impl.plugin)] for impl in reversed(impls)]

    def _call(self, entry: _Entry, hook: str, argument: Callable[[], object], check: Callable[[Any], T]) -> T | None:
        """Call the hook of this plugin alone; None if it failed, which is reported then."""
        others = [plugin for plugin in self._manager.get_plugins() if plugin is not entry.plugin]
        caller = self._manager.subset_hook_caller(hook, remove_plugins=others)
        argument_name = {"tom_register_config": "registry", "tom_cli_commands": "cli"}.get(hook, "ctx")
        try:
            returned = caller(**{argument_name: argument()})
            if isinstance(returned, list):  # one result per implementation, without those that are None
                returned = returned[0] if returned else None
            return check(returned)
        except (Exception, SystemExit) as exc:
            self._fail(entry, f"{hook}: {describe(exc)}")
            return None

    def _reject(self, entry: _Entry, state: PluginState, reason: str) -> None:
        entry.plugin = None
        entry.info = attrs.evolve(entry.info, state=state, reason=reason)
        level = logging.INFO if state is PluginState.BLOCKED else logging.WARNING
        logger.log(level, "plugin %s is left out (%s): %s", entry.info.name, state, reason)

    def _fail(self, entry: _Entry, reason: str) -> None:
        if reason in entry.reasons:
            return
        entry.reasons = [*entry.reasons, reason][-MAX_REASONS:]
        entry.info = attrs.evolve(entry.info, state=PluginState.FAILED, reason="; ".join(entry.reasons))
        logger.warning("plugin %s failed: %s", entry.info.name, reason, exc_info=False)


class _Selection:
    """Which plugins are wanted: the endpoint's lists and the environment's, all of which must agree."""

    def __init__(self, config: EndpointConfig, environ: Mapping[str, str]) -> None:
        allow, block = environ.get(ALLOW_VARIABLE, ""), environ.get(BLOCK_VARIABLE, "")
        self._allow: list[tuple[str, Sequence[str]]] = []
        if allow.strip():
            self._allow.append((ALLOW_VARIABLE, _names(allow)))
        if config.plugins is not None:
            self._allow.append(("the option plugins", config.plugins))
        self._block: list[tuple[str, Sequence[str]]] = [(BLOCK_VARIABLE, _names(block))]
        self._block.append(("the option disable_plugins", config.disable_plugins))

    def refusal(self, names: set[str], *, extra: bool) -> str | None:
        """Why a plugin, known by these names, is not wanted.

        An application's own objects need no allowing, but can be blocked.
        """
        for origin, patterns in self._block:
            if _matches(names, patterns):
                return f"blocked by {origin}"
        for origin, patterns in self._allow:
            if not extra and not _matches(names, patterns):
                return f"not among those allowed by {origin}"
        return None

    def missing(self, found: set[str]) -> list[PluginInfo]:
        """Each name in a list of those that may be used that no plugin has: what it was for is not there."""
        return [
            PluginInfo(name, state=PluginState.MISSING, reason=f"named by {origin}, but not installed{hint}")
            for origin, name, hint in _unknown(self._allow, found)
        ]

    def log_unknown_blocks(self, found: set[str]) -> None:
        """Log each name in a block list that no plugin has: a slip, or a precaution."""
        for origin, name, hint in _unknown(self._block, found):
            logger.info("%s names %r, which is not installed%s", origin, name, hint)


def _unknown(lists: Iterable[tuple[str, Sequence[str]]], found: set[str]) -> Iterable[tuple[str, str, str]]:
    """The names in lists that nobody has: which list, the name, and what was perhaps meant."""
    for origin, patterns in lists:
        for pattern in dict.fromkeys(patterns):
            if not _matches(found, [pattern]):
                near = difflib.get_close_matches(pattern, sorted(found), n=1)
                yield origin, pattern, f"; did you mean {near[0]}?" if near else ""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for name in names for pattern in patterns)


def _named(plugins: Iterable[object]) -> Iterable[tuple[str, object]]:
    """Name the application's plugins: as it says, or by their attribute `name`, module name or class name."""
    for plugin in plugins:
        if isinstance(plugin, tuple) and len(plugin) == 2 and isinstance(plugin[0], str):
            yield plugin
            continue
        name = getattr(plugin, "name", None)
        if not isinstance(name, str) or not name:
            name = getattr(plugin, "__name__", None) or type(plugin).__name__
        yield str(name).rpartition(".")[2], plugin


def describe(exc: BaseException) -> str:
    """An exception as one line: its class and what it says."""
    text = " ".join(str(exc).split())[:500]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _same(value: T) -> T:
    return value


def _nothing(_returned: object) -> bool:
    return True


def _mapping(returned: object) -> Diagnostics | None:
    if returned is not None and not isinstance(returned, Mapping):
        raise TypeError(f"returned {type(returned).__name__}; expected a mapping or None")
    return returned


def _objects_of(expected: type) -> Callable[[Any], tuple[Any, ...]]:
    def check(returned: object) -> tuple[Any, ...]:
        if returned is None:
            return ()
        if inspect.iscoroutine(returned):
            returned.close()  # else Python warns that it was never awaited
        single = not isinstance(returned, Iterable) or isinstance(returned, (expected, str, bytes))
        objects: tuple[object, ...] = (returned,) if single else tuple(cast("Iterable[object]", returned))
        for obj in objects:
            if not isinstance(obj, expected):
                raise TypeError(f"returned {type(obj).__name__}; expected {expected.__name__}, several, or None")
        return objects

    return check
