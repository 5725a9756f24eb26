"""What the server answers on its paths."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tom_connect.serving.metrics import CONTENT_TYPE
from tom_relay.server.origin import is_forwarded

if TYPE_CHECKING:
    from tom_relay.server.server import RelayServer

_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,63}")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>tom-relay</title>
<h1>This is a relay of tom-connect</h1>
<p>It carries encrypted datagrams between nodes that can't reach each other directly. It can read none of them and
stores none. Programs connect to it by WebSocket at <code>/relay</code>; there is nothing here to see for people.</p>
"""
_HEADERS = {"X-Content-Type-Options": "nosniff"}


class Site:
    """Finds the answer to a request."""

    def __init__(self, server: RelayServer) -> None:
        self._server = server
        self._routes: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {
            "/": self._page,
            "/ping": self._ping,
            "/generate_204": self._generate_204,
            "/healthz": self._healthz,
            "/metrics": self._metrics,
            "/relays": self._relays,
            "/stats": self._stats,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.path == "/relay":
            return await self._server.sessions.serve(request)
        route = self._routes.get(request.path)
        if route is None:
            return _text("There is nothing here; see /.\n", status=404)
        if request.method not in ("GET", "HEAD"):
            return _text("Only GET and HEAD are answered.\n", 405, {"Allow": "GET, HEAD"})
        return await route(request)

    async def _page(self, _request: web.BaseRequest) -> web.StreamResponse:
        headers = {**_HEADERS, "Content-Security-Policy": "default-src 'none'"}
        return web.Response(text=_PAGE, content_type="text/html", headers=headers)

    async def _ping(self, _request: web.BaseRequest) -> web.StreamResponse:
        # Any origin may measure; a cache must not answer.
        return _text("pong\n", headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"})

    async def _generate_204(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Cache-Control": "no-store"}
        challenge = request.headers.get("X-Iroh-Challenge", "")
        if _CHALLENGE.fullmatch(challenge):
            headers["X-Iroh-Response"] = f"response {challenge}"
        return web.Response(status=204, headers=headers)

    async def _healthz(self, _request: web.BaseRequest) -> web.StreamResponse:
        server = self._server
        uptime = round(time.time() - server.started_at, 1)
        return _json({"status": "ok", "clients": len(server.hub), "uptime": uptime})

    async def _metrics(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=self._server.metrics.text(), headers={"Content-Type": CONTENT_TYPE, **_HEADERS})

    async def _relays(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json({"relays": self._server.describe_relays()}, {"Access-Control-Allow-Origin": "*"})

    async def _stats(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._is_operator(request):
            text = "This is for the relay's operator: ask from the same machine, or with its bearer token.\n"
            return _text(text, status=403)
        return _json(self._server.describe_statistics(), {"Cache-Control": "no-store"})

    def _is_operator(self, request: web.BaseRequest) -> bool:
        token = self._server.config.operator_token
        if token is not None:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
        # A proxy on this machine passes strangers on, and says so.
        if is_forwarded(request.headers):
            return False
        try:
            return ipaddress.ip_address(request.remote or "").is_loopback
        except ValueError:
            return False


def _text(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, headers={**_HEADERS, **(headers or {})})


def _json(value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        text=json.dumps(value, indent=1) + "\n",
        content_type="application/json",
        headers={**_HEADERS, **(headers or {})},
    )
