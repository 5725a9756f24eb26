"""Captive portals are told from relays and from other web servers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import RelayUrl
from tom_connect.netreport.captive import MAX_HEAD, check, judge, request

HOST, CHALLENGE = "relay.test", "ts_1"


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


@pytest.mark.parametrize(
    ("answer", "portal"),
    [
        (head("204 No Content", "X-Iroh-Response: response ts_1"), False),
        (head("204 No Content", "x-iroh-response:response ts_1"), False),
        (head("204 No Content", "X-Iroh-Response: response ts_2"), True),
        (head("204 No Content"), True),
        (head("200 OK", "Content-Type: text/html"), True),
        (head("511 Network Authentication Required"), True),
        (head("302 Found", "Location: http://portal.hotel/login?to=relay.test"), True),
        (head("302 Found", "Location: https://[2001:db8::1]/"), True),
        (head("301 Moved Permanently", "Location: https://relay.test/generate_204"), False),
        (head("301 Moved Permanently", "Location: HTTPS://Relay.Test:443/"), False),
        (head("302 Found", "Location: /login"), False),
        (head("302 Found"), False),
        (head("404 Not Found"), None),
        (head("502 Bad Gateway"), None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"\r\n\r\n", None),
    ],
)
def test_answers_are_judged(answer: bytes, portal: bool | None) -> None:
    """The relay's own is known by the challenge; pages, foreign redirects and status 511 are a portal's."""
    assert judge(answer, HOST, CHALLENGE) is portal


@given(st.binary(max_size=300))
def test_no_answer_is_too_strange(noise: bytes) -> None:
    """Whatever comes, something is concluded."""
    assert judge(noise, HOST, CHALLENGE) in (True, False, None)
    assert judge(b"HTTP/1.1 200 " + noise, HOST, CHALLENGE) in (True, None)


def test_the_request_is_http() -> None:
    """It ends with an empty line and names the host."""
    assert request(HOST, CHALLENGE).startswith(b"GET /generate_204 HTTP/1.1\r\nHost: relay.test\r\n")
    assert request(HOST, CHALLENGE).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "portal"),
    [(head("200 OK"), True), (b"", None), (b"HTTP/1.1 200 OK\r\n", None), (b"x" * (2 * MAX_HEAD), None)],
    ids=["portal", "hangs up", "stops in the middle", "endless"],
)
async def test_a_server_is_asked(answer: bytes, portal: bool | None) -> None:
    """One that hangs up or says too much is no portal; no connection is left."""
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await check(RelayUrl.parse(f"http://127.0.0.1:{port}/")) is portal
    await asyncio.wait(served, timeout=10)
    assert await check(RelayUrl.parse(f"http://127.0.0.1:{port}/")) is None
