"""A Redis server for the tests, on a socket of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tom_connect.testing.pytest_plugin"]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="redis") as folder:  # short: a socket's path has 107 bytes at most
        path = Path(folder) / "s"
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(process, path)
                yield f"unix://{path}"
            finally:
                process.terminate()


def wait_for(process: subprocess.Popen[bytes], path: Path, seconds: float = 30.0) -> None:
    """Return when the server takes connections."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError:
                time.sleep(0.02)  # the server tells nobody when it is ready
            else:
                return
    raise RuntimeError("redis-server did not start")
