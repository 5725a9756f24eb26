"""`python -m release --dry-run`: what it finds wrong, and that with nothing wrong it builds, installs and dials."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("packaging", reason="needs the dependency group release")
pytest.importorskip("twine", reason="needs the dependency group release")
pytest.importorskip("check_wheel_contents", reason="needs the dependency group release")

from release.__main__ import main
from release.projects import CORE, ROOT, Project, all_projects, sections

PROJECTS = all_projects()


def git(folder: Path, *arguments: str) -> None:
    """Run git with an identity of its own."""
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with what a release looks at: the packages, without what is built of them."""
    root = tmp_path / "checkout"
    left_out = shutil.ignore_patterns("__pycache__", "node_modules", "tests", "dist")
    for name in ("tom_connect", "plugins"):
        shutil.copytree(ROOT / name, root / name, ignore=left_out)
    for name in ("pyproject.toml", "CHANGELOG.md", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "All")
    return root


def edit(file: Path, pattern: str, replacement: str) -> None:
    """Replace what a pattern finds, which must be there."""
    text, count = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    file.write_text(text, encoding="utf-8")


def checked(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and output of the checks that build nothing."""
    code = main(["--dry-run", "--checks-only", "--root", str(root)])
    return code, capsys.readouterr().out


def tags() -> str:
    """The tags of this repository."""
    return subprocess.run(["git", "tag", "--list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(600)
def test_dry_run(tmp_path: Path) -> None:
    """All packages build, pass the index's checks, install by pip in a fresh environment and dial; nothing is set."""
    out = tmp_path / "dist"
    command = [sys.executable, "-m", "release", "--dry-run", "--out", str(out)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    before = tags()
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("twine check and check-wheel-contents passed", "dialed by dht and pkarr", "sdist builds the wheel"):
        assert words in done.stdout
    for project in PROJECTS:
        assert f"tag {project.tag}" in done.stdout
        wheel = next(out.glob(f"{project.module}-{project.version}-*.whl"))
        assert f"upload {wheel.name}" in done.stdout
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        assert f"{project.module}/py.typed" in names
        assert {name.split("/")[0] for name in names} == {
            project.module,
            f"{project.module}-{project.version}.dist-info",
        }
        with tarfile.open(out / f"{project.module}-{project.version}.tar.gz") as archive:
            inside = {name.partition("/")[2] for name in archive.getnames()}
        assert {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"} <= inside
    assert tags() == before


def test_the_files_as_they_are(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing stands in the way of a release of every package, all of which are due."""
    code, out = checked(checkout, capsys)
    assert (code, "PROBLEM" in out) == (0, False), out
    assert f"Due: {', '.join(project.name for project in PROJECTS)}" in out


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "says"),
    [
        ("plugins/tom-relay/pyproject.toml", r'^license = "MIT"', 'license = "BSD-3-Clause"', "not MIT"),
        ("plugins/tom-relay/pyproject.toml", r"^readme.*", "", "no project.readme"),
        ("plugins/tom-relay/pyproject.toml", r'^    "Typing :: Typed",', "", "'Typing :: Typed' is missing"),
        ("plugins/tom-relay/pyproject.toml", r"tom-connect>=0.1,<0.2", "tom-connect>=0.1", "without an upper bound"),
        ("plugins/tom-relay/pyproject.toml", r"tom-connect>=0.1,<0.2", "tom-connect>=7,<8", "tom-connect here is 0.1"),
        ("plugins/tom-relay/pyproject.toml", r'^    "tom-connect>.*', "", "does not require tom-connect"),
        ("plugins/tom-relay/pyproject.toml", r'^version = .*', 'version = "9.0"', "tom-relay here is 9.0"),
        ("plugins/tom-relay/pyproject.toml", r'^version = .*', 'version = "next"', "Invalid version: 'next'"),
        ("plugins/tom-relay/pyproject.toml", r"^\[project\]", "[project", "TOMLDecodeError"),
        ("plugins/tom-relay/CHANGELOG.md", r"^## Unreleased", "## 0.0.9 - 2020-01-01", "says nothing of 0.1.0"),
        ("plugins/tom-relay/CHANGELOG.md", r"^## Unreleased", "## 0.1.0", "has no date for 0.1.0"),
        ("plugins/tom-relay/CHANGELOG.md", r"^## Unreleased", "## 0.1.0 - 2026-01-01\n\n## 0.0.9", "nothing under"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    checkout: Path, capsys: pytest.CaptureFixture[str], file: str, pattern: str, replacement: str, says: str
) -> None:
    """One mistake in one package: exit code 1, and a line that says whose and what."""
    edit(checkout / file, pattern, replacement)
    code, out = checked(checkout, capsys)
    assert code == 1
    assert any(says in line and ("tom-relay" in line) for line in out.splitlines() if "PROBLEM" in line), out


def test_a_missing_file_is_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package without its marker of types is no typed package."""
    (checkout / "tom_connect" / "py.typed").unlink()
    code, out = checked(checkout, capsys)
    assert (code, "tom-connect: tom_connect/py.typed is missing" in out) == (1, True)


def test_versions_are_independent(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is tagged and unchanged is not due; what has changed since its tag needs another version, it alone."""
    for project in all_projects(checkout):
        git(checkout, "tag", project.tag)
    code, out = checked(checkout, capsys)
    assert (code, "Due: none" in out) == (0, True)

    edit(checkout / "plugins" / "tom-relay" / "src" / "tom_relay" / "errors.py", r"\Z", "\n# changed\n")
    code, out = checked(checkout, capsys)
    problems = [line for line in out.splitlines() if "PROBLEM" in line]
    assert code == 1
    assert len(problems) == 1 and "tom-relay 0.1.0 is tagged and has changed since" in problems[0]

    edit(checkout / "plugins" / "tom-pkarr" / "pyproject.toml", r"dnspython>=2.6.1", "dnspython>=2.7")
    edit(checkout / "pyproject.toml", r"^line-length = 120", "line-length = 119")
    edit(checkout / "plugins" / "tom-relay" / "README.md", r"\Z", "\nMore.\n")
    code, out = checked(checkout, capsys)
    problems = [line for line in out.splitlines() if "PROBLEM" in line]
    assert (code, len(problems)) == (1, 2), out
    assert "tom-pkarr 0.1.0 is tagged and has changed since (its metadata)" in problems[0]

    edit(checkout / "plugins" / "tom-pkarr" / "pyproject.toml", r"dnspython>=2.7", "dnspython>=2.6.1")
    edit(checkout / "plugins" / "tom-relay" / "pyproject.toml", r'^version = "0.1.0"', 'version = "0.1.1"')
    code, out = checked(checkout, capsys)
    assert (code, "Due: tom-relay\n" in out) == (0, True), out


def test_it_only_rehearses(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --dry-run it does nothing: there is no other way to run it."""
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "--dry-run" in capsys.readouterr().err


def test_it_needs_a_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without packages is one clear line."""
    code, out = checked(tmp_path, capsys)
    assert code == 1
    assert "FileNotFoundError" in out and "pyproject.toml" in out


def test_sections_of_a_changelog() -> None:
    """Headings with and without brackets and dates, and the entries under each, whatever group they are in."""
    text = "# C\n\n## Unreleased\n\n### Added\n\n- a\n  more\n- b\n\n## [1.2.0] - 2026-01-02\n\n- c\n\n## 1.1\n"
    assert sections(text) == {"Unreleased": (None, 2), "1.2.0": ("2026-01-02", 1), "1.1": (None, 0)}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_the_range_of_a_plugin(project: Project) -> None:
    """Each plugin allows the cores of one series; the extras of the core allow each plugin that is here."""
    if project.name == CORE:
        extras = {extra: project.requirements(extra) for extra in project.table["optional-dependencies"]}
        versions = {other.name: other.version for other in PROJECTS}
        ranges = [(r.name, r.specifier) for extra, found in extras.items() if extra != "all" for r in found]
        assert {name for name, _ in ranges} == set(versions) - {CORE}
        assert all(versions[name] in specifier for name, specifier in ranges)
    else:
        (core,) = [r for r in project.requirements() if r.name == CORE]
        assert {part.operator for part in core.specifier} == {">=", "<"}
