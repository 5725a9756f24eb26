"""What a command says: the same events as lines for people or as JSON for machines."""

from __future__ import annotations

import enum
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import IO, TYPE_CHECKING, Any

import attrs

from tom_connect.addr import SocketAddr

if TYPE_CHECKING:
    from rich.console import Console


class OutputClosedError(Exception):
    """Nobody reads what we print any more; the command ends without a word."""


class Output:
    """Prints events.

    With `json`, `event` writes one JSON object a line, flushed, and what is for people alone is left out. Otherwise it
    writes the text that it is given. Both go to standard output, or to standard error where `data_on_stdout` says
    that standard output carries the command's data. Progress and notes for people always go to standard error.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        data_on_stdout: bool = False,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.json = json
        self._stderr = stderr or sys.stderr
        self._stream = self._stderr if data_on_stdout else stdout or sys.stdout
        self._consoles: dict[int, Console] = {}

    def event(self, name: str, text: str | None = None, /, **fields: Any) -> None:
        """Say that something happened: `{"event": name, **fields}`, or `text` for people (None: nothing).

        Fields may hold NodeId, SocketAddr, paths, enums, attrs values and the like: they become texts and objects.
        Raises OutputClosedError if the reader is gone.
        """
        if self.json:
            self._write(self._stream, json.dumps({"event": name} | _plain(fields)) + "\n")
        elif text is not None:
            self._print(self._stream, text)

    def note(self, text: str) -> None:
        """Tell people something on standard error; machines need not know it."""
        if not self.json:
            self._print(self._stderr, text)

    def table(self, name: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
        """Print rows: one event each for machines; a table, or the line `empty`, for people."""
        rows = list(rows)
        if self.json:
            for row in rows:
                self.event(name, **row)
            return
        if not rows:
            self._print(self._stream, empty)
            return
        from rich.table import Table

        shown = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            shown.add_row(*(_cell(row[column]) for column in columns))
        console = self._console(self._stream)
        if not console.is_terminal:
            console.width = 400  # a file or a pipe has no width at which cells must be cut
        self._guard(lambda: console.print(shown))

    @property
    def console(self) -> Console:
        """A rich console on standard error, for progress bars; quiet with `json`."""
        return self._console(self._stderr)

    def error(self, kind: str, message: str, exit_code: int) -> None:
        """Report what ended the command: one line on standard error, or an `error` event."""
        if self.json:
            try:
                self.event("error", error=kind, message=message, exit_code=exit_code)
            except OSError:  # standard output itself is what failed, such as a file on a full disk
                pass
            else:
                return
        self._write(self._stderr, f"tom-connect: error: {one_line(message)}\n")

    def _console(self, stream: IO[str]) -> Console:
        if id(stream) not in self._consoles:
            from rich.console import Console

            quiet = self.json and stream is self._stderr
            self._consoles[id(stream)] = Console(file=stream, markup=False, highlight=False, quiet=quiet)
        return self._consoles[id(stream)]

    def _print(self, stream: IO[str], text: str) -> None:
        if stream.isatty():
            self._guard(lambda: self._console(stream).print(text, soft_wrap=True))
        else:
            self._write(stream, text + "\n")

    def _write(self, stream: IO[str], text: str) -> None:
        def write() -> None:
            stream.write(text)
            stream.flush()

        self._guard(write)

    def _guard(self, write: Any) -> None:
        try:
            write()
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise OutputClosedError from exc
        except ValueError as exc:  # "I/O operation on closed file"
            if self._stream.closed or self._stderr.closed:
                raise OutputClosedError from exc
            raise


def one_line(message: str) -> str:
    """A message of several lines as one."""
    lines = [stripped for line in message.splitlines() if (stripped := line.strip().removeprefix("- "))]
    return "; ".join(lines).replace(":; ", ": ").replace(",; ", ", ").replace(";; ", "; ") or "unknown error"


def discard_stdout() -> None:
    """Let nothing more be written to a standard output that nobody reads, so that Python's last flush is silent."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with open(os.devnull, "w", encoding="utf-8") as devnull:  # noqa: PTH123 - a device, not a path of ours
            try:
                os.dup2(devnull.fileno(), sys.stdout.fileno())
            except (OSError, ValueError):
                pass


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _plain(value: Any) -> Any:
    """The value as JSON knows it."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (SocketAddr, pathlib.PurePath)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [_plain(item) for item in value]
    if attrs.has(type(value)) and not _has_text(type(value)):
        return {field.name: _plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    return str(value)


def _has_text(cls: type) -> bool:
    """Whether the class says itself how it is written."""
    return any("__str__" in vars(base) for base in cls.__mro__[:-1])
