"""What a benchmark returns, and how it is shown: a table whose rows are contenders, with ratios to one of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table


@attrs.frozen
class Column:
    """One quantity: its name in JSON, its heading, and whether more of it is better."""

    key: str
    heading: str
    more_is_better: bool = False
    ratio: bool = True
    digits: int = 1


@attrs.define
class Row:
    """One contender's samples by column key; `absent` says why there are none."""

    name: str
    samples: dict[str, list[float]] = attrs.field(factory=dict)
    absent: str | None = None

    def add(self, **values: float | None) -> None:
        """Add one round's values; None is a value that did not come, such as nothing found."""
        for key, value in values.items():
            if value is not None:
                self.samples.setdefault(key, []).append(value)

    def median(self, key: str) -> float | None:
        """Return the median of a column, None without samples."""
        values = self.samples.get(key)
        return statistics.median(values) if values else None

    def p95(self, key: str) -> float | None:
        """Return the 95th percentile of a column, None without samples."""
        values = sorted(self.samples.get(key, ()))
        return values[min(len(values) - 1, round(0.95 * (len(values) - 1)))] if values else None


@attrs.frozen
class Aim:
    """Something that we want the figures to show, and whether they do; None where a contender is missing."""

    text: str
    met: bool | None


@attrs.define
class Report:
    """One benchmark's table."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: list[Row]
    reference: str
    notes: list[str] = attrs.field(factory=list)
    aims: list[Aim] = attrs.field(factory=list)

    def row(self, name: str) -> Row:
        """Return a contender's row."""
        return next(row for row in self.rows if row.name == name)

    def value(self, name: str, key: str) -> float | None:
        """Return a contender's median, None where it has none."""
        return next((row.median(key) for row in self.rows if row.name == name), None)

    def ratio(self, name: str, key: str, to: str | None = None) -> float | None:
        """Return how many times the reference's median a contender's is."""
        own, other = self.value(name, key), self.value(to or self.reference, key)
        return own / other if own is not None and other else None

    def aim(self, text: str, left: float | None, holds: Callable[[float, float], bool], right: float | None) -> None:
        """Record whether `left` stands to `right` as wanted, with both in the text."""
        if left is None or right is None:
            self.aims.append(Aim(f"{text}: not measured", None))
        else:
            self.aims.append(Aim(f"{text}: {left:.3g} and {right:.3g}", holds(left, right)))

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values, each sample included."""
        return {
            "bench": self.name,
            "title": self.title,
            "reference": self.reference,
            "rows": [
                {
                    "name": row.name,
                    **({"absent": row.absent} if row.absent else {}),
                    **{
                        column.key: {
                            "median": row.median(column.key),
                            "p95": row.p95(column.key),
                            "ratio": self.ratio(row.name, column.key) if column.ratio else None,
                            "samples": row.samples.get(column.key, []),
                        }
                        for column in self.columns
                    },
                }
                for row in self.rows
            ],
            "aims": [{"text": aim.text, "met": aim.met} for aim in self.aims],
            "notes": self.notes,
        }

    def show(self, console: Console) -> None:
        """Print the table: medians, and how many times the reference they are."""
        table = Table(title=f"{self.name}: {self.title}", title_justify="left")
        table.add_column("")
        for column in self.columns:
            table.add_column(column.heading + (", more is better" if column.more_is_better else ""), justify="right")
        for row in self.rows:
            if row.absent:
                table.add_row(row.name, f"[dim]{row.absent}[/dim]")
                continue
            table.add_row(row.name, *(self._cell(row, column) for column in self.columns))
        console.print(table)
        for aim in self.aims:
            word = {True: "[green]met[/green]", False: "[red]not met[/red]", None: "[dim]open[/dim]"}[aim.met]
            console.print(f"  aim {word}: {aim.text}")
        for note in self.notes:
            console.print(f"  [dim]{note}[/dim]")
        console.print()

    def _cell(self, row: Row, column: Column) -> str:
        median = row.median(column.key)
        if median is None:
            return "-"
        text = f"{median:,.{column.digits}f}"
        times = self.ratio(row.name, column.key)
        return f"{text} [dim]{times:.2f}x[/dim]" if column.ratio and times is not None else text


@attrs.frozen
class Options:
    """What the command line chose: sizes for the smoke test, rounds, contenders to leave out, rows to run alone."""

    tiny: bool = False
    rounds: int | None = None
    without: frozenset[str] = frozenset()
    only: tuple[str, ...] = ()

    def wants(self, row: str) -> bool:
        """Whether a row of that name is to be measured."""
        return not self.only or any(part in row for part in self.only)

    def pick(self, full: int, tiny: int) -> int:
        """Return the size for this run."""
        return tiny if self.tiny else full

    def count(self, full: int, tiny: int = 1) -> int:
        """Return the number of rounds for this run."""
        return self.rounds or self.pick(full, tiny)


@attrs.frozen
class Bench:
    """A benchmark: its name on the command line, what it measures, and how to run it."""

    name: str
    title: str
    run: Callable[[Options], Coroutine[Any, Any, Report]]
