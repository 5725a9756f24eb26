"""The checks that every test of this repository runs under can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, plugin: str, body: str, *options: str
) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"import asyncio, socket, pytest\nKEPT = []\n{body}")
    return pytester.runpytest_subprocess("-p", plugin, "-p", "no:xdist", *options, timeout=60)


def test_leaked_task_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that leaves a task running fails; one that cancels its task or whose fixture does so passes."""
    body = """
async def test_leaks(): KEPT.append(asyncio.create_task(asyncio.sleep(60)))
async def test_cancels(): asyncio.create_task(asyncio.sleep(60)).cancel()
@pytest.fixture
async def task():
    task = asyncio.create_task(asyncio.sleep(60))
    yield
    task.cancel()
async def test_fixture_cancels(task): pass
@pytest.mark.leaks("on purpose")
async def test_means_to(): KEPT.append(asyncio.create_task(asyncio.sleep(60)))
"""
    result = run(pytester, monkeypatch, "tests.leaks", body)
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*the test left tasks running*"])


def test_open_socket_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that leaves a socket open fails, synchronous or not; one that closes it passes."""
    body = """
def test_leaks(): KEPT.append(socket.socket())
async def test_leaks_too(): KEPT.append(socket.socket())
def test_closes(): socket.socket().close()
async def test_closes_too(): socket.socket().close()
"""
    result = run(pytester, monkeypatch, "tests.leaks", body)
    result.assert_outcomes(passed=4, errors=2)


@pytest.mark.parametrize(("ci", "passed", "skipped", "failed"), [("true", 1, 0, 1), ("", 1, 1, 0)])
def test_missing_peer_fails_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, passed: int, skipped: int, failed: int
) -> None:
    """A skipped interop test fails where CI is set, and nowhere else."""
    monkeypatch.setenv("CI", ci)
    body = """
pytestmark = pytest.mark.interop
def test_peer_is_missing(): pytest.skip("no peer")
def test_peer_is_there(): pass
"""
    run(pytester, monkeypatch, "tests.suites", body).assert_outcomes(passed=passed, skipped=skipped, failed=failed)


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="needs an environment that tox made")
def test_wheels_are_tested(tmp_path: Path) -> None:
    """In tox, tests and the processes that they start import the installed wheel, not the source beside them."""
    import tom_connect

    assert ROOT / "tom_connect" not in Path(tom_connect.__file__).parents
    shown = "import tom_connect; print(tom_connect.__file__)"
    for folder in (ROOT, tmp_path):
        child = subprocess.run([sys.executable, "-c", shown], cwd=folder, capture_output=True, text=True, check=True)
        assert Path(child.stdout.strip()) == Path(tom_connect.__file__)


@pytest.mark.parametrize(("versions", "passed", "deselected"), [("", 2, 0), ("3.{minor}", 2, 0), ("3.{next}", 1, 1)])
def test_costly_tests_run_on_the_newest_python(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, versions: str, passed: int, deselected: int
) -> None:
    """What is costly is left out where a newer one of the named Pythons is found, and nowhere else."""
    minor = sys.version_info.minor
    body = """
@pytest.mark.costly
def test_costs_much(): pass
def test_is_quick(): pass
"""
    find = pytester.mkdir("bin") / "uv"
    find.write_text(f'#!/bin/sh\nfor last; do :; done\n[ "$last" = 3.{minor + 1} ] && echo /there/python\n')
    find.chmod(0o755)
    monkeypatch.setenv("PATH", f"{find.parent}{os.pathsep}{os.environ['PATH']}")
    chosen = versions.format(minor=minor, next=minor + 1)
    result = run(pytester, monkeypatch, "tests.suites", body, *([f"--whole-on-newest-of={chosen}"] if chosen else []))
    result.assert_outcomes(passed=passed, deselected=deselected)
