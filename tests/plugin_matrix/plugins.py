"""What the plugins of this repository are, as their own metadata say it: a new one is in the matrix by being there."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs

from tests.plugin_matrix.environments import ROOT


@attrs.frozen
class Project:
    """One package: its name, folder, the module it brings, its plugins' names, and what it requires of others."""

    package: str
    folder: Path
    entries: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The name of what is imported."""
        return self.package.replace("-", "_")

    @classmethod
    def read(cls, folder: Path) -> Project:
        """Read the metadata in a folder."""
        data: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        entries = data.get("entry-points", {}).get("tom_connect", {})
        others = (text for text in data["dependencies"] if not text.startswith("tom-connect"))
        return cls(data["name"], folder, tuple(sorted(entries)), tuple(others))


CORE = Project.read(ROOT)
PLUGINS = {p.package: p for p in map(Project.read, sorted(f.parent for f in ROOT.glob("plugins/*/pyproject.toml")))}
EXAMPLES = {p.package: p for p in map(Project.read, sorted(f.parent for f in ROOT.glob("examples/*/pyproject.toml")))}
"""Packages as others write them."""

ALL = tuple(PLUGINS)


def with_needed(*packages: str) -> tuple[str, ...]:
    """The packages and those of this repository that they can't be installed without, in the order of `ALL`."""
    wanted: set[str] = set()
    left = list(packages)
    while left:
        package = left.pop()
        if package not in wanted:
            wanted.add(package)
            names = (re.split(r"[^A-Za-z0-9-]", text, maxsplit=1)[0] for text in PLUGINS[package].requirements)
            left += [each for each in names if each in PLUGINS]
    return tuple(package for package in ALL if package in wanted)


COMBINATIONS: tuple[tuple[str, ...], ...] = tuple(
    dict.fromkeys(with_needed(*packages) for packages in ((), *((p,) for p in ALL), *combinations(ALL, 2), ALL))
)
"""The core alone, each plugin alone, each pair, all; each with what it needs."""


def name(packages: tuple[str, ...]) -> str:
    """A combination as a test's id has it."""
    if packages == ALL:
        return "all"
    return " ".join(package.removeprefix("tom-") for package in packages) or "core alone"
