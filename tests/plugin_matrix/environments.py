"""Virtual environments with chosen packages, made by uv where there is one, else by venv and pip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pythons import UV, found

ROOT = Path(__file__).parents[2]
TIMEOUT = 120


def call(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is kept as text."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def must(*command: str | Path, cwd: Path) -> None:
    """Run a program that has to succeed."""
    done = call(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def build_wheel(project: Path, into: Path) -> Path:
    """Build the wheel of a project directory and return it."""
    into.mkdir(parents=True, exist_ok=True)
    before = set(into.glob("*.whl"))
    if UV:
        must(UV, "build", "--wheel", "--no-sources", "--python", sys.executable, "--out-dir", into, project, cwd=into)
    else:
        must(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", into, project, cwd=into)
    (wheel,) = set(into.glob("*.whl")) - before
    return wheel


def found_pythons() -> tuple[Path, ...]:
    """The Pythons of this machine that the packages allow, the oldest first; only ours without uv."""
    return tuple(path for minor in range(11, 20) if (path := found(f"3.{minor}")) is not None)


class Environment:
    """One virtual environment, with a home directory of its own."""

    def __init__(self, path: Path, python: str | Path = sys.executable) -> None:
        self._path = path
        self.home = path / "home"
        if UV:
            must(UV, "venv", "--quiet", "--no-project", "--python", python, path, cwd=path.parent)
        else:
            must(python, "-m", "venv", path, cwd=path.parent)
        self.home.mkdir()
        self._bin = path / ("Scripts" if os.name == "nt" else "bin")
        self.python = self._bin / "python"

    def install(self, *packages: Path | str, lowest: bool = False) -> None:
        """Install wheels or requirements, and what they need from the package index; `lowest` of what is named."""
        if UV:
            how = ("--resolution", "lowest-direct") if lowest else ()
            must(UV, "pip", "install", "--quiet", *how, "--python", self.python, *packages, cwd=self.home)
        else:
            must(self.python, "-m", "pip", "install", "--quiet", *packages, cwd=self.home)

    def uninstall(self, package: str) -> None:
        """Uninstall one package."""
        if UV:
            must(UV, "pip", "uninstall", "--quiet", "--python", self.python, package, cwd=self.home)
        else:
            must(self.python, "-m", "pip", "uninstall", "--quiet", "--yes", package, cwd=self.home)

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's `tom-connect` with these variables beside the usual ones."""
        return call(self._bin / "tom-connect", *arguments, cwd=self.home, environ=self._environ(variables))

    def script(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python: a file with its arguments, or `-c` and a text."""
        return call(self.python, *arguments, cwd=self.home, environ=self._environ(variables))

    def start(self, program: Path) -> subprocess.Popen[str]:
        """Start a Python file that runs until its standard input ends; its standard output is a pipe."""
        return subprocess.Popen(
            [self.python, program],
            cwd=self.home,
            env=self._environ({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def packages(self, prefix: str = "") -> set[str]:
        """The names of the distributions installed."""
        return {name for name in self._distributions() if name.startswith(prefix)}

    def version(self, package: str) -> str:
        """The version of a distribution."""
        return self._distributions()[package]

    def _distributions(self) -> dict[str, str]:
        folder = next(self._path.glob("lib/python*/site-packages"), self._path / "Lib" / "site-packages")
        found = (path.name.removesuffix(".dist-info").rsplit("-", 1) for path in folder.glob("*.dist-info"))
        return {name.replace("_", "-").lower(): version for name, version in found}

    def plugins(self, *arguments: str | Path, **variables: str) -> dict[str, dict[str, Any]]:
        """What `tom-connect plugins --json` says, by package."""
        return {row["package"]: row for row in self.plugin_rows(*arguments, **variables)}

    def plugin_rows(self, *arguments: str | Path, **variables: str) -> list[dict[str, Any]]:
        """The same in its order; a package may have several plugins."""
        done = self.run("plugins", "--json", *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert all(row.pop("event") == "plugin" for row in rows)
        return rows

    def _environ(self, variables: dict[str, str]) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TOM_CONNECT", "PYTHON", "VIRTUAL_ENV"))}
        homes = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        return inherited | {"PYTHONUTF8": "1"} | dict.fromkeys(homes, str(self.home)) | variables


def make_package(directory: Path, package: str, plugin: str, source: str) -> Path:
    """Write a project that somebody else could have written: one module, one entry point; returns its directory."""
    module = package.replace("-", "_")
    project = directory / package
    project.mkdir(parents=True)
    (project / f"{module}.py").write_text(source)
    (project / "pyproject.toml").write_text(
        f"""
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "{package}"
version = "3.1"
requires-python = ">=3.11"
dependencies = ["tom-connect"]

[project.entry-points.tom_connect]
{plugin} = "{module}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""
    )
    return project


def environment(
    directory: Path, wheels: dict[str, Path], *packages: str, python: str | Path = sys.executable
) -> Environment:
    """An environment with the core and these packages."""
    made = Environment(directory / "venv", python)
    made.install(wheels["tom-connect"], *(wheels[package] for package in packages))
    return made
