"""Every benchmark runs, with sizes that say nothing about speed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from benchmarks.__main__ import BENCHES, main
from benchmarks.report import Column, Report, Row
from tests.interop.peers.process import REPOSITORY
from tom_connect.testing.natlab import missing


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BENCHES)
def test_runs_with_every_contender(name: str) -> None:
    """A benchmark ends with a sample in each column of each contender."""
    if lacking := [
        package for package in ("iroh", "libtorrent", "psutil", "qh3") if not importlib.util.find_spec(package)
    ]:
        pytest.skip(f"needs {', '.join(lacking)} (dependency group bench)")
    if name.startswith(("nat", "serverless")) and (lacking := missing()):
        pytest.skip(f"needs {', '.join(lacking)}")
    command = [sys.executable, "-m", "benchmarks", name, "--tiny", "--rounds", "1", "--json"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["bench"] == name
    assert len(report["rows"]) >= 2
    for row in report["rows"]:
        if any(word in row.get("absent", "") for word in ("bittorrent-dht", "network lab")):
            pytest.skip(row["absent"])
        assert "absent" not in row
        figures = {key: value["samples"] for key, value in row.items() if isinstance(value, dict)}
        optional = {"answered", "lost", "tom-connect_direct", "iroh_direct"}
        assert all(samples for key, samples in figures.items() if key not in optional), row["name"]


def test_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name the command lists every benchmark."""
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in BENCHES)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that does not exist is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2
    assert "no such benchmark: nonsense" in capsys.readouterr().err


def test_medians_and_ratios_are_of_the_samples() -> None:
    """Ratios are between medians, and an aim is open where a contender is missing."""
    rows = [Row("a", {"x": [1.0, 2.0, 100.0]}), Row("b", {"x": [5.0, 4.0]}), Row("c", absent="not installed")]
    report = Report("n", "t", [Column("x", "X")], rows, "a")
    assert (report.value("a", "x"), report.value("b", "x"), report.ratio("b", "x")) == (2.0, 4.5, 2.25)
    report.aim("b twice a", report.ratio("b", "x"), lambda left, right: left >= right, 2.0)
    report.aim("c twice a", report.ratio("c", "x"), lambda left, right: left >= right, 2.0)
    assert [aim.met for aim in report.aims] == [True, None]
