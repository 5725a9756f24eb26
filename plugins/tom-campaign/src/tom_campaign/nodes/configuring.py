"""The configuration of a node's endpoint from options as they stand in a configuration file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tom_connect import EndpointConfig
from tom_connect.config import Argument, load_config
from tom_connect.exceptions import ConfigError
from tom_connect.plugins import PluginHost


def endpoint_config(
    options: Mapping[str, Any], origin: Callable[[tuple[str, ...]], str] = lambda _path: "config"
) -> EndpointConfig:
    """What these options and defaults say, and neither the user's file nor environment.

    `origin` says where an option stands, by its keys, for messages. Raises ConfigError.
    """
    selection = _load({key: options[key] for key in ("plugins", "disable_plugins") if key in options}, {}, (), origin)
    host = PluginHost.load(selection, environ={})
    for info in host.missing:
        raise ConfigError(f"{origin(('plugins',))}: there is no plugin {info.name!r}: {info.reason}")
    sections = host.config_classes
    for key, value in options.items():
        if isinstance(value, Mapping) and key not in sections:
            known = ", ".join(sorted(sections)) or "none, as no plugin is in use"
            raise ConfigError(f"{origin((key,))}: [{key}] belongs to no plugin in use; those in use have: {known}")
        if key in sections and not isinstance(value, Mapping):
            raise ConfigError(f"{origin((key,))}: {key} is a table of options; say {key} = {{ OPTION = ... }}")
    return _load(options, sections, host.unavailable, origin)


def _load(
    options: Mapping[str, Any],
    sections: Mapping[str, type[Any]],
    unavailable: Any,
    origin: Callable[[tuple[str, ...]], str],
) -> EndpointConfig:
    arguments: dict[str, Argument] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            for field, item in value.items():
                arguments[f"{key}.{field}"] = Argument(item, origin((key, field)))
        else:
            arguments[key] = Argument(value, origin((key,)))
    loaded = load_config(
        sections=sections, unavailable=unavailable, file=pathlib.Path(os.devnull), environ={}, arguments=arguments
    )
    return loaded.endpoint
