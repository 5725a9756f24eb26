"""How transfers show their progress, and how amounts are said."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tom_connect.cli import progress as progress_module
from tom_connect.cli.output import Output
from tom_connect.cli.progress import ProgressDisplay
from tom_connect.cli.wording import amount, moved, what
from tom_connect.transfer import Entry, Manifest, Progress, TransferResult


class Terminal(io.StringIO):
    """A terminal that keeps what is shown."""

    def isatty(self) -> bool:
        return True


class Invoked:
    """An invocation whose output is kept."""

    def __init__(self, stderr: io.StringIO, *, as_json: bool) -> None:
        self.out = io.StringIO()
        self.output = Output(json=as_json, stdout=self.out, stderr=stderr)

    @property
    def run(self) -> Any:
        return self


class Ticking:
    """A clock that goes on by what it is told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    ticking = Ticking()
    monkeypatch.setattr(progress_module, "time", ticking)
    return ticking


def test_machines_get_an_event_a_second(clock: Ticking) -> None:
    """However often there is news; the rate counts from the beginning."""
    invoked = Invoked(io.StringIO(), as_json=True)
    with ProgressDisplay(invoked.run) as display:
        shown = display.start(node_id="n")
        shown.begin()
        for step in range(1, 41):
            clock.now += 0.1
            shown(Progress(step * 10, 400, 0, "f"))
    events = [json.loads(line) for line in invoked.out.getvalue().splitlines()]
    assert 3 <= len(events) <= 5
    assert events[0] == {
        "event": "progress", "node_id": "n", "done": 10, "total": 400, "had": 0, "path": "f",
    }  # fmt: skip
    assert shown.rate(400) == pytest.approx(100)


def test_the_time_counts_until_the_end(clock: Ticking) -> None:
    """The other side's last word comes after our last byte, and what is said afterwards takes no time."""
    shown = ProgressDisplay(Invoked(io.StringIO(), as_json=True).run).start()
    shown(Progress(0, 100, 0, "f"))
    shown(Progress(100, 100, 0, "f"))
    clock.now += 0.5
    shown.end()
    clock.now += 7
    shown.end()
    assert shown.seconds == pytest.approx(0.5)
    assert shown.rate(100) == pytest.approx(200)


def test_people_get_a_bar_on_a_terminal() -> None:
    """With the name as it is, brackets and all; nothing of it stays."""
    terminal = Terminal()
    invoked = Invoked(terminal, as_json=False)
    with ProgressDisplay(invoked.run) as display:
        shown = display.start()
        shown(Progress(50, 100, 0, "[red]name" + "x" * 100))
        shown(Progress(100, 100, 0, "[bold]last.txt"))
        shown.end()
    assert invoked.out.getvalue() == ""


def test_a_file_or_pipe_gets_no_bar() -> None:
    """Nothing is drawn where nobody looks."""
    kept = io.StringIO()
    with ProgressDisplay(Invoked(kept, as_json=False).run) as display:
        display.start()(Progress(50, 100, 0, "f"))
    assert kept.getvalue() == ""


def test_amounts_in_words(clock: Ticking, tmp_path: Any) -> None:
    """Sizes in decimal units; one file or several; what was there already; nothing to send."""
    single, folder = Manifest((Entry("f", 67_108_864),)), Manifest((Entry("d", 0, True), Entry("d/f", 1500)))
    assert amount(67_108_864) == "67.1 MB"
    assert what(single) == "f (67.1 MB)"
    assert what(folder) == "d (1 file, 1.5 kB)"
    shown = ProgressDisplay(Invoked(io.StringIO(), as_json=True).run).start()
    shown.begin()
    clock.now += 2
    shown(Progress(1000, 1000, 0, "f"))
    assert moved(TransferResult(single, 2_000_000, 0, tmp_path, None), shown) == "2.0 s at 1.0 MB/s"
    assert moved(TransferResult(single, 0, 5000, tmp_path, None), shown) == (
        "nothing had to be sent, 5.0 kB were there already"
    )
