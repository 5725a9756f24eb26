"""Finding records at relays of ours, and at relays that answer badly, slowly, endlessly or never."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tom_connect.abc import FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DiscoveryError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord, sign_record
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.client.discovery import PkarrDiscovery
from tom_pkarr.client.publisher import PkarrPublisher
from tom_pkarr.client.service import LiveDiagnostics, PkarrService
from tom_pkarr.server import PkarrRelay

KEY = SecretKey(bytes(31) + b"\x07")
TIMEOUT = 20.0


def record(wall: float, port: int = 1, key: SecretKey = KEY) -> SignedRecord:
    return sign_record(key, NodeAddr(key.node_id, direct_addrs=(f"192.0.2.1:{port}",)), int(wall * 1e6))


@contextlib.asynccontextmanager
async def asking(lend: Any, clock: Any, *urls: str, **options: Any) -> AsyncIterator[PkarrDiscovery]:
    """A discovery that asks these relays."""
    service = PkarrService(lend(PkarrConfig(relays=urls, **{"timeout": 10.0, **options}), clock=clock))
    discovery = PkarrDiscovery(service)
    await discovery.start()
    try:
        yield discovery
    finally:
        await discovery.aclose()


async def found(discovery: PkarrDiscovery, node_id: NodeId = KEY.node_id) -> list[FoundAddr]:
    async with asyncio.timeout(TIMEOUT):
        return [found async for found in discovery.resolve(node_id)]


def ports(results: list[FoundAddr]) -> list[int]:
    return [result.addr.direct_addrs[0].port for result in results]


async def store(lend: Any, relay: PkarrRelay, signed: SignedRecord) -> None:
    """Put a record where a relay of ours keeps it."""
    service = PkarrService(lend(PkarrConfig(relays=(relay.url,)), key=KEY))
    publisher = PkarrPublisher(service)
    await publisher.start()
    try:
        await publisher.publish(signed)
    finally:
        await publisher.aclose()


async def test_a_record_is_found_then_known_then_confirmed(lend: Any, clock: Any, relay: PkarrRelay) -> None:
    """While fresh nobody is asked again; after its TTL a conditional request confirms it, and a newer one is found."""
    first = record(clock.wall() - 10, port=1)
    await store(lend, relay, first)
    answers = relay.site.counters.answers
    async with asking(lend, clock, relay.url) as discovery:
        (result,) = await found(discovery)
        assert (result.source, result.timestamp_us) == ("pkarr", first.timestamp_us)
        assert ports(await found(discovery)) == [1]
        assert answers["GET", 200] == 1
        clock.seconds += 31
        assert ports(await found(discovery)) == [1]
        assert (answers["GET", 200], answers["GET", 304]) == (1, 1)
        await store(lend, relay, record(clock.wall(), port=2))
        clock.seconds += 31
        assert ports(await found(discovery)) == [2]


async def test_both_families_of_servers(lend: Any, clock: Any, relay: PkarrRelay) -> None:
    """A URL with iroh's path and one without lead to the same record."""
    await store(lend, relay, record(clock.wall()))
    for url in (relay.url, relay.url + "/", relay.url + "/pkarr"):
        async with asking(lend, clock, url) as discovery:
            assert ports(await found(discovery)) == [1]


async def test_an_unknown_node_is_no_failure(lend: Any, clock: Any, relay: PkarrRelay) -> None:
    """Where a relay answers that it holds nothing, the search ends with nothing."""
    async with asking(lend, clock, relay.url) as discovery:
        assert await found(discovery) == []


async def test_the_newest_of_several_relays_comes_last(lend: Any, clock: Any, run: Any) -> None:
    """Relays that disagree: results only get newer, and end with the newest."""
    async with run() as one, run() as two:
        await store(lend, one, record(clock.wall() - 60, port=1))
        await store(lend, two, record(clock.wall(), port=2))
        async with asking(lend, clock, one.url, two.url) as discovery:
            assert ports(await found(discovery)) in ([1, 2], [2])


async def test_closing_the_search_ends_it(
    lend: Any, clock: Any, relay: PkarrRelay, serve: Any, http_answer: Any
) -> None:
    """Whoever has enough after the first result leaves nothing running, and the silent relay sees us go."""
    await store(lend, relay, record(clock.wall()))
    async with aiohttp.ClientSession() as session, session.get(f"{relay.url}/{KEY.node_id.z32()}") as response:
        honest = http_answer(200, await response.read())
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        gone.set()

    async def second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers once the silent one has been asked too: only then is there something to leave."""
        await asked.wait()
        await honest(reader, writer)

    async with asking(lend, clock, f"http://{await serve(second)}", f"http://{await serve(silent)}") as discovery:
        results = discovery.resolve(KEY.node_id)
        async with asyncio.timeout(TIMEOUT):
            assert (await anext(results)).addr.node_id == KEY.node_id
            await results.aclose()  # type: ignore[attr-defined]
            await gone.wait()


# Relays that misbehave. Each time an honest one is there as well: what it holds is found, and what was wrong is told.


async def outcome(lend: Any, clock: Any, relay: PkarrRelay, bad: str, **options: Any) -> str:
    """What is said of a bad relay where it is alone, having seen that beside an honest one it does no harm."""
    await store(lend, relay, record(clock.wall()))
    async with asking(lend, clock, bad, relay.url, **options) as discovery:
        assert ports(await found(discovery)) == [1]
    async with asking(lend, clock, bad, **options) as discovery:
        with pytest.raises(DiscoveryError) as caught:
            await found(discovery)
        assert bad.removeprefix("http://") in str(caught.value)
        problems = LiveDiagnostics(discovery._service)
        assert problems[bad]
    return str(caught.value)


async def test_a_relay_that_fails(lend: Any, clock: Any, relay: PkarrRelay, serve: Any, http_answer: Any) -> None:
    """HTTP status 500 is tried again, then told."""
    seen: list[bytes] = []
    addr = await serve(http_answer(500, b"oops", seen))
    assert "HTTP status 500" in await outcome(lend, clock, relay, f"http://{addr}")
    assert len(seen) >= 4  # three attempts where it was alone, one at least beside the honest one


async def test_a_relay_that_lets_in_the_second_time(lend: Any, clock: Any, serve: Any, http_answer: Any) -> None:
    """A request that fails once is repeated, and its record found."""
    good = http_answer(200, record(clock.wall()).relay_payload())
    calls = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(1)
        await (http_answer(502, Connection="close") if len(calls) == 1 else good)(reader, writer)

    async with asking(lend, clock, f"http://{await serve(answer)}") as discovery:
        assert ports(await found(discovery)) == [1]
    assert len(calls) == 2


async def test_garbage(lend: Any, clock: Any, relay: PkarrRelay, serve: Any, http_answer: Any) -> None:
    """An answer that is not HTTP, a body that is no packet, and a packet of another key are refused."""

    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01 not HTTP at all \xff\r\n\r\n")
        await writer.drain()

    assert "not HTTP" in await outcome(lend, clock, relay, f"http://{await serve(noise)}")
    addr = await serve(http_answer(200, b"garbage"))
    assert "only 7 bytes" in await outcome(lend, clock, relay, f"http://{addr}")
    other = record(clock.wall(), key=SecretKey.generate()).relay_payload()
    addr = await serve(http_answer(200, other))
    assert "signature" in await outcome(lend, clock, relay, f"http://{addr}")


async def test_records_of_a_wrong_time(lend: Any, clock: Any, relay: PkarrRelay, serve: Any, http_answer: Any) -> None:
    """A record of the day before yesterday and one of tomorrow are refused."""
    for shift, words in ((-49 * 3600, "49.0 h old"), (24 * 3600, "24.0 h ahead")):
        addr = await serve(http_answer(200, record(clock.wall() + shift, port=9).relay_payload()))
        assert words in await outcome(lend, clock, relay, f"http://{addr}")


async def test_a_relay_that_sets_back(lend: Any, clock: Any, relay: PkarrRelay, serve: Any, http_answer: Any) -> None:
    """A relay that gives an older record than was seen is not believed: what was seen stays."""
    addr = await serve(http_answer(200, record(clock.wall() - 3600, port=9).relay_payload()))
    await store(lend, relay, record(clock.wall()))
    async with asking(lend, clock, relay.url, f"http://{addr}") as discovery:
        assert ports(await found(discovery))[-1] == 1
        clock.seconds += 61
        assert ports(await found(discovery)) == [1]


def slow(how: str) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if how != "never":
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
                if how == "a byte at a time"
                else b"HTTP/1.1 200 OK\r\nX: "
            )
            writer.write(head)
        while how != "never":
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)
        await asyncio.Event().wait()

    return answer


@pytest.mark.parametrize("how", ["a byte at a time", "never", "without end of head"])
async def test_slow_relays(how: str, lend: Any, clock: Any, relay: PkarrRelay, serve: Any) -> None:
    """A relay that answers byte by byte, or not at all, is given up after the time-out."""
    url = f"http://{await serve(slow(how))}"
    assert "no answer in 1.5 s" in await outcome(lend, clock, relay, url, timeout=1.5)


@pytest.mark.parametrize("where", ["body", "length", "head"])
async def test_endless_answers(where: str, lend: Any, clock: Any, relay: PkarrRelay, serve: Any) -> None:
    """An answer that does not end is left as soon as it is larger than a packet can be."""
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        head = {
            "body": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n",
            "head": b"HTTP/1.1 200 OK\r\nX-Long: ",
        }[where]
        writer.write(head)
        while True:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    await outcome(lend, clock, relay, f"http://{await serve(answer)}")
    assert sent < 100 << 20  # what fits into socket buffers, some times


async def test_redirects_are_not_followed(
    lend: Any, clock: Any, relay: PkarrRelay, run: Any, serve: Any, http_answer: Any
) -> None:
    """A relay can't send us elsewhere, such as into our own network."""
    async with run() as target:
        await store(lend, target, record(clock.wall(), port=9))
        addr = await serve(http_answer(302, Location=f"{target.url}/{KEY.node_id.z32()}"))
        assert "HTTP status 302" in await outcome(lend, clock, relay, f"http://{addr}")
        assert ("GET", 200) not in target.site.counters.answers


async def test_nobody_listens(lend: Any, clock: Any, relay: PkarrRelay) -> None:
    """A port where nobody listens is told in words alone."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = "{}:{}".format(*closed.getsockname())
    assert f"{place}: {os.strerror(errno.ECONNREFUSED)}" in await outcome(lend, clock, relay, f"http://{place}")


async def test_a_relay_that_hangs_up(lend: Any, clock: Any, relay: PkarrRelay, serve: Any) -> None:
    """A connection that ends before an answer is a failure of that relay alone."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    await outcome(lend, clock, relay, f"http://{await serve(hang_up)}")


async def test_a_relay_that_sends_us_away(lend: Any, clock: Any, serve: Any, http_answer: Any) -> None:
    """After 429 with a wait that is longer than we wait, no request goes out until it is over."""
    seen: list[bytes] = []
    addr = await serve(http_answer(429, b"", seen, Retry_After="120"))
    async with asking(lend, clock, f"http://{addr}") as discovery:
        for words in ("HTTP status 429, to be asked again in 120 s", "no request in the next"):
            with pytest.raises(DiscoveryError, match=words):
                await found(discovery)
    assert len(seen) == 1


async def test_what_is_known_serves_where_nobody_answers(lend: Any, clock: Any, relay: PkarrRelay, run: Any) -> None:
    """A record beyond its TTL is given when every relay fails, until it is a day old."""
    async with run() as soon_gone:
        await store(lend, soon_gone, record(clock.wall()))
        discovery_of = asking(lend, clock, soon_gone.url)
        discovery = await discovery_of.__aenter__()
        assert ports(await found(discovery)) == [1]
    clock.seconds += 3600
    assert ports(await found(discovery)) == [1]
    clock.seconds += 24 * 3600
    with pytest.raises(DiscoveryError):
        await found(discovery)
    await discovery_of.__aexit__(None, None, None)
