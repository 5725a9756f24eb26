"""Publishing at relays: several, some of which fail, refuse, or hold something newer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_record
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.client.publisher import SOON, PkarrPublisher
from tom_pkarr.client.service import PkarrService
from tom_pkarr.errors import PublishError
from tom_pkarr.server import PkarrRelay

KEY = SecretKey(bytes(31) + b"\x07")
Z32 = KEY.node_id.z32()


def record(wall: float, port: int = 1) -> SignedRecord:
    return sign_record(KEY, NodeAddr(KEY.node_id, direct_addrs=(f"192.0.2.1:{port}",)), int(wall * 1e6))


@contextlib.asynccontextmanager
async def publishing(lend: Any, clock: Any, *urls: str, **options: Any) -> AsyncIterator[PkarrPublisher]:
    config = PkarrConfig(relays=urls, **{"timeout": 10.0, **options})
    publisher = PkarrPublisher(PkarrService(lend(config, key=KEY, clock=clock)))
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.aclose()


def held(relay: PkarrRelay) -> SignedRecord:
    kept = relay.hot.get(Z32, 0.0)
    assert kept is not None
    return SignedRecord.from_relay_payload(KEY.node_id, kept.packet.payload)


def port_at(relay: PkarrRelay) -> int:
    return held(relay).addr.direct_addrs[0].port


async def test_every_relay_gets_the_record(lend: Any, clock: Any, run: Any) -> None:
    """Both families store it, and the report counts them."""
    async with run() as one, run() as two, publishing(lend, clock, one.url, two.url + "/pkarr") as publisher:
        report = await publisher.publish(record(clock.wall()))
        assert (report.by, report.nodes, port_at(one), port_at(two)) == ("pkarr", 2, 1, 1)
        await publisher.publish(record(clock.wall() + 1, port=2))
        assert (port_at(one), port_at(two)) == (2, 2)


async def test_one_relay_that_fails_is_not_waited_for_an_hour(
    lend: Any, clock: Any, relay: PkarrRelay, serve: Any, http_answer: Any
) -> None:
    """What one relay stored is published; while another fails we come again within a minute, then hourly."""
    statuses = [500] * 3

    async def answer(reader: Any, writer: Any) -> None:
        await http_answer(statuses.pop() if statuses else 200, Connection="close")(reader, writer)

    async with publishing(lend, clock, relay.url, f"http://{await serve(answer)}") as publisher:
        assert (await publisher.publish(record(clock.wall()))).nodes == 1
        assert publisher.republish_after <= SOON
        assert (await publisher.publish(record(clock.wall() + 1))).nodes == 2
        assert publisher.republish_after == 3000.0


async def test_no_relay_stores_it(lend: Any, clock: Any, serve: Any, http_answer: Any) -> None:
    """The error names each relay and its reason."""
    refusing, broken = await serve(http_answer(403)), await serve(http_answer(500))
    async with publishing(lend, clock, f"http://{refusing}", f"http://{broken}") as publisher:
        with pytest.raises(PublishError) as caught:
            await publisher.publish(record(clock.wall()))
    for words in (str(refusing), "HTTP status 403", str(broken), "HTTP status 500"):
        assert words in str(caught.value)


async def test_a_newer_record_of_ours_is_topped(lend: Any, clock: Any, relay: PkarrRelay) -> None:
    """Where a relay holds a record of a clock that ran ahead (409), ours and the next are signed again above it."""
    ahead = record(clock.wall() + 1800, port=9)
    async with publishing(lend, clock, relay.url) as publisher:
        await publisher.publish(ahead)
    async with publishing(lend, clock, relay.url) as publisher:
        await publisher.publish(record(clock.wall(), port=1))
        assert port_at(relay) == 1
        assert held(relay).timestamp_us == ahead.timestamp_us + 1
        await publisher.publish(record(clock.wall() + 1, port=2))
        assert port_at(relay) == 2
    answers = relay.site.counters.answers
    assert answers["PUT", 409] == 1


async def test_a_relay_that_asks_for_a_condition(lend: Any, clock: Any, serve: Any) -> None:
    """To 428 the answer is the same record, naming the one that the relay holds."""
    old = record(clock.wall() - 60, port=9)
    named: list[str] = []

    async def answer(reader: Any, writer: Any) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
            await reader.readexactly(int(lines.get("content-length", 0)))
            if head.startswith("get"):
                body = old.relay_payload()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            elif "if-match" in lines:
                named.append(lines["if-match"])
                writer.write(b"HTTP/1.1 204 OK\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 428 Precondition Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    async with publishing(lend, clock, f"http://{await serve(answer)}") as publisher:
        assert (await publisher.publish(record(clock.wall()))).nodes == 1
    assert named == [str(old.timestamp_us)]


async def test_a_relay_that_never_gives_in(lend: Any, clock: Any, serve: Any, http_answer: Any) -> None:
    """A relay that answers 409 and then holds nothing, or 412 for ever, is a failure with its status."""
    for status, words in ((409, "can't be had"), (412, "can't be had")):
        addr = await serve(http_answer(status))
        async with publishing(lend, clock, f"http://{addr}") as publisher:
            with pytest.raises(PublishError, match=words):
                await publisher.publish(record(clock.wall()))
