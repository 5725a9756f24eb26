"""A relay that is a process, killed without a word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from .meeting import at_relay, meet
from .test_endpoints import SLACK, Flow

pytestmark = pytest.mark.costly


@contextlib.asynccontextmanager
async def relay_process(port: int = 0) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`tom-connect relay --dev` and its URL."""
    arguments = ["-m", "tom_connect", "relay", "--dev", "--json", "--listen", f"127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        yield process, str(ready["url"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and SIGSTOP")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
async def test_a_relay_process_that_dies_under_traffic(name: str) -> None:
    """Killed, or frozen so that its connections stay open: nodes are back through a second one within 5 s."""
    async with relay_process() as (first, url), relay_process() as (_second, spare):
        async with at_relay(url, spare) as a, at_relay(url, spare) as b:
            dialed, accepted = await meet(a, b)
            flow = Flow(dialed, accepted)
            await flow.more()
            home = str(a.node_addr().relay_urls[0])
            victim = first if home.rstrip("/") == url.rstrip("/") else _second
            victim.send_signal(getattr(signal, name))
            began = time.monotonic()
            await flow.more(300_000)
            assert time.monotonic() - began < 2.0 * SLACK
            await flow.end()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
async def test_a_relay_process_that_is_killed_and_restarted() -> None:
    """With one relay alone, nodes are back within 5 s after it is up again, and the stream is whole."""
    async with contextlib.AsyncExitStack() as stack:
        first, url = await stack.enter_async_context(relay_process())
        async with at_relay(url) as a, at_relay(url) as b:
            dialed, accepted = await meet(a, b)
            flow = Flow(dialed, accepted)
            await flow.more()
            first.send_signal(signal.SIGKILL)
            await first.wait()
            await stack.enter_async_context(relay_process(int(url.rstrip("/").rpartition(":")[2])))
            began = time.monotonic()
            await flow.more()
            assert time.monotonic() - began < 2.0 * SLACK
            await flow.end()
