"""A fresh virtual environment, as a user makes one: plain pip installs from the folder, and a dial works."""

from __future__ import annotations

import json
import os
import venv
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from release.artifacts import BuildError, run
from release.projects import Project

DIAL = Path(__file__).with_name("dial.py")


def install(directory: Path, wheels: Path, wanted: str) -> Path:
    """Install a requirement with pip in a fresh environment; its Python. Raises BuildError."""
    venv.create(directory, with_pip=True)
    python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
    report = directory / "report.json"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--report", report, "--find-links", wheels, wanted)
    return python


def strangers(directory: Path, wheels: Path, projects: Sequence[Project]) -> list[str]:
    """The packages of ours that pip took from elsewhere: an index may have others of that name."""
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    ours = {project.name for project in projects}
    found = []
    for item in report["install"]:
        name, url = item["metadata"]["name"], item["download_info"]["url"]
        if name in ours and Path(unquote(urlsplit(url).path)).parent != wheels.resolve():
            found.append(f"{name} came from {url}")
    return found


def dial(python: Path) -> str:
    """Two nodes meet by NodeId, in a DHT and at a Pkarr relay of their own; what they say. Raises BuildError."""
    return run(python, "-P", DIAL).strip()


def plugin_problems(python: Path) -> list[str]:
    """The plugins that are installed and not loaded; raises BuildError."""
    rows = [json.loads(line) for line in run(python, "-P", "-m", "tom_connect", "plugins", "--json").splitlines()]
    if not rows:
        raise BuildError("no plugin was found in the fresh environment")
    return [f"plugin {row['name']} is {row['state']}: {row['reason']}" for row in rows if row["state"] != "loaded"]
