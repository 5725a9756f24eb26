"""HTTP from gateways that mean harm, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tom_portmap.errors import SilentError, WireError
from tom_portmap.http import fetch
from tom_portmap.wire.location import Location

LOCAL = "127.0.0.1"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[Location]:
    """A server that answers each request so; it is gone afterwards, whatever it was doing."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                await answer(reader, writer)
                await writer.drain()
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(connected, LOCAL, 0)
    try:
        yield Location(LOCAL, server.sockets[0].getsockname()[1], "/x")
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*parts: bytes, endless: bytes = b"", hang: bool = False) -> Answer:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        while endless:
            writer.write(endless)
            await writer.drain()
        if hang:
            await asyncio.Event().wait()

    return answer


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"Content-Length: 5\r\n\r\nhe", b"llo"),
        (OK + b"\r\nhello",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",),
        (b"HTTP/1.0 200 OK\r\n\r\nhello",),
    ],
)
async def test_answers_of_every_form_are_read(parts: tuple[bytes, ...]) -> None:
    """With a length, until the end, in chunks, of the old version."""
    async with served(saying(*parts)) as location:
        assert await fetch(location, local=LOCAL, limit=5) == (200, b"hello")


async def test_a_body_is_posted() -> None:
    """With its length and headers, to the host and path of the location."""
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readexactly(4))
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno")

    async with served(answer) as location:
        assert await fetch(location, local=LOCAL, limit=99, body=b"body", headers={"A": "b"}) == (500, b"no")
    assert got == [b"body"]


async def test_a_redirect_is_not_followed() -> None:
    """Its status is what comes back: nothing leads away from the gateway."""
    async with served(
        saying(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    ) as there:
        assert await fetch(there, local=LOCAL, limit=5) == (302, b"")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (saying(OK + b"\r\n", endless=b"x" * 4096), "too large"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", endless=b"1000\r\n" + b"x" * 4096 + b"\r\n"), "too large"),
        (saying(OK + b"Content-Length: 99999999999\r\n\r\n", endless=b"x" * 4096), "too large"),
        (saying(OK, endless=b"X: " + b"y" * 4000 + b"\r\n"), "malformed"),
        (saying(OK + b"X: ", endless=b"y" * 4000), "malformed"),
        (saying(b"", endless=b"HTTP" * 1000), "malformed"),
        (saying(b"\x16\x03\x01\x02\x00\r\n\r\n"), "malformed"),
        (saying(OK + b"Content-Length: 5\r\n\r\nhe"), "malformed"),
        (saying(OK + b"Content-Length: -1\r\n\r\n"), "malformed"),
        (saying(), "malformed"),
    ],
)
async def test_endless_and_broken_answers_are_refused(answer: Answer, kind: str) -> None:
    """Bodies, chunks and headers without an end are cut off, what is no HTTP or too short is an error."""
    async with served(answer) as location, asyncio.timeout(30):
        with pytest.raises(WireError) as refused:
            await fetch(location, local=LOCAL, limit=64 * 1024, timeout=20)
    assert refused.value.kind == kind


@pytest.mark.parametrize("answer", [saying(hang=True), saying(OK + b"Content-Length: 5\r\n\r\nhe", hang=True)])
async def test_a_gateway_that_dawdles_is_given_up(answer: Answer) -> None:
    """The time is for the whole request."""
    async with served(answer) as location:
        with pytest.raises(SilentError, match=r"within 0\.2 s"):
            await fetch(location, local=LOCAL, limit=5, timeout=0.2)


async def test_nobody_there_is_silence() -> None:
    """A refused connection says where."""
    async with served(saying()) as location:
        pass
    with pytest.raises(SilentError, match=f"127.0.0.1:{location.port}"):
        await fetch(location, local=LOCAL, limit=5)
