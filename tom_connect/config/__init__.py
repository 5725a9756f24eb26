"""Configuration: `EndpointConfig`, options that plugins declare, and `load_config`, which layers their sources."""

from __future__ import annotations

from tom_connect.config.checks import (
    Validator,
    as_path,
    as_tuple,
    is_flag,
    is_path,
    number_between,
    refused,
    seconds_between,
    whole_number_between,
)
from tom_connect.config.endpoint import EndpointConfig
from tom_connect.config.layers import (
    Argument,
    ConfigEntry,
    LoadedConfig,
    default_config_file,
    load_config,
    plugin_selection,
)
from tom_connect.config.options import option
from tom_connect.config.schema import OptionSpec

__all__ = [
    "Argument",
    "ConfigEntry",
    "EndpointConfig",
    "LoadedConfig",
    "OptionSpec",
    "Validator",
    "as_path",
    "as_tuple",
    "default_config_file",
    "is_flag",
    "is_path",
    "load_config",
    "number_between",
    "option",
    "plugin_selection",
    "refused",
    "seconds_between",
    "whole_number_between",
]
