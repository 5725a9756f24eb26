"""aioquic's own test-suite against our speed overrides: `python -m tests.interop.aioquic_suite.suite`.

It takes the sdist of the installed aioquic from the package index into a temporary directory and runs its tests twice
with qlog off, as qlog disables the overrides: once as they are, once with the overrides in place. Whatever fails only
with the overrides is a fault of theirs; and they must have run, which their counters show.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

MODULES = (
    "test_connection",
    "test_recovery",
    "test_stream",
    "test_packet_builder",
    "test_asyncio",
    "test_h3",
    "test_h0",
)
INTENDED = frozenset({"tests/test_recovery.py::QuicPacketPacerTest::test_with_measurement"})
"""Fails by design: our pacer's bursts are sized in time, aioquic's are 16 packets at most."""
FIXED_PORT = "tests/test_asyncio.py::HighLevelTest::test_connect_local_port"
"""Left out: it binds port 3456, which the other run, or anything on the machine, may have."""
CHILD = Path(__file__).with_name("child.py")
DOWNLOAD_TIME = 180.0  # seconds; pip builds the sdist's metadata
RUN_TIME = 400.0  # of some fifty on an idle machine


class SuiteUnavailableError(Exception):
    """The sdist can't be had here; the message says why."""


@attrs.frozen
class Outcome:
    """One run: node ids of the tests that passed and failed, and what the overrides counted."""

    passed: frozenset[str]
    failed: frozenset[str]
    counters: dict[str, int]
    errors: dict[str, str]


def download(directory: Path) -> Path:
    """The unpacked sdist of the installed aioquic; raises SuiteUnavailableError."""
    version = importlib.metadata.version("aioquic")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "aioquic", "--dest", str(directory), f"aioquic=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIME, check=False)
    except subprocess.TimeoutExpired:
        raise SuiteUnavailableError("the package index did not answer in time") from None
    archives = list(directory.glob("aioquic-*.tar.gz"))
    if done.returncode or not archives:
        raise SuiteUnavailableError(f"pip could not download aioquic's sdist: {done.stderr.strip()[-300:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(directory, filter="data")
    return directory / f"aioquic-{version}"


def run(source: Path, *, fast: bool) -> Outcome:
    """Run the suite in a process of its own."""
    report = source / f"report-{'fast' if fast else 'stock'}.json"
    command = [sys.executable, str(CHILD), "fast" if fast else "stock", str(report)]
    command += [f"tests/{module}.py" for module in MODULES]
    command += [f"--deselect={FIXED_PORT}"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=RUN_TIME, check=False)
    if not report.exists():
        raise RuntimeError(f"the suite did not run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    data = json.loads(report.read_text())
    return Outcome(frozenset(data["passed"]), frozenset(data["failed"]), dict(data["counters"]), dict(data["errors"]))


def broken(stock: Outcome, fast: Outcome) -> list[str]:
    """The tests that only the overrides fail, and those that they kept from running."""
    lost = stock.passed - fast.passed - fast.failed
    return sorted((fast.failed - stock.failed | lost) - INTENDED)


def compare() -> tuple[Outcome, Outcome]:
    """Both runs: as aioquic is, and with the overrides; raises SuiteUnavailableError."""
    with tempfile.TemporaryDirectory() as directory:
        source = download(Path(directory))
        with ThreadPoolExecutor(2) as pool:
            stock = pool.submit(run, source, fast=False)
            fast = pool.submit(run, source, fast=True)
            return stock.result(), fast.result()


def main() -> int:
    """Print the comparison; 1 if the overrides broke a test or did not run."""
    try:
        stock, fast = compare()
    except SuiteUnavailableError as error:
        print(f"skipped: {error}")
        return 0
    faults = broken(stock, fast)
    print(f"stock: {len(stock.passed)} passed, {len(stock.failed)} failed with qlog off")
    print(f"overrides: {len(fast.passed)} passed, {len(fast.failed)} failed; ran {fast.counters}")
    for node in faults:
        print(f"BROKEN {node}\n{fast.errors.get(node, '')}")
    return 1 if faults or not all(fast.counters.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
