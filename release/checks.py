"""What must hold before anything is built. Each check yields a line for each problem."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from release.projects import CORE, Project

REQUIRED = (
    "description",
    "readme",
    "requires-python",
    "license",
    "license-files",
    "authors",
    "keywords",
    "classifiers",
)
LICENSE = "MIT"
PYTHONS = tuple(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14))
CLASSIFIERS = ("Typing :: Typed", "Framework :: AsyncIO", *PYTHONS)
UNRELEASED = "Unreleased"


def metadata_problems(project: Project) -> Iterator[str]:
    """What the metadata lack, and files that they promise and that are not there."""
    for key in REQUIRED:
        if not project.table.get(key):
            yield f"{project.name}: pyproject.toml has no project.{key}"
    if project.table.get("license") != LICENSE:
        yield f"{project.name}: its license is {project.table.get('license')!r}, not {LICENSE}"
    for classifier in CLASSIFIERS:
        if classifier not in project.table.get("classifiers", ()):
            yield f"{project.name}: the classifier '{classifier}' is missing"
    typed = [
        folder / "py.typed"
        for folder in project.folder.glob(f"**/{project.module}")
        if (folder / "__init__.py").exists()
    ]
    for file in (project.folder / "README.md", project.folder / "LICENSE", *typed):
        if not file.is_file():
            yield f"{project.name}: {file.relative_to(project.folder)} is missing"


def changelog_problems(project: Project) -> Iterator[str]:
    """Whether the changelog says what this version brings: in a section of its own, or in the one that becomes it."""
    version = str(project.version)
    sections = project.changelog
    if version in sections:
        date, entries = sections[version]
        if date is None:
            yield f"{project.name}: CHANGELOG.md has no date for {version}: write '## {version} - YYYY-MM-DD'"
        if not entries:
            yield f"{project.name}: CHANGELOG.md says nothing under {version}"
    elif not sections.get(UNRELEASED, (None, 0))[1]:
        yield f"{project.name}: CHANGELOG.md says nothing of {version}, neither under it nor under {UNRELEASED}"


def range_problems(projects: Sequence[Project]) -> Iterator[str]:
    """Whether the packages of this repository allow each other's versions."""
    versions = {canonicalize_name(project.name): project.version for project in projects}
    for project in projects:
        extras = project.table.get("optional-dependencies", {})
        for requirement in (r for extra in (None, *extras) for r in project.requirements(extra)):
            version = versions.get(canonicalize_name(requirement.name))
            if version is None or requirement.name == project.name:
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                yield f"{project.name} requires {requirement}, and {requirement.name} here is {version}"
            if not any(part.operator in ("<", "~=", "==") for part in requirement.specifier):
                yield f"{project.name} requires {requirement} without an upper bound"
        if project.name != CORE and CORE not in {requirement.name for requirement in project.requirements()}:
            yield f"{project.name} does not require {CORE}"


def tag_problems(project: Project, tags: Iterable[str]) -> Iterator[str]:
    """Whether a version that has been released was changed since: it needs a new number then."""
    if project.tag not in tags:
        return
    changed = git(project.folder, "diff", "--name-only", project.tag, "--", *shipped(project))
    if changed:
        files = changed.splitlines()
        what = f"{files[0]} and {len(files) - 1} more"
        yield f"{project.name} {project.version} is tagged and has changed since ({what}): raise its version"


def shipped(project: Project) -> list[str]:
    """The paths in a package's folder that users get."""
    return [path for path in ("src", project.module, "pyproject.toml") if (project.folder / path).exists()]


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints, stripped; raises subprocess.CalledProcessError."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def all_problems(projects: Sequence[Project], tags: Iterable[str]) -> list[str]:
    """Every problem of every package."""
    tags = set(tags)
    found = list(range_problems(projects))
    for project in projects:
        found += [*metadata_problems(project), *changelog_problems(project), *tag_problems(project, tags)]
    return found
