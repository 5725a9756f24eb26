"""The counts of look-ups that outlive a run."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tom_connect import EndpointConfig
from tom_connect.discovery import SourceCounts, keep_statistics, read_statistics
from tom_connect.discovery.statistics import FILE, MAX_FILE, MAX_SOURCES, add_statistics


def test_runs_add_up(tmp_path: Path) -> None:
    """Two runs' counts are read as one sum; a run that asked nobody leaves no line."""
    add_statistics(tmp_path / "data", {"dht": SourceCounts(asked=2, found=1, first=1), "dns": SourceCounts()})
    add_statistics(tmp_path / "data", {"dht": SourceCounts(asked=1, failed=1)})
    add_statistics(tmp_path / "data", {"dht": SourceCounts()})
    assert read_statistics(tmp_path / "data") == {"dht": SourceCounts(asked=3, found=1, first=1, failed=1)}
    assert len((tmp_path / "data" / FILE).read_text().splitlines()) == 2
    assert read_statistics(tmp_path / "nothing") == {}


def test_the_file_stays_small(tmp_path: Path) -> None:
    """Lines of many runs become one, without losing a count."""
    for _ in range(30):
        add_statistics(tmp_path, {f"{number:03}" + "x" * 60: SourceCounts(asked=1) for number in range(60)})
        add_statistics(tmp_path, {"y" * 60 + f"{number:03}": SourceCounts(asked=1) for number in range(60)})
    assert (tmp_path / FILE).stat().st_size < 1.2 * MAX_FILE
    counts = read_statistics(tmp_path)
    assert len(counts) == MAX_SOURCES
    assert counts["000" + "x" * 60].asked == 30


@given(st.binary(max_size=300))
def test_rubbish_in_the_file_is_passed_over(tmp_path_factory: object, junk: bytes) -> None:
    """Whatever stands in a line, the other lines are read and nothing is raised."""
    path = tmp_path_factory.mktemp("data")  # type: ignore[attr-defined]
    (path / FILE).write_bytes(junk + b'\n{"dht":{"asked":1}}\n{"dht":{"asked":-1}}\n{"dht":{"what":1}}\n[1]\n')
    assert read_statistics(path)["dht"].asked == 1


def test_nothing_is_kept_where_nothing_may_be(tmp_path: Path) -> None:
    """Neither with `persist` off, nor where the directory can't be made; neither is an error."""
    counts = {"dht": SourceCounts(asked=1)}
    keep_statistics(EndpointConfig(data_dir=tmp_path / "off", persist=False), counts)
    assert not (tmp_path / "off").exists()
    (tmp_path / "file").write_text("")
    keep_statistics(EndpointConfig(data_dir=tmp_path / "file"), counts)
    keep_statistics(EndpointConfig(data_dir=tmp_path / "on"), counts)
    assert read_statistics(tmp_path / "on") == counts
