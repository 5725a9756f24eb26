"""A pytest plugin that marks tests by folder: `interop`, `netns`, `costly`, and `slow` for commands as processes.

Where CI is set, no test of the first two may be skipped. Property tests have no deadline: a busy machine is no fault
of theirs. With `--hypothesis-profile=brief` they try a few examples only.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", settings.default, deadline=None)
settings.register_profile("brief", settings.get_profile("unhurried"), max_examples=10)
settings.load_profile("unhurried")

_INTEROP = Path(__file__).parent / "interop"
_ROOT = Path(__file__).parents[1]
_PROCESSES = Path(__file__).parent / "e2e"
_COSTLY = (Path(__file__).parent / "sim", Path(__file__).parent / "repository")


def pytest_itemcollected(item: pytest.Item) -> None:
    if _INTEROP in item.path.parents:
        item.add_marker("interop")
    if _in_netns(item.path):
        item.add_marker("netns")
    if _PROCESSES in item.path.parents:
        item.add_marker("slow")
    if any(folder in item.path.parents for folder in _COSTLY):
        item.add_marker("costly")


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
