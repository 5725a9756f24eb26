"""The installed plugins: entry points, scanned once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

import attrs
import importlib_metadata

ENTRY_POINT_GROUP = "tom_connect"
_REMEMBERED = 256


class Loader(Protocol):
    """Imports a plugin."""

    def __call__(self) -> object:
        """The plugin: a module or an object. May raise anything."""


@attrs.frozen
class InstalledPlugin:
    """An entry point of the group `tom_connect`; `load` imports what it names."""

    name: str
    package: str | None
    version: str | None
    load: Loader


def scan_entry_points() -> tuple[InstalledPlugin, ...]:
    """Read the metadata of all installed distributions; imports no plugin."""
    found = []
    for entry in importlib_metadata.entry_points(group=ENTRY_POINT_GROUP):
        package, version = _distribution(entry)
        found.append(InstalledPlugin(entry.name, package, version, entry.load))
    return tuple(found)


def _distribution(entry: importlib_metadata.EntryPoint) -> tuple[str | None, str | None]:
    """Name and version of the distribution; None where its metadata are damaged, which is no reason to fail.

    They are read here and not by `entry.dist.name`: to import the `email` package, which that does, takes as long as to
    find the entry points.
    """
    try:
        text = "" if entry.dist is None else entry.dist.read_text("METADATA") or entry.dist.read_text("PKG-INFO") or ""
    except Exception:
        return None, None
    head, _, _description = text.replace("\r\n", "\n").partition("\n\n")
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in head.splitlines())}
    return fields.get("Name") or None, fields.get("Version") or None


class PluginCatalog:
    """Remembers one scan, so that endpoints after the first don't read the disk again. Safe to share by threads."""

    def __init__(self, scan: Callable[[], Iterable[InstalledPlugin]] = scan_entry_points) -> None:
        self._scan = scan
        self._lock = threading.Lock()
        self._found: tuple[InstalledPlugin, ...] | None = None
        self._said: set[str] = set()

    def installed(self) -> tuple[InstalledPlugin, ...]:
        """The plugins that the scan found, ordered by name, then package."""
        with self._lock:
            if self._found is None:
                self._found = tuple(sorted(self._scan(), key=lambda plugin: (plugin.name, plugin.package or "")))
            return self._found

    def is_news(self, text: str) -> bool:
        """Whether this was not said before: what is wrong with an installation is told once, not by each endpoint."""
        with self._lock:
            if text in self._said or len(self._said) >= _REMEMBERED:
                return False
            self._said.add(text)
            return True


@functools.cache
def process_catalog() -> PluginCatalog:
    """The catalog that endpoints use unless they are given another: one scan a process."""
    return PluginCatalog()
