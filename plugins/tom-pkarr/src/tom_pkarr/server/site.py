"""What the relay answers to a request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
from aiohttp import web

from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_connect.serving.metrics import CONTENT_TYPE
from tom_connect.serving.sources import source_prefix
from tom_pkarr.core import http
from tom_pkarr.core.limits import RateLimit, client_host
from tom_pkarr.core.names import key_bytes
from tom_pkarr.core.rules import Conditions, Verdict, get_headers, is_unmodified
from tom_pkarr.errors import PutError, StoreBusyError, StoreError
from tom_pkarr.server.connection import PkarrConnection
from tom_pkarr.server.dht import LookupsBusyError
from tom_pkarr.server.shelf import Submission
from tom_pkarr.server.store import Kept

if TYPE_CHECKING:
    from tom_pkarr.server.server import PkarrRelay

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Pkarr relay</title>
<h1>This is a Pkarr relay of tom-connect</h1>
<p>Programs ask it at <code>/KEY</code> where the node with that key is, and tell it with a signed packet where they
are. It can forge nothing; there is nothing here to see for people.</p>
"""
# A page of any origin may use the relay: packets are public and signed, and no cookie goes with them.
_CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "ETag, Retry-After"}
_PREFLIGHT = {
    **_CORS,
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Unmodified-Since",
    "Access-Control-Max-Age": "86400",
}
_PLAIN = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_ALLOW = "GET, HEAD, PUT, OPTIONS"
_KEY_LENGTH = 52
_IROH = "/pkarr/"


@attrs.define
class SiteCounters:
    """What was asked and answered since the start, for metrics."""

    answers: Counter[tuple[str, int]] = attrs.Factory(Counter)
    """By method and status; other methods than ours as one."""
    bad_puts: Counter[str] = attrs.Factory(Counter)


class Site:
    """Finds the answer to a request."""

    def __init__(self, relay: PkarrRelay) -> None:
        config = relay.config
        self._relay = relay
        self._config = config
        self._proxies = config.trusted_networks
        self._gets = RateLimit(config.get_rate, config.get_burst)
        self._puts = RateLimit(config.put_rate, config.put_burst)
        self.counters = SiteCounters()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            response = await self._answer(request)
        except StoreBusyError:
            response = _text("Too many requests wait; try again in a second.\n", 503, {"Retry-After": "1"})
        except StoreError as exc:
            self._relay.report(exc)
            response = _text("Packets can't be read or stored now.\n", 503, {"Retry-After": "10"})
        method = request.method if request.method in ("GET", "HEAD", "PUT", "OPTIONS") else "other"
        self.counters.answers[method, response.status] += 1
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path, method = request.path, request.method
        is_iroh = path.startswith(_IROH)
        z32 = path[len(_IROH) :] if is_iroh else path[1:]
        protocol = request.protocol
        if method != "PUT" and isinstance(protocol, PkarrConnection):
            protocol.request_came()
        if len(z32) != _KEY_LENGTH and path in ("/", "/healthz", "/metrics"):
            return self._own(path, method)
        if method == "OPTIONS":
            return web.Response(status=204, headers=_PREFLIGHT)
        if method in ("GET", "HEAD"):
            refusal = self._limited(self._gets, request)
            return refusal if refusal is not None else await self._get(request, z32, is_iroh=is_iroh)
        if method == "PUT":
            refusal = self._limited(self._puts, request)
            if refusal is not None:
                refusal.force_close()  # its body is not read
                return refusal
            return await self._put(request, z32, is_iroh=is_iroh)
        return _text("Only GET, HEAD, PUT and OPTIONS are answered.\n", 405, {"Allow": _ALLOW})

    def _own(self, path: str, method: str) -> web.Response:
        if method not in ("GET", "HEAD"):
            return _text("Only GET and HEAD are answered.\n", 405, {"Allow": "GET, HEAD"})
        if path == "/metrics":
            return web.Response(body=self._relay.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
        if path == "/healthz":
            text = json.dumps(self._relay.describe()) + "\n"
            return web.Response(text=text, content_type="application/json", headers={"Cache-Control": "no-store"})
        headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
        return web.Response(text=_PAGE, content_type="text/html", headers=headers)

    def _limited(self, limit: RateLimit, request: web.BaseRequest) -> web.Response | None:
        protocol = request.protocol
        if not self._proxies and isinstance(protocol, PkarrConnection):
            prefix = protocol.source
        else:
            forwarded = request.headers.get("X-Forwarded-For")
            prefix = source_prefix(client_host(request.remote or "", forwarded, self._proxies))
        wait = limit.take(prefix, self._relay.now())
        if not wait:
            return None
        return _text("Too many requests from your network.\n", 429, {"Retry-After": str(int(wait) + 1)})

    # Packets

    async def _get(self, request: web.BaseRequest, z32: str, *, is_iroh: bool) -> web.Response:
        relay = self._relay
        kept = relay.hot.get(z32, relay.earliest())
        if kept is None and (key := key_bytes(z32)) is not None:
            kept = await relay.shelf.get(key, z32)
        if kept is None or self._is_stale(kept):
            try:
                kept = await self._from_dht(NodeId.from_z32(z32), z32, kept)
            except InvalidKeyError as exc:
                return _text(f"{exc}\n", 400)
            except LookupsBusyError:
                return _text("Too many look-ups are running; try again in a second.\n", 503, {"Retry-After": "1"})
        if kept is None:
            return _text("No packet of this key is known.\n", 404)
        headers = {**_CORS, **get_headers(kept.packet)}
        if is_unmodified(kept.packet, request.headers):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = http.IROH_TYPE if is_iroh else http.PKARR_TYPE
        return web.Response(body=kept.packet.payload, headers=headers)

    def _is_stale(self, kept: Kept) -> bool:
        """Whether the DHT should be asked for something newer."""
        if self._relay.dht is None:
            return False
        return self._relay.wall() - kept.seen_at > max(float(kept.packet.ttl), self._config.recheck)

    async def _from_dht(self, node_id: NodeId, z32: str, kept: Kept | None) -> Kept | None:
        """What the DHT holds, if it is newer than what is kept; else what is kept, which counts as fresh again."""
        dht = self._relay.dht
        if dht is None:
            return kept
        at_least = 0 if kept is None else kept.packet.timestamp_us
        try:
            found = await dht.lookup(node_id, self._relay.now(), at_least)
        except LookupsBusyError:
            if kept is None:
                raise
            return kept
        if found is None and kept is not None:
            # The next ones do not wait for a DHT that is slow or knows nothing.
            self._relay.hot.renew(z32, kept.packet, self._relay.wall())
            return kept
        return found

    async def _put(self, request: web.BaseRequest, z32: str, *, is_iroh: bool) -> web.Response:
        try:
            verdict, tag = await self._keep(request, z32)
        except PutError as exc:
            self.counters.bad_puts[exc.kind] += 1
            response = _text(f"{exc}\n", exc.status)
            if not request.content.at_eof():
                response.force_close()  # the rest of its body is not read
            return response
        match verdict:
            case Verdict.STORED | Verdict.UNCHANGED:
                return web.Response(status=204, headers={**_CORS, "ETag": tag})
            case Verdict.OLDER:
                if is_iroh:
                    # iroh's server answers so, and iroh's clients would repeat what is refused.
                    return web.Response(status=204, headers=_CORS)
                return _text("A newer packet of this key is stored.\n", 409)
            case Verdict.MISMATCH:
                return _text("Another packet of this key is stored than the condition names.\n", 412)
            case Verdict.CONFLICT:
                text = "Another packet of this key is being published; name the one to replace with If-Match.\n"
                return _text(text, 428)

    async def _keep(self, request: web.BaseRequest, z32: str) -> tuple[Verdict, str]:
        """What becomes of the packet that is put, and the entity tag of what is held then; raises PutError."""
        key = key_bytes(z32)
        if key is None:
            raise PutError(400, "key", "not a valid z-base-32 node id: expected 52 letters that stand for 32 bytes")
        dht = self._relay.dht
        try:
            body = await self._body(request)
            publishing = dht is not None and dht.is_publishing(key)
            order = Submission(key, z32, body, Conditions.of(request.headers), publishing)
            verdict, kept = await self._relay.shelf.put(order)
        except PutError as exc:
            # To ask first whether it is a key at all takes a good part of the time of verifying with it.
            try:
                NodeId(key)
            except InvalidKeyError as wrong:
                raise PutError(400, "key", str(wrong)) from None
            raise exc from None
        if dht is not None and verdict in (Verdict.STORED, Verdict.UNCHANGED):
            dht.publish(SignedRecord.from_relay_payload(NodeId(key), body))
        return verdict, "" if kept is None else kept.packet.etag

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The body, as far as it can be a packet; raises PutError."""
        too_large = PutError(413, "size", f"a packet has at most {http.MAX_PAYLOAD} bytes without its key")
        if (request.content_length or 0) > http.MAX_PAYLOAD:
            raise too_large
        body = bytearray()
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > http.MAX_PAYLOAD:
                raise too_large
        protocol = request.protocol
        if isinstance(protocol, PkarrConnection):
            protocol.request_came()
        return bytes(body)


def _text(text: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=text.encode(), status=status, headers={**_PLAIN, **_CORS, **(headers or {})})
