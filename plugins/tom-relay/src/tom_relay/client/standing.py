"""How a relay stands, as it says itself at `/relays`: asked for now and then, and nothing ever waits for it."""

from __future__ import annotations

import asyncio
import importlib
import json
import ssl
from typing import Any, Final

import attrs

from tom_connect.addr import RelayUrl

ASK_TIMEOUT: Final = 10.0
"""Seconds for name, TCP, proxy, TLS and the whole answer: nobody waits for it."""
MAX_ANSWER: Final = 64 << 10
"""Bytes of an answer that are read: a relay names some dozens of others at most."""


MAX_SCORE: Final = 1e300
"""What is more, or no number, is nonsense."""


@attrs.frozen
class Standing:
    """`score` grows with what a relay has done for others; `role`: "relay" once it has proven itself, or "peer"."""

    score: float = 0.0
    role: str = "peer"


UNKNOWN: Final = Standing()
"""Of relays that do not say, as iroh's, or have not said yet: they have not proven themselves either."""


def parse_standing(data: bytes) -> Standing | None:
    """What a relay says of itself: the first of the relays that it names; None if that can't be understood."""
    try:
        own = json.loads(data)["relays"][0]
        score, role = own["score"], own["role"]
        if isinstance(score, bool) or not -MAX_SCORE <= score <= MAX_SCORE or role not in ("relay", "peer"):
            return None
        return Standing(float(score), role)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


async def ask_standing(url: RelayUrl, *, tls: ssl.SSLContext | None, proxy: str | None) -> Standing | None:
    """Ask a relay how it stands; None if it does not say. No redirect is followed, no token shown.

    `tls`: whom to trust; `proxy`: URL of the HTTP proxy to go through.
    """
    # Large, and needed for this alone: not while the endpoint starts, and not on its loop.
    aiohttp: Any = await asyncio.to_thread(importlib.import_module, "aiohttp")
    try:
        async with (
            asyncio.timeout(ASK_TIMEOUT),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "tom-relay", "Accept-Encoding": "identity"},
                auto_decompress=False,
            ) as session,
            session.get(f"{str(url).rstrip('/')}/relays", proxy=proxy, allow_redirects=False) as response,
        ):
            data = b""
            async for part in response.content.iter_any():
                data += part
                if len(data) > MAX_ANSWER:
                    return None
            return parse_standing(data) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
