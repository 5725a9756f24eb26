"""What a plugin must be like before it is let in. Each check gives a reason, or None."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from typing import TypeGuard

import pluggy

from tom_connect.hookspecs import PROJECT, TomHookSpecs
from tom_connect.plugins.info import API_VERSION, OLDEST_API_VERSION

_Version = tuple[int, int]
API_ATTRIBUTE = "TOM_CONNECT_API"
# A name becomes a directory, a logger and a word in lists separated by commas.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def name_problem(name: str) -> str | None:
    """Why this can't be a plugin's name."""
    if _NAME.fullmatch(name):
        return None
    return f"{name!r} can't be a plugin's name: use 1 to 64 letters, digits, '_', '.' and '-'"


def api_problem(plugin: object, *, required: bool) -> str | None:
    """Why the plugin's API version does not fit; `required`: whether it must declare one at all."""
    declared = getattr(plugin, API_ATTRIBUTE, None)
    if declared is None:
        if not required:
            return None
        core = _dotted(API_VERSION)
        return f"declares no plugin API version; it must set {API_ATTRIBUTE} = {API_VERSION} (this core has {core})"
    versions = _api_range(declared)
    if versions is None:
        return f"{API_ATTRIBUTE} is {declared!r}; expected two numbers such as {API_VERSION}, or two such versions"
    oldest, newest = versions
    if oldest > API_VERSION:
        return (
            f"too new: written for plugin API {_dotted(oldest)}, this core has {_dotted(API_VERSION)}; "
            "upgrade tom-connect"
        )
    if newest < OLDEST_API_VERSION:
        return f"too old: written for plugin API {_dotted(newest)}, this core serves {SERVED_API}; upgrade it"
    return None


def declared_api(plugin: object) -> str:
    """The plugin API that a plugin says it works with, such as `1.0` or `1.2 to 2.0`; empty if it says none."""
    versions = _api_range(getattr(plugin, API_ATTRIBUTE, None))
    if versions is None:
        return ""
    return _dotted(versions[0]) if versions[0] == versions[1] else _range(*versions)


def _api_range(declared: object) -> tuple[_Version, _Version] | None:
    """The oldest and the newest version that are declared: one version, or two of them; None for anything else."""
    if not isinstance(declared, tuple) or len(declared) != 2:
        return None
    if _is_version(declared):
        return declared, declared
    oldest, newest = declared
    return (oldest, newest) if _is_version(oldest) and _is_version(newest) and oldest <= newest else None


def _is_version(value: object) -> TypeGuard[_Version]:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, int) and not isinstance(part, bool) for part in value)
    )


def _dotted(version: _Version) -> str:
    return f"{version[0]}.{version[1]}"


def _range(oldest: _Version, newest: _Version) -> str:
    return f"{_dotted(oldest)} to {_dotted(newest)}"


SERVED_API = _range(OLDEST_API_VERSION, API_VERSION)
"""The plugin API that this core serves, in words."""


@functools.cache
def hook_arguments() -> dict[str, tuple[str, ...]]:
    """Every hook with the arguments that it is called with."""
    hooks = {}
    for name in sorted(vars(TomHookSpecs)):
        if name.startswith("tom_"):
            parameters = tuple(inspect.signature(getattr(TomHookSpecs, name)).parameters)
            hooks[name] = parameters[1:]  # without self
    return hooks


def hooks_problem(plugin: object) -> str | None:
    """Why the plugin's hook implementations can't be called."""
    if isinstance(plugin, type):
        return f"is the class {plugin.__name__}; a plugin is a module or an object, so name an instance of it"
    try:
        hash(plugin)
    except TypeError:
        return f"an object of {type(plugin).__name__} has no hash, which a plugin needs (attrs: use eq=False)"
    manager = pluggy.PluginManager(PROJECT)
    implemented = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in hook_arguments() and inspect.isroutine(inspect.getattr_static(plugin, name, None)):
                return f"{name} is not marked; put @hookimpl of tom_connect.hookspecs above it"
            continue
        problem = _hook_problem(options.get("specname") or name, getattr(plugin, name), options)
        if problem:
            return problem
        implemented += 1
    return None if implemented else "implements no hook; mark its functions with @hookimpl of tom_connect.hookspecs"


def _hook_problem(name: str, function: object, options: pluggy.HookimplOpts) -> str | None:
    known = hook_arguments()
    if name not in known:
        if options.get("optionalhook"):
            return None
        near = difflib.get_close_matches(name, known, n=1)
        return f"unknown hook {name}" + (f"; did you mean {near[0]}?" if near else "")
    if options.get("wrapper") or options.get("hookwrapper"):
        return f"{name} is a wrapper; plugins are called one by one, so there is nothing to wrap"
    if is_async(function):
        return f"{name} is async; hooks are plain functions that return objects whose methods may be async"
    assert callable(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return f"{name} takes *{parameter.name}; name the arguments that it needs ({', '.join(known[name])})"
        if parameter.default is parameter.empty and parameter.name not in known[name]:
            return f"{name} takes an unknown argument {parameter.name!r}; known: {', '.join(known[name])}"
        if parameter.name in known[name] and (
            parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty
        ):
            return f"{name} would never be given {parameter.name!r}: take it by position and without a default"
    return None


def is_async(function: object) -> bool:
    """Whether calling gives a coroutine or an asynchronous generator."""
    function = inspect.unwrap(function) if callable(function) else function
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
