"""The parent's side of a child process that speaks JSON lines.

A request is one line on the child's stdin, ``{"id": 1, "do": "get", ...}``; its reply one line on stdout,
``{"id": 1, "ok": {...}}`` or ``{"id": 1, "error": "..."}``. A line without an id is
an event: ``{"event": "ready", ...}``.
Bytes travel as hex. The child leaves when its stdin ends, so a parent that dies leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import attrs

REPOSITORY = Path(__file__).resolve().parents[3]

#: Seconds that a child gets to say that it is ready; importing libtorrent or iroh on a busy machine takes a few.
READY_TIMEOUT = 60.0
#: Seconds that a child gets to leave by itself before it is killed.
EXIT_TIMEOUT = 10.0


class PeerError(RuntimeError):
    """A peer's process refused a request, or ended before it answered."""


class PeerMissing(PeerError):
    """A peer is not installed; the message says what to install."""


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this repository with this interpreter."""
    return [sys.executable, "-X", "utf8", "-m", module, *arguments]


@attrs.define(eq=False)
class LineProcess:
    """A running child that answers JSON lines; usable from any thread and any event loop."""

    _process: subprocess.Popen[bytes]
    _pending: dict[int, Future[dict[str, Any]]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _ready: Future[dict[str, Any]] = attrs.field(factory=Future)
    _stderr: collections.deque[str] = attrs.field(factory=lambda: collections.deque(maxlen=40))
    _threads: list[threading.Thread] = attrs.field(factory=list)
    _last_id: int = 0
    _closed: bool = False

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        ready_timeout: float = READY_TIMEOUT,
    ) -> LineProcess:
        """Start the command in the repository's root and wait for its ready event; raise PeerError if none comes."""
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )
        self = cls(process)
        assert process.stdout is not None and process.stderr is not None
        for target, stream in ((self._read_errors, process.stderr), (self._read_replies, process.stdout)):
            thread = threading.Thread(target=target, args=(stream,), name=f"peer-{process.pid}", daemon=True)
            thread.start()
            self._threads.append(thread)
        try:
            self._ready.result(ready_timeout)
        except FutureTimeoutError:
            self.close()
            raise PeerError(f"{command[0]} did not say ready within {ready_timeout} s:\n{self.errors}") from None
        except PeerError:
            self.close()
            raise
        return self

    @property
    def ready(self) -> dict[str, Any]:
        """The fields of the child's ready event."""
        return self._ready.result(0)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def errors(self) -> str:
        """The last lines that the child wrote on stderr."""
        return "\n".join(self._stderr)

    def request(self, do: str, **arguments: Any) -> Future[dict[str, Any]]:
        """Send a request and return the future of its reply, which fails with PeerError."""
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._closed:
                raise PeerError("the peer's process is closed")
            self._last_id += 1
            self._pending[self._last_id] = future
            line = json.dumps({"id": self._last_id, "do": do, **arguments}) + "\n"
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()
            except OSError as error:
                del self._pending[self._last_id]
                raise PeerError(f"the peer's process has ended ({error}):\n{self.errors}") from error
        return future

    def call_sync(self, do: str, *, timeout: float = 120.0, **arguments: Any) -> dict[str, Any]:
        """Send a request and block until its reply; raise PeerError if it fails or takes too long."""
        try:
            return self.request(do, **arguments).result(timeout)
        except FutureTimeoutError:
            raise PeerError(f"no reply to {do} within {timeout} s") from None

    async def call(self, do: str, *, timeout: float = 120.0, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its reply; raise PeerError if it fails or takes too long."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.request(do, **arguments)), timeout)
        except TimeoutError:
            raise PeerError(f"no reply to {do} within {timeout} s") from None

    def close(self) -> None:
        """End the child: stdin is closed, and a child that does not leave by itself is killed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the child has gone already and left what we wrote unread
            self._process.stdin.close()
        try:
            self._process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(EXIT_TIMEOUT)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def exit_code(self) -> int | None:
        """The child's exit code once it has ended."""
        return self._process.poll()

    def __enter__(self) -> LineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_replies(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                message = json.loads(line)
            except ValueError:
                self._stderr.append(line.decode(errors="replace").rstrip())
                continue
            if message.get("event") == "ready" and not self._ready.done():
                self._ready.set_result(message)
            elif (future := self._pending.pop(message.get("id"), None)) is not None:
                if not future.set_running_or_notify_cancel():
                    continue
                if "error" in message:
                    future.set_exception(PeerError(message["error"]))
                else:
                    future.set_result(message["ok"])
        ended = PeerError(f"the peer's process ended:\n{self.errors}")
        if not self._ready.done():
            self._threads[0].join(1.0)
            self._ready.set_exception(PeerError(f"the peer's process ended before it was ready:\n{self.errors}"))
        for number in list(self._pending):
            future = self._pending.pop(number)
            if future.set_running_or_notify_cancel():
                future.set_exception(ended)

    def _read_errors(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._stderr.append(line.decode(errors="replace").rstrip())
