"""A DHT in a process of its own, for commands that find each other through it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

# Ends with its standard input, so that tests which are killed leave no process.
DHT = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
from tom_dht_mainline.testing import main
main()
"""


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[tuple[str, ...]]:
    """Options that lead a command into a DHT of twelve nodes on loopback."""
    pytest.importorskip("tom_dht_mainline", reason="needs the DHT plugin")
    command = [sys.executable, "-c", DHT, "--nodes", "12"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield ("--bootstrap", process.stdout.readline().strip())
        finally:
            process.kill()
