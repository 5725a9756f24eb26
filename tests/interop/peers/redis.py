"""A real Redis server on a socket of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.interop.peers.process import PeerError, PeerMissing

START_TIMEOUT = 30.0


def redis_server() -> str:
    """The program; raises PeerMissing where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        raise PeerMissing("needs redis-server: apt-get install redis-server")
    return found


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a server that keeps nothing; its URL. Raises PeerMissing where it is not installed."""
    program = redis_server()
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        path = Path(folder) / "s"
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                _wait(process, path)
                yield f"unix://{path}"
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _wait(process: subprocess.Popen[str], path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(str(path))
            return
        if process.poll() is not None:
            raise PeerError(f"redis-server ended: {process.stdout.read() if process.stdout else ''}")
        if time.monotonic() > deadline:
            raise PeerError(f"redis-server did not answer within {START_TIMEOUT} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
