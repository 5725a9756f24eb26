"""Whether something else answers in a relay's place, as the captive portals of hotels and trains do.

A relay answers `GET /generate_204` with status 204 and our challenge, which no portal knows to do. It is asked in
plain HTTP, which is what portals intercept.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Final

from tom_connect.addr import RelayUrl

TIMEOUT: Final = 3.0
MAX_HEAD: Final = 8192
"""Bytes of an answer that are looked at."""
_STATUS = re.compile(r"HTTP/1\.[01] ([0-9]{3})(?: |\Z)")
_CHALLENGE_HEADER: Final = "X-Iroh-Challenge"
_RESPONSE_HEADER: Final = "x-iroh-response"


def request(host: str, challenge: str) -> bytes:
    """The request's bytes. `host`: as in the URL; `challenge`: up to 63 letters, digits, `.`, `_` and `-`."""
    lines = (
        "GET /generate_204 HTTP/1.1",
        f"Host: {host}",
        f"{_CHALLENGE_HEADER}: {challenge}",
        "User-Agent: tom-connect",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def judge(head: bytes, host: str, challenge: str) -> bool | None:
    """Whether the head of an answer is a portal's: False for the relay's own, None where it could be anybody's.

    A web server beside the relay may answer with an error, or send us to HTTPS on the same host: that is no portal.
    """
    lines = head.decode("latin-1").split("\r\n")
    match = _STATUS.match(lines[0])
    if match is None:
        return None
    status = int(match[1])
    fields = {
        name.strip().lower(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines[1:])
        if colon
    }
    if status == 204 and fields.get(_RESPONSE_HEADER) == f"response {challenge}":
        return False
    if status in (301, 302, 303, 307, 308):
        place = re.match(r"https?://([^/:?#]+|\[[0-9A-Fa-f:.]+\])", fields.get("location", ""), re.IGNORECASE)
        return place is not None and place[1].lower() != host.lower()
    return True if status in (200, 204, 511) else None


async def check(url: RelayUrl) -> bool | None:
    """Ask a relay; True where a portal answers, False where the relay does, None where nothing can be told.

    An `https` relay is asked at port 80, where it may not listen.
    """
    port = url.port or 80 if url.scheme == "http" else 80
    challenge = f"ts_{secrets.token_hex(12)}"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(url.host.strip("[]"), port, limit=MAX_HEAD)
            writer.write(request(url.host if port == 80 else f"{url.host}:{port}", challenge))
            head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
        return None
    finally:
        if writer is not None:
            writer.transport.abort()
    return judge(head, url.host, challenge)


__all__ = ["check", "judge", "request"]
