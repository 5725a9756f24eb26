"""Loading plugins, keeping them apart, and what is known about them.

For plugin authors: `API_VERSION`, and the registries that two hooks are given. For an endpoint: `PluginHost`.
"""

from __future__ import annotations

from tom_connect.plugins.catalog import ENTRY_POINT_GROUP, InstalledPlugin, PluginCatalog, process_catalog
from tom_connect.plugins.checks import SERVED_API
from tom_connect.plugins.context import Facilities, PluginContexts, plugin_data_dir
from tom_connect.plugins.host import PluginHost
from tom_connect.plugins.info import API_VERSION, OLDEST_API_VERSION, PluginInfo, PluginState
from tom_connect.plugins.registries import CliRegistry, ConfigRegistry

__all__ = [
    "API_VERSION",
    "ENTRY_POINT_GROUP",
    "OLDEST_API_VERSION",
    "SERVED_API",
    "CliRegistry",
    "ConfigRegistry",
    "Facilities",
    "InstalledPlugin",
    "PluginCatalog",
    "PluginContexts",
    "PluginHost",
    "PluginInfo",
    "PluginState",
    "plugin_data_dir",
    "process_catalog",
]
