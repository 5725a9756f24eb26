"""A page in a real browser publishes and resolves through our relay, from another origin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from tom_connect import Endpoint, EndpointConfig, NodeId
from tom_connect.record import SignedRecord
from tom_pkarr.client import plugin
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.server import PkarrRelay, PkarrServerConfig

PAGE = Path(__file__).parent / "browser" / "pkarr.html"
WAIT = 90.0
"""Seconds for a browser to start on a busy machine, and to run the page."""
# It is to talk to loopback alone, and to keep nothing.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-dev-shm-usage "
    "--no-proxy-server"
).split()
RULES = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"


@contextlib.asynccontextmanager
async def page() -> AsyncIterator[tuple[str, asyncio.Future[dict[str, Any]]]]:
    """Serve the page; its URL, and what it will post."""
    posted: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def show(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE, headers={"Content-Type": "text/html; charset=utf-8"})

    async def take(request: web.Request) -> web.StreamResponse:
        if not posted.done():
            posted.set_result(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/pkarr.html", show)
    app.router.add_post("/result", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://localhost:{runner.addresses[0][1]}/pkarr.html", posted
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def chromium(url: str, profile: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Open a page in headless Chromium, which is ended with all its processes."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    command = [program, *FLAGS, RULES, f"--user-data-dir={profile}", "--remote-debugging-port=0", url]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HOME": str(profile)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_a_page_publishes_and_resolves(tmp_path: Path) -> None:
    """A page of another origin signs a packet, puts, replaces and gets it, and gets what an endpoint published."""
    async with PkarrRelay(PkarrServerConfig.dev(listen=("127.0.0.1:0",))) as relay, page() as (url, posted):
        config = EndpointConfig(
            alpns=("test/1",),
            bind=("127.0.0.1:0",),
            allow_local=True,
            persist=False,
            plugins=(),
            extra_plugins=(("pkarr-test", plugin),),
            plugin_configs={"pkarr": PkarrConfig(relays=(relay.url,), timeout=20.0)},
        )
        async with Endpoint.bind(config) as endpoint, asyncio.timeout(WAIT):
            await endpoint.watch_published().other_than(())
            query = urlencode({"relay": relay.url, "key": endpoint.node_id.z32()})
            async with chromium(f"{url}?{query}", tmp_path) as process:
                ended = asyncio.create_task(process.wait())
                await asyncio.wait([ended, posted], return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                assert posted.done(), f"the browser ended with status {process.returncode}"
        result = posted.result()
        assert "error" not in result, result
        assert result["origin"] not in relay.url
        statuses = {name: result[name] for name in ("put", "get", "mismatch", "replaced", "changed", "missing")}
        assert statuses == {"put": 204, "get": 200, "mismatch": 412, "replaced": 204, "changed": 200, "missing": 404}
        assert result["same"] is True
        assert SignedRecord.from_relay_payload(endpoint.node_id, bytes.fromhex(result["other"])).addr.direct_addrs

        # What the page left there is a record to us.
        kept = await relay.shelf.get(NodeId.from_z32(result["key"]).raw, result["key"])
        assert kept is not None
        record = SignedRecord.from_relay_payload(NodeId.from_z32(result["key"]), kept.packet.payload)
        assert [str(addr) for addr in record.addr.direct_addrs] == ["203.0.113.8:4433"]
        assert relay.site.counters.answers["OPTIONS", 204] >= 2
