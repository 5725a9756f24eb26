"""`python -m release --dry-run`: build, check and install everything, and say what a release would set and upload."""

from __future__ import annotations

import argparse
import datetime
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from release import artifacts, checks, fresh
from release.projects import ROOT, Project, ProjectError, all_projects

WANTED = "tom-connect[dht,pkarr]"


def say(text: str) -> None:
    """Print at once: what follows takes a while."""
    print(text, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", required=True, help="the only way to run it: it never tags and never uploads"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: the one this file is in)")
    parser.add_argument("--out", type=Path, help="keep sdists and wheels in this folder, which must not exist yet")
    parser.add_argument("--checks-only", action="store_true", help="check files and tags, and build nothing")
    return parser.parse_args(argv)


def stop(problems: Sequence[str]) -> int:
    """Say what is wrong; the exit code."""
    for problem in problems:
        say(f"  PROBLEM {problem}")
    say(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}: nothing can be released yet.")
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 if a release could be made, 1 if not, 2 for a wrong command line."""
    options = arguments(argv)
    try:
        projects = all_projects(options.root)
        tags = checks.git(options.root, "tag", "--list").split()
        problems = checks.all_problems(projects, tags)
    except ProjectError as error:
        return stop([str(error)])
    except (OSError, subprocess.CalledProcessError) as error:
        return stop([f"{options.root} must be a git checkout: {error}"])
    due = [project for project in projects if project.tag not in tags]
    say(f"Packages: {', '.join(f'{p.name} {p.version}' for p in projects)}")
    say(f"Due: {', '.join(p.name for p in due) or 'none, every version is tagged'}")
    if problems:
        return stop(problems)
    say("Metadata, changelogs, version ranges and tags agree.")
    if options.checks_only:
        return 0
    if options.out is not None and options.out.exists():
        return stop([f"{options.out} exists; name a folder that does not"])
    with tempfile.TemporaryDirectory(prefix="tom-release-") as scratch:
        try:
            return rehearse(projects, due, Path(scratch), options.out)
        except artifacts.BuildError as error:
            return stop([str(error)])


def rehearse(projects: Sequence[Project], due: Sequence[Project], scratch: Path, out: Path | None) -> int:
    """Build, check, install and dial; then say what would be done. Raises BuildError."""
    wheels = scratch / "dist"
    built = artifacts.build(projects, wheels)
    if problems := list(artifacts.differing(projects, built, scratch / "again")):
        return stop(problems)
    say("Built: each sdist builds the wheel that its folder builds.")
    artifacts.look_at([artifact for files in built.values() for artifact in files])
    say("twine check and check-wheel-contents passed.")
    python = fresh.install(scratch / "venv", wheels, WANTED)
    if problems := [*fresh.strangers(scratch / "venv", wheels, projects), *fresh.plugin_problems(python)]:
        return stop(problems)
    say(f"pip installed {WANTED} in a fresh environment: {fresh.dial(python)}.")
    if out is not None:
        shutil.copytree(wheels, out)
    say("\nA release would now:")
    for line in plan(due, built):
        say(f"  {line}")
    return 0


def plan(due: Sequence[Project], built: dict[str, list[artifacts.Artifact]]) -> list[str]:
    """What is left to a person, in the order in which it is done."""
    if not due:
        return ["do nothing: every version is tagged"]
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"edit {project.folder.name if project.name != 'tom-connect' else '.'}/CHANGELOG.md: "
        f"'## {checks.UNRELEASED}' becomes '## {project.version} - {today}'"
        for project in due
        if str(project.version) not in project.changelog
    ]
    lines += [f"tag {project.tag}" for project in due]
    for project in due:
        lines += [f"upload {a.path.name} ({a.size} bytes, sha256 {a.sha256})" for a in built[project.name]]
    return lines


if __name__ == "__main__":
    sys.exit(main())
