"""One HTTP request to a gateway, bounded in size and time; no redirect is followed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import h11

from tom_portmap.errors import SilentError, WireError
from tom_portmap.wire.location import Location

TIMEOUT: Final = 5.0
"""Seconds for a whole request: old routers take two for a description."""
MAX_HEAD: Final = 16 * 1024
_READ: Final = 16 * 1024


async def fetch(
    location: Location,
    *,
    local: str,
    limit: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> tuple[int, bytes]:
    """The status and body, at most `limit` bytes, of a GET, or a POST where there is a `body`.

    `local`: the address of ours to ask from. Raises SilentError where nothing comes within `timeout` seconds,
    WireError for what is not HTTP or is too large.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(location.host, location.port, local_addr=(local, 0))
            try:
                return await _exchange(reader, writer, _request(location, body, headers or {}), body, limit)
            finally:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        raise SilentError(f"no answer from {location.host}:{location.port} within {timeout:g} s") from None
    except OSError as exc:
        raise SilentError(f"{location.host}:{location.port}: {exc.strerror or exc}") from None
    except h11.RemoteProtocolError as exc:
        raise WireError("malformed", f"no HTTP: {exc}") from None


def _request(location: Location, body: bytes, headers: Mapping[str, str]) -> h11.Request:
    fields = {"Host": f"{location.host}:{location.port}", "Connection": "close", **headers}
    if body:
        fields["Content-Length"] = str(len(body))
    return h11.Request(method="POST" if body else "GET", target=location.target, headers=list(fields.items()))


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request, body: bytes, limit: int
) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    sent = [connection.send(request)]
    if body:
        sent.append(connection.send(h11.Data(data=body)))
    sent.append(connection.send(h11.EndOfMessage()))
    writer.write(b"".join(part for part in sent if part))
    await writer.drain()
    status = 0
    received = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > limit:
                raise WireError("too large", f"an HTTP body of more than {limit} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(received)
        elif isinstance(event, (h11.ConnectionClosed, h11.PAUSED)):
            raise WireError("truncated", "an HTTP response that ends too early")
