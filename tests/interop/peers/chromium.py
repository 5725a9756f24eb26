"""A real browser: headless Chromium, asked over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import websockets

from tests.interop.peers.process import PeerMissing

START_TIMEOUT = 90.0
"""Seconds for a browser to start on a busy machine."""
# It is to talk to nobody, and to keep nothing.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-dev-shm-usage "
    "--no-proxy-server --hide-scrollbars --remote-debugging-port=0"
).split()


@attrs.define(eq=False)
class Browser:
    """A page in Chromium. `requests` and `complaints`: what it has loaded, and what the browser found wrong."""

    socket: websockets.ClientConnection
    requests: list[str] = attrs.Factory(list)
    complaints: list[str] = attrs.Factory(list)
    _session: str | None = None
    _last: int = 0
    _loaded: bool = False

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self.socket.send(json.dumps(message))
        while True:
            answer = await self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def _next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.socket.recv())
        parameters = found.get("params", {})
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif found.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif found.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(parameters))
        return found

    async def open(self, url: str) -> None:
        """Open a page in a new tab, and wait until it is loaded."""
        target = await self.ask("Target.createTarget", url="about:blank")
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            await self.ask(f"{domain}.enable")
        self._loaded = False
        await self.ask("Page.navigate", url=url)
        while not self._loaded:
            await self._next()

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        answer = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def look(self, *, dark: bool, width: int = 1100) -> None:
        """Have the page shown with a colour scheme, and in a window of so many pixels."""
        scheme = "dark" if dark else "light"
        await self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    async def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        answer = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextlib.asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """Start a browser that is ended with all its processes; raises PeerMissing."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise PeerMissing("needs a browser: apt-get install chromium")
    profile.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(program, *FLAGS, f"--user-data-dir={profile}", "about:blank"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "HOME": str(profile)},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while b"DevTools listening on " not in (line := await process.stderr.readline()):
                assert line, "the browser ended before it listened"
        url = line.partition(b"listening on ")[2].decode().strip()
        async with websockets.connect(url, max_size=None, proxy=None) as socket:
            yield Browser(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await process.stderr.read()
