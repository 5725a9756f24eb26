"""The first command of the README works in a fresh clone, with nothing but Python and pip; CI runs the second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, blocks


def readme_commands() -> list[str]:
    return [block.text.strip() for block in blocks(ROOT / "README.md") if block.language == "sh"]


def clone_into(folder: Path) -> None:
    """Copy what git has and what it would have after `git add`: no environment, no build, no lock file."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_demo_runs_in_a_fresh_clone(tmp_path: Path) -> None:
    """`pip install uv && uv run --all-packages tom-connect demo` in a new clone and an empty environment."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone of the repository, to make another from")
    clone = tmp_path / "clone"
    clone_into(clone)
    empty = tmp_path / "python"
    venv.create(empty, with_pip=True)
    scripts = empty / ("Scripts" if sys.platform == "win32" else "bin")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "TOX_", "PYTHON", "TOM_CONNECT_"))}
    environment = kept | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONUTF8": "1"}

    command = readme_commands()[0]
    done = subprocess.run(
        command, shell=True, cwd=clone, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )

    assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
    assert "64" in done.stdout


def test_ci_runs_the_second_command() -> None:
    """What .ci/run runs is the second command of the README."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first, second = (part.strip() for part in readme_commands()[1].split("&&"))
    assert first == "pip install uv"
    assert f"\n{second} " in script
