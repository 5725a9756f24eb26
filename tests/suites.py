"""A pytest plugin that marks tests by folder: `interop`, `netns`, `costly`, and `slow` for commands as processes.

Where CI is set, no test of the first two may be skipped. Property tests have no deadline: a busy machine is no fault
of theirs. With `--whole-on-newest-of` what is costly or slow, and what dials, runs on one Python only, and property
tests try few examples on the others.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.pythons import newer

settings.register_profile("unhurried", settings.default, deadline=None)
settings.register_profile("brief", settings.get_profile("unhurried"), max_examples=10)
settings.load_profile("unhurried")

_INTEROP = Path(__file__).parent / "interop"
_ROOT = Path(__file__).parents[1]
_PROCESSES = Path(__file__).parent / "e2e"
_DIALS = tuple(Path(__file__).parent / "unit" / name for name in ("endpoint", "rendezvous"))
_COSTLY = (Path(__file__).parent / "sim", Path(__file__).parent / "repository", _ROOT / "plugins")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that leaves things out."""
    parser.addoption(
        "--whole-on-newest-of",
        metavar="VERSIONS",
        help="leave out what is marked costly where a newer one of these Pythons is found, such as 3.12,3.13",
    )


def _newer_pythons(config: pytest.Config) -> list[str]:
    versions = config.getoption("--whole-on-newest-of")
    return newer(versions.split(",")) if versions else []


def pytest_configure(config: pytest.Config) -> None:
    """Few examples, if this is not the Python on which all is run."""
    if _newer_pythons(config):
        settings.load_profile("brief")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is left out, and why."""
    found = _newer_pythons(config)
    return [f"what is costly or slow, and what dials, is left out: it runs on Python {found[-1]}"] if found else []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't even read the folders that are left out as a whole."""
    left_out = (*_COSTLY, *_DIALS, _PROCESSES) if _newer_pythons(config) else ()
    return True if any(folder in collection_path.parents for folder in left_out) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is costly or slow, if this is not the Python on which all is run; begin with what is slow."""
    if _newer_pythons(config):
        costly = [item for item in items if _is_costly(item)]
        config.hook.pytest_deselected(items=costly)
        left_out = set(costly)
        items[:] = [item for item in items if item not in left_out]
    items[:] = _slow_first(items, getattr(config, "workerinput", {}).get("workercount", 1))


def _slow_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests so that each of the workers, which get equal parts one after the other, begins with its slow ones."""
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    rest = iter([item for item in items if item.get_closest_marker("slow") is None])
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        end = len(items) * (worker + 1) // workers
        ordered += slow[worker::workers]
        ordered += itertools.islice(rest, max(0, end - len(ordered)))
    return ordered + list(rest)


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what has been imported and collected: it lives as long as the tests do."""
    gc.freeze()


def _is_costly(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("costly", "simulated", "slow"))


def pytest_itemcollected(item: pytest.Item) -> None:
    for marker in _marks(item.path):
        item.add_marker(marker)


@functools.cache  # paths are slow to compare, and there are thousands of tests
def _marks(path: Path) -> tuple[str, ...]:
    """The markers that the folders of a file give to its tests."""
    folders = {
        "interop": path.is_relative_to(_INTEROP),
        "netns": _in_netns(path),
        "slow": path.is_relative_to(_PROCESSES),
        "costly": any(map(path.is_relative_to, _COSTLY)),
    }
    return tuple(marker for marker, given in folders.items() if given)


def _in_netns(path: Path) -> bool:
    return path.is_relative_to(_ROOT) and "netns" in path.relative_to(_ROOT).parts


def in_ci() -> bool:
    """Whether the environment says that this is a CI run (CI=true, as the common services set it)."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and in_ci() and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI must have every interop peer and network namespaces, but this was skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("interop") is not None or item.get_closest_marker("netns") is not None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _INTEROP in collector.path.parents or _in_netns(collector.path):
        _fail_if_skipped(report)
    return report
