"""Publishing through publishers that work, fail or hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import attrs
import pytest

from tom_connect.abc import Publisher, PublishReport
from tom_connect.addr import NodeAddr
from tom_connect.discovery import PublishService, publishing
from tom_connect.exceptions import NetworkError
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord
from tom_connect.signing import NodeSigner
from tom_connect.watch import Watch

KEY = SecretKey(bytes(32))


class StillClock:
    """A wall clock that stands, as after a step backwards."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_000.0


class Script(Publisher):
    """Takes records; raises the next of `errors` first."""

    republish_after = 0.1
    timeout = 0.2

    def __init__(self, *errors: Exception | None) -> None:
        self.name = "script"
        self.records: list[SignedRecord] = []
        self.attempts = 0
        self.stored = asyncio.Event()
        self.enough = True
        self._errors = list(errors)

    async def publish(self, record: SignedRecord) -> PublishReport:
        self.attempts += 1
        if self._errors and (error := self._errors.pop(0)) is not None:
            raise error
        self.records.append(record)
        self.stored.set()
        return PublishReport(self.name, 8, self.enough)


@attrs.define
class Running:
    addr: Watch[NodeAddr]
    service: PublishService
    reports: list[tuple[str, BaseException]]


@contextlib.asynccontextmanager
async def publishing_through(*publishers: Script, addr: str | None = "1.2.3.4:5") -> AsyncIterator[Running]:
    watch = Watch(NodeAddr(KEY.node_id, (), [addr] if addr else []))
    reports: list[tuple[str, BaseException]] = []
    service = PublishService(
        [(p.name, p) for p in publishers],
        signer=NodeSigner(KEY),
        addr=watch,
        clock=StillClock(),
        report=lambda name, exc: reports.append((name, exc)),
        logger=logging.getLogger("test"),
    )
    task = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(5):
            yield Running(watch, service, reports)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stored(publisher: Script, count: int) -> None:
    while len(publisher.records) < count:
        publisher.stored.clear()
        await publisher.stored.wait()


async def test_address_is_published_and_reported() -> None:
    """The current address is signed and stored, and the report can be watched."""
    publisher = Script()
    async with publishing_through(publisher) as running:
        await running.service.published.other_than(())
        assert publisher.records[0].addr == running.addr.value
        assert running.service.published.value == (PublishReport("script", 8),)


async def test_nothing_is_published_of_an_empty_address() -> None:
    """Without any way to reach us nothing is said, and the first one is published when it comes."""
    publisher = Script()
    async with publishing_through(publisher, addr=None) as running:
        await asyncio.sleep(0.15)
        assert publisher.attempts == 0
        running.addr.set(NodeAddr(KEY.node_id, (), ["9.9.9.9:9"]))
        await stored(publisher, 1)


async def test_change_is_published_and_timestamps_rise() -> None:
    """A new address goes out without waiting for the republish time, with a higher timestamp on a stopped clock."""
    publisher = Script()
    publisher.republish_after = 3600
    async with publishing_through(publisher) as running:
        await stored(publisher, 1)
        running.addr.set(NodeAddr(KEY.node_id, (), ["9.9.9.9:9"]))
        await stored(publisher, 2)
    first, second = publisher.records
    assert second.timestamp_us > first.timestamp_us
    assert [str(a) for a in second.addr.direct_addrs] == ["9.9.9.9:9"]


async def test_it_is_published_again_before_it_expires() -> None:
    """An unchanged address is published again after the publisher's time."""
    publisher = Script()
    async with publishing_through(publisher):
        await stored(publisher, 3)


async def test_what_too_few_took_is_published_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that reached fewer than it wants is asked again long before its time, until it has enough."""
    monkeypatch.setattr(publishing, "FEW_RETRY", 0.01)
    publisher = Script()
    publisher.republish_after, publisher.enough = 3600, False
    async with publishing_through(publisher) as running:
        await stored(publisher, 3)
        publisher.enough = True
        await running.service.published.other_than((PublishReport("script", 8, enough=False),))
        assert running.service.published.value == (PublishReport("script", 8),)
        before = publisher.attempts
        await asyncio.sleep(0.1)
        assert publisher.attempts == before


async def test_failures_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network failure is tried again; an error of the plugin's own is reported as well."""
    monkeypatch.setattr(publishing, "FIRST_RETRY", 0.01)
    publisher = Script(NetworkError("offline"), ZeroDivisionError("bug"), None)
    async with publishing_through(publisher) as running:
        await stored(publisher, 1)
        assert publisher.attempts == 3
        assert [type(exc) for _, exc in running.reports] == [ZeroDivisionError]
