"""What is known about each plugin, whether it could be used or not."""

from __future__ import annotations

import enum

import attrs

API_VERSION = (1, 1)
"""The plugin API of this core. Minor grows when hooks or arguments are added, major when one changes or goes."""
OLDEST_API_VERSION = (1, 0)
"""The oldest plugin API that this core still serves."""


class PluginState(enum.StrEnum):
    """Where a plugin stands."""

    LOADED = "loaded"
    """In use."""
    BLOCKED = "blocked"
    """Installed, not wanted: named by a block list, or not named by an allow list. It was not imported."""
    FAILED = "failed"
    """Could not be used, or a part of it failed and was left out; the reason says which."""
    INCOMPATIBLE = "incompatible"
    """Written for another version of the plugin API."""
    DUPLICATE = "duplicate"
    """Another plugin has the same name, and came first."""
    MISSING = "missing"
    """Named by a list of those that may be used, and not installed."""


@attrs.frozen
class PluginInfo:
    """One plugin as `tom-connect plugins` shows it.

    `package` and `version` are those of the distribution that brought it, None for an object given by the
    application; `api` the plugin API that it says it works with, such as `1.0` or `1.2 to 2.0`, empty if that is not
    known; `hooks` the names of the hooks it implements; `reason` one line, empty while it is loaded (unless
    `tom-connect plugins` adds why it is deprecated).
    """

    name: str
    package: str | None = None
    version: str | None = None
    api: str = ""
    hooks: tuple[str, ...] = ()
    state: PluginState = PluginState.LOADED
    reason: str = ""
