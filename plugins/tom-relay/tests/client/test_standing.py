"""What a relay says of its own standing: read with care, asked for in the background, and heeded in the choice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect import Endpoint, RelayUrl
from tom_relay.client import connection, standing
from tom_relay.client.standing import MAX_ANSWER, Standing, ask_standing, parse_standing
from tom_relay.server import RelayServer, RelayServerConfig
from tom_relay.server.contributions import Role

from .meeting import at_relay, config, home, meet, until


def said(**own: object) -> bytes:
    """An answer of a relay that says this of itself, and something of another."""
    return json.dumps({"relays": [own, {"url": "https://b.example", "score": 99, "role": "relay"}]}).encode()


def test_what_a_relay_says_of_itself_comes_first() -> None:
    """Score and role of the first relay that is named count, whatever its URL; those of others do not."""
    assert parse_standing(said(url="http://127.0.0.1:3340", score=12.5, role="relay")) == Standing(12.5, "relay")
    assert parse_standing(said(score=0, role="peer")) == Standing(0.0, "peer")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"pong",
        b"[]",
        b"{}",
        b'{"relays": []}',
        b'{"relays": {"score": 1}}',
        b'{"relays": [7]}',
        b'{"relays": ["https://a.example"]}',
        b"[" * 100_000,
        b"\xff\xfe",
        said(score=1),
        said(role="relay"),
        said(score="1", role="relay"),
        said(score=True, role="relay"),
        said(score=1, role="king"),
        said(score=1, role=["relay"]),
        said(score=float("nan"), role="relay"),
        said(score=float("inf"), role="relay"),
        said(score=10**400, role="relay"),
    ],
)
def test_nonsense_says_nothing(data: bytes) -> None:
    """What is no number, no role, or no JSON of that shape is as if the relay had not answered."""
    assert parse_standing(data) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_say_nothing(data: bytes) -> None:
    """Nothing is raised."""
    assert parse_standing(data) is None


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def answering(answer: bytes, *, then_hang: bool = False) -> AsyncIterator[tuple[RelayUrl, list[bytes]]]:
    """A server that says the same to everyone; its URL, and the requests that came."""
    asked: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            if then_hang:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield RelayUrl.parse(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"), asked
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


GOOD = said(score=3, role="peer")


async def test_a_relay_is_asked_without_secrets() -> None:
    """One GET for /relays goes out, with no token and no cookie, and the answer is read."""
    async with answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD) as (
        url,
        asked,
    ):
        for _ in range(2):
            assert await ask_standing(url, tls=None, proxy=None) == Standing(3.0, "peer")
    for request in asked:
        assert request.startswith(b"GET /relays HTTP/1.1\r\n")
        assert b"authorization" not in request.lower() and b"cookie" not in request.lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD,
        b"HTTP/1.1 200 OK\r\n\r\n" + GOOD + b" " * MAX_ANSWER,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + GOOD,
    ],
    ids=["nothing", "no HTTP", "not found", "redirect", "cut short", "too large", "large head"],
)
async def test_wrong_answers_say_nothing(answer: bytes) -> None:
    """No answer, another status, a redirect, a part of an answer and too much of one are as none."""
    async with answering(answer) as (url, asked):
        assert await ask_standing(url, tls=None, proxy=None) is None
        assert asked


async def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs, before its answer or within, costs the time-out and no more."""
    monkeypatch.setattr(standing, "ASK_TIMEOUT", 0.3)
    for begun in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD):
        async with answering(begun, then_hang=True) as (url, _asked):
            assert await ask_standing(url, tls=None, proxy=None) is None


@pytest.fixture
async def second() -> AsyncIterator[RelayServer]:
    """Another relay, so that there is a choice."""
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as server:
        yield server


async def test_nobody_waits_for_a_standing(
    relay: RelayServer, second: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While relays hang over the question nodes have their home, talk, and close at once."""
    monkeypatch.setattr(connection, "STANDING_AFTER", 0.0)
    hanging: list[RelayUrl] = []

    async def hang(url: RelayUrl, **_options: object) -> None:
        hanging.append(url)
        await asyncio.Event().wait()

    monkeypatch.setattr("tom_relay.client.websocket.ask_standing", hang)
    async with at_relay(relay.url, second.url) as a, at_relay(relay.url, second.url) as b:
        dialed, accepted = await meet(a, b)
        dialed.send_datagram(b"hello")
        assert await asyncio.wait_for(accepted.read_datagram(), 30) == b"hello"
        await until(lambda: len(hanging) == 4)
        began = time.monotonic()
        await a.close()
        assert time.monotonic() - began < 5


async def test_what_a_relay_has_done_makes_it_the_home(
    relay: RelayServer, second: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two relays that are equally near, the one through which others talk becomes the home of who asks both."""
    monkeypatch.setattr(connection, "STANDING_AFTER", 0.0)
    monkeypatch.setattr(connection, "STANDING_EVERY", 0.5)
    async with at_relay(relay.url, second.url) as chooser:
        first = await home(chooser)
        here = str(first.relay_urls[0]).rstrip("/") == relay.url
        idle, busy = (relay, second) if here else (second, relay)
        async with at_relay(busy.url) as a, at_relay(busy.url) as b:
            dialed, accepted = await meet(a, b)
            stream = await dialed.open_uni()
            stream.write(bytes(100_000))
            stream.finish()
            assert len(await (await accepted.accept_uni()).read()) == 100_000
        moved = await home(chooser, other_than=first.relay_urls)
        assert str(moved.relay_urls[0]).rstrip("/") == busy.url
        assert busy.accounts.ledger.relay.role is Role.RELAY
        assert idle.accounts.ledger.relay.role is Role.PEER


async def test_only_who_has_the_choice_asks(
    relay: RelayServer, second: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a relay that a peer named nor one's only relay is asked how it stands."""
    monkeypatch.setattr(connection, "STANDING_AFTER", 0.0)
    asked: list[RelayUrl] = []

    async def note(url: RelayUrl, **_options: object) -> None:
        asked.append(url)

    monkeypatch.setattr("tom_relay.client.websocket.ask_standing", note)
    async with at_relay(relay.url) as server, Endpoint.bind(config()) as dialer:
        await meet(dialer, server)
        assert [info.kind for info in dialer.relays()] == ["found"]
        async with at_relay(relay.url, second.url):
            await until(lambda: len(asked) == 2)
        assert sorted(str(url).rstrip("/") for url in asked) == sorted((relay.url, second.url))
