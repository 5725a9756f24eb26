"""The packages of this repository as their files describe them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
CORE = "tom-connect"
_SECTION = re.compile(r"^## \[?([^\]\s]+)\]?(?: - (\d{4}-\d{2}-\d{2}))?\s*$")


class ProjectError(Exception):
    """A package can't be read; the message says which file and why."""


@attrs.frozen
class Project:
    """One package: its folder, the table `project` of its pyproject.toml, and its changelog by sections."""

    folder: Path
    table: dict[str, Any] = attrs.field(repr=False)
    changelog: dict[str, tuple[str | None, int]] = attrs.field(repr=False)
    """Version or `Unreleased` to its date and number of entries, in the order of the file."""

    @property
    def name(self) -> str:
        """The name of the distribution."""
        return str(self.table["name"])

    @property
    def version(self) -> Version:
        """The version that the folder has; raises ProjectError."""
        try:
            return Version(self.table["version"])
        except InvalidVersion as error:
            raise ProjectError(f"{self.name}: {error}") from None

    @property
    def tag(self) -> str:
        """The git tag of this version."""
        return f"{self.name}-v{self.version}"

    @property
    def module(self) -> str:
        """What is imported."""
        return self.name.replace("-", "_")

    def requirements(self, extra: str | None = None) -> list[Requirement]:
        """What it requires, or what one of its extras does."""
        texts = self.table.get("dependencies", ()) if extra is None else self.table["optional-dependencies"][extra]
        return [Requirement(text) for text in texts]

    @classmethod
    def read(cls, folder: Path) -> Project:
        """Read pyproject.toml and CHANGELOG.md of a folder; raises ProjectError."""
        try:
            table = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            table["name"], table["version"]
            changelog = sections((folder / "CHANGELOG.md").read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            raise ProjectError(f"{folder}: {type(error).__name__}: {error}") from None
        return cls(folder, table, changelog)


def sections(changelog: str) -> dict[str, tuple[str | None, int]]:
    """The second-level headings of a changelog, each with its date and number of entries (lines that begin so: `-`)."""
    found: dict[str, tuple[str | None, int]] = {}
    current = ""
    for line in changelog.splitlines():
        if match := _SECTION.match(line):
            current = match[1]
            found[current] = (match[2], 0)
        elif current and line.startswith("- "):
            date, entries = found[current]
            found[current] = (date, entries + 1)
    return found


def all_projects(root: Path = ROOT) -> list[Project]:
    """The core, then its plugins by name; raises ProjectError."""
    return [Project.read(root), *(Project.read(file.parent) for file in sorted(root.glob("plugins/*/pyproject.toml")))]
