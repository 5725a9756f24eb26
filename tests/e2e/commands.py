"""`tom-connect` as a child process: its events, its streams, its end."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

PATIENCE = 60.0
"""Seconds for any step, on a machine that is busy with other things."""
LOOPBACK = ("--bind", "127.0.0.1:0", "--allow-local", "--no-persist")


def environment(home: pathlib.Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which nothing of the user's configuration is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOM_CONNECT")}
    kept |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    return kept | {"PYTHONUTF8": "1"} | dict(more or {})


def run(
    home: pathlib.Path, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tom_connect", *args],
        input=stdin.decode(),
        capture_output=True,
        text=True,
        cwd=home,
        env=environment(home, env),
        timeout=PATIENCE,
        check=False,
    )


class Command:
    """A running command; killed at the end of its `with` block if it still runs.

    With `--json` among the arguments its standard output is read as events, else it is gathered as bytes.
    `by`: a command that runs the one that follows it, somewhere else.
    """

    def __init__(
        self,
        home: pathlib.Path,
        *args: str,
        stdin: int | None = subprocess.DEVNULL,
        by: Sequence[str] = (),
        **popen: Any,
    ) -> None:
        home.mkdir(exist_ok=True, parents=True)
        self.process = subprocess.Popen(
            [*by, sys.executable, "-m", "tom_connect", *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=environment(home),
            **popen,
        )
        self.errors = bytearray()
        self.output = bytearray()
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._news = threading.Condition()
        readers = (
            (self._read_events if "--json" in args else self._read_output, self.process.stdout),
            (self._read_errors, self.process.stderr),
        )
        self._threads = [threading.Thread(target=read, args=(stream,), daemon=True) for read, stream in readers]
        for thread in self._threads:
            thread.start()

    def _read_events(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _read_output(self, stream: IO[bytes]) -> None:
        self._gather(stream, self.output)

    def _read_errors(self, stream: IO[bytes]) -> None:
        self._gather(stream, self.errors)

    def _gather(self, stream: IO[bytes], into: bytearray) -> None:
        while data := os.read(stream.fileno(), 65536):
            with self._news:
                into += data
                self._news.notify_all()

    def wait_for(self, name: str) -> dict[str, Any]:
        """The next event of that name; fails if the command ends without one."""
        while (event := self._events.get(timeout=PATIENCE)) is not None:
            if event["event"] == name:
                return event
            if event["event"] == "error":
                break
        raise AssertionError(f"ended without {name}: {event} {self.errors.decode()}")

    def rest(self) -> list[dict[str, Any]]:
        """All events until the end."""
        found = []
        while (event := self._events.get(timeout=PATIENCE)) is not None:
            found.append(event)
        return found

    def wait_for_text(self, text: str, *, errors: bool = False) -> str:
        """Everything said so far, once it holds `text`."""
        where = self.errors if errors else self.output
        with self._news:
            assert self._news.wait_for(lambda: text.encode() in where, PATIENCE), bytes(self.errors + self.output)
            return where.decode()

    def write(self, data: bytes) -> None:
        """Type."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Type the end of input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self) -> int:
        """Wait for the end."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code

    def interrupt(self) -> tuple[int, float]:
        """Press Ctrl-C; the exit code, and the seconds that it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        return code, time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
