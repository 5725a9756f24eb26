"""The command line as a person uses it: two processes that know nothing but a NodeId and one libtorrent node."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

from tests.interop.peers import LibtorrentNet

SIZE = 100 << 20
#: Seconds for each step, on a machine that is busy with other things.
PATIENCE = 90.0


class Command:
    """A running `tom-connect` command and the JSON objects that it prints."""

    def __init__(self, home: Path, *arguments: str) -> None:
        home.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOM_CONNECT")}
        environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
        with (home / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tom_connect", *arguments, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=home,
                env=environment,
            )
        self._home = home
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert self.process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._events.put(json.loads(line))
        self._events.put(None)

    def wait_for(self, name: str) -> dict[str, Any]:
        """Return the next event of that name; fail if the command ends without one."""
        while (event := self._events.get(timeout=PATIENCE)) is not None:
            if event["event"] == name:
                return event
        raise AssertionError(f"ended without {name}: {(self._home / 'stderr').read_text()}")

    def exit_code(self) -> int:
        """Wait for the end."""
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A file of 100 MiB and its SHA-256."""
    path, digest = tmp_path / "payload.bin", hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(SIZE >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    yield path, digest.hexdigest()
    path.unlink()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_meet_through_libtorrent(
    libtorrent_net: LibtorrentNet, tmp_path: Path, payload: tuple[Path, str]
) -> None:
    """`receive` publishes, `send` finds it by its NodeId in a DHT of libtorrent nodes, and 100 MiB arrive whole."""
    path, digest = payload
    shared = ("--allow-local", "--bind", "127.0.0.1:0", "--bootstrap", libtorrent_net.bootstrap[0])
    with Command(tmp_path / "receiver", "receive", "--yes", *shared) as receiver:
        node_id = receiver.wait_for("online")["node_id"]
        published = receiver.wait_for("published")
        assert published["nodes"] >= 1
        with Command(tmp_path / "sender", "send", str(path), node_id, *shared) as sender:
            assert "dht" in sender.wait_for("resolved")["source"]
            connected = sender.wait_for("connected")
            assert connected["path"] == "direct"
            assert sender.wait_for("sent")["sha256"] == digest
            assert sender.exit_code() == 0
        received = receiver.wait_for("received")
        assert (received["size"], received["sha256"]) == (SIZE, digest)
        assert receiver.exit_code() == 0
    arrived = tmp_path / "receiver" / path.name
    with arrived.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    arrived.unlink()
