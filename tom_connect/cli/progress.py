"""How transfers show their progress: a bar on a terminal, an event a second for machines."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from tom_connect.cli.options import Invocation
from tom_connect.transfer import Progress

EVENT_INTERVAL = 1.0
"""Seconds between two `progress` events of a transfer."""


class ProgressDisplay:
    """Use with `with`; `start` gives the listener of one transfer."""

    def __init__(self, run: Invocation) -> None:
        self._run = run
        self._bars: Any = None

    def __enter__(self) -> Self:
        console = self._run.output.console
        if console.is_terminal and not self._run.output.json:
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, **fields: Any) -> TransferProgress:
        """Show one more transfer; `fields` go into its events."""
        return TransferProgress(self._run, self._bars, fields)


class TransferProgress:
    """Shows one transfer, and measures its rate."""

    def __init__(self, run: Invocation, bars: Any, fields: dict[str, Any]) -> None:
        self._run = run
        self._bars = bars
        self._fields = fields
        self._task: Any = None
        self._began: float | None = None
        self._last_event = 0.0
        self.seconds = 0.0

    def begin(self) -> None:
        """Data may come from now on: the rate counts from here."""
        self._began = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Take the news."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        self.seconds = now - self._began
        if self._bars is not None:
            if self._task is None:
                self._task = self._bars.add_task("", total=progress.total)
            self._bars.update(self._task, completed=progress.done, description=_shortened(progress.path))
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
        """Take the bar away."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)

    def rate(self, moved: int) -> float:
        """Bytes a second of so many bytes that went over."""
        return moved / self.seconds if self.seconds > 0 else 0.0


def _shortened(path: str, width: int = 40) -> str:
    return path if len(path) <= width else "…" + path[-width + 1 :]
