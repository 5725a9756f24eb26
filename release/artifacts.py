"""What is uploaded: sdists and wheels, built and looked at by the tools of the index."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from release.projects import Project

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class BuildError(Exception):
    """A tool failed; the message has its output."""


@attrs.frozen
class Artifact:
    """One file for the index."""

    path: Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Artifact:
        """Read a file."""
        data = path.read_bytes()
        return cls(path, len(data), hashlib.sha256(data).hexdigest())


def run(*command: str | Path) -> str:
    """Run a tool of this environment; its output. Raises BuildError."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    output = _COLOURS.sub("", done.stdout + done.stderr)
    if done.returncode:
        raise BuildError(f"{' '.join(words)} failed:\n{output.strip()}")
    return output


def tool(name: str) -> Path:
    """The path of a program that was installed beside this Python."""
    return Path(sys.executable).with_name(name)


def build(projects: Sequence[Project], into: Path) -> dict[str, list[Artifact]]:
    """An sdist of each package and, from it, its wheel, in `into`; raises BuildError."""
    built = {}
    for project in projects:
        run(
            tool("uv"),
            "build",
            "--quiet",
            "--no-sources",
            "--python",
            sys.executable,
            "--out-dir",
            into,
            project.folder,
        )
        stem = f"{project.module}-{project.version}"
        paths = (into / f"{stem}.tar.gz", *sorted(into.glob(f"{stem}-*.whl")))
        built[project.name] = [Artifact.of(path) for path in paths]
    return built


def differing(projects: Sequence[Project], built: dict[str, list[Artifact]], scratch: Path) -> Iterator[str]:
    """The wheels that are others when they are built from the folder, not from the sdist; raises BuildError."""
    for project in projects:
        run(
            tool("uv"),
            "build",
            "--quiet",
            "--no-sources",
            "--wheel",
            "--python",
            sys.executable,
            "--out-dir",
            scratch,
            project.folder,
        )
        for artifact in built[project.name]:
            if artifact.path.suffix == ".whl" and Artifact.of(scratch / artifact.path.name).sha256 != artifact.sha256:
                yield f"{artifact.path.name} differs from what the folder builds: the sdist lacks something"


def look_at(artifacts: Sequence[Artifact]) -> None:
    """Let twine and check-wheel-contents judge; raises BuildError."""
    paths = [artifact.path for artifact in artifacts]
    run(tool("twine"), "check", "--strict", *paths)
    run(tool("check-wheel-contents"), *(path for path in paths if path.suffix == ".whl"))
