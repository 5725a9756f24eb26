"""How transfers show their progress: a bar on a terminal, an event a second for machines."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tom_connect.cli.options import Invocation
from tom_connect.transfer import Progress

if TYPE_CHECKING:
    from rich.console import Console

EVENT_INTERVAL = 1.0
"""Seconds between two `progress` events of a transfer."""


class ProgressDisplay:
    """Use with `with`; `start` gives the listener of one transfer."""

    def __init__(self, run: Invocation) -> None:
        self._run = run
        self._bars = _Bars(run.output.console) if run.output.console.is_terminal and not run.output.json else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.clear()

    def start(self, **fields: Any) -> TransferProgress:
        """Show one more transfer; `fields` go into its events."""
        return TransferProgress(self._run, self._bars, fields)


class _Bars:
    """The bars on a terminal, which are there only while there is something to show: they redraw their lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Any = None

    def update(self, task: Any, progress: Progress) -> Any:
        """Show one, which is `task`, or a new one if that is None."""
        if self._progress is None:
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as RichProgress

            self._progress = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.start()
        if task is None:
            task = self._progress.add_task("", total=progress.total)
        self._progress.update(task, completed=progress.done, description=_shortened(progress.path))
        return task

    def remove(self, task: Any) -> None:
        """Take one away."""
        if self._progress is not None:
            self._progress.remove_task(task)
            if not self._progress.task_ids:
                self.clear()

    def clear(self) -> None:
        """Take all away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class TransferProgress:
    """Shows one transfer, and measures its rate."""

    def __init__(self, run: Invocation, bars: _Bars | None, fields: dict[str, Any]) -> None:
        self._run = run
        self._bars = bars
        self._fields = fields
        self._task: Any = None
        self._began: float | None = None
        self._last_event = 0.0
        self._ended: float | None = None
        self.seconds = 0.0

    def begin(self) -> None:
        """Data may come from now on: the rate counts from here."""
        self._began = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Take the news."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        if self._ended is None:
            self.seconds = now - self._began
        if self._bars is not None:
            self._task = self._bars.update(self._task, progress)
        if self._run.output.json and now - self._last_event >= EVENT_INTERVAL:
            self._last_event = now
            self._run.output.event(
                "progress",
                **self._fields,
                done=progress.done,
                total=progress.total,
                had=progress.had,
                path=progress.path,
            )

    def end(self) -> None:
        """The transfer has ended, whatever is left to be said of it: stop the clock, and take the bar away."""
        if self._ended is None:
            self._ended = time.monotonic()
            if self._began is not None:
                self.seconds = self._ended - self._began
        if self._bars is not None and self._task is not None:
            self._bars.remove(self._task)
            self._task = None

    def rate(self, moved: int) -> float:
        """Bytes a second of so many bytes that went over."""
        return moved / self.seconds if self.seconds > 0 else 0.0


def _shortened(path: str, width: int = 40) -> str:
    return path if len(path) <= width else "…" + path[-width + 1 :]
