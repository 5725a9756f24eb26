"""Publishing our address record at Pkarr relays."""

from __future__ import annotations

import asyncio
import random

from tom_connect.abc import Publisher, PublishReport
from tom_connect.record import SignedRecord
from tom_pkarr.client.discovery import host_of
from tom_pkarr.client.relay import PkarrRelayClient
from tom_pkarr.client.service import PkarrService
from tom_pkarr.core.answers import Absent, Found, NotNewest, PutAnswer, Refused, Stored
from tom_pkarr.errors import PublishError

SOON = 60.0
"""Seconds after which we publish again where some relay did not store our record."""


class PkarrPublisher(Publisher):
    """Stores our record at every relay, all at once.

    It has succeeded when one relay stored it; while some did not, it comes again within a minute.
    """

    name = "pkarr"

    def __init__(self, service: PkarrService) -> None:
        self._service = service
        self.republish_after = service.config.republish
        # One request, what the relay holds instead, and one more request.
        self.timeout = 3 * service.config.timeout + 1.0
        self._highest = 0

    async def start(self) -> None:
        """Open the session."""
        self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the session if nobody else uses it."""
        await self._service.release(self)

    async def publish(self, record: SignedRecord) -> PublishReport:
        """Returns when each relay has answered or failed; raises PublishError with their reasons if none stored it.

        Where a relay holds a newer record of ours (an earlier clock, another program with our key), ours is signed
        again above it.
        """
        if record.timestamp_us <= self._highest:
            record = self._service.ctx.signer.sign_record(record.addr, self._highest + 1)
        self._highest = record.timestamp_us
        relays = self._service.relays
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._put(relay, record)) for relay in relays]
        answers = [task.result() for task in tasks]
        failed = [
            f"{host_of(relay.url)}: {answer.reason}"
            for relay, answer in zip(relays, answers, strict=True)
            if isinstance(answer, Refused)
        ]
        stored = len(relays) - len(failed)
        if not stored:
            raise PublishError("no Pkarr relay stored our record: " + "; ".join(failed))
        if failed:
            self._service.ctx.logger.info("%d Pkarr relays stored our record; %s", stored, "; ".join(failed))
        regular = self._service.config.republish
        self.republish_after = min(regular, SOON * random.uniform(0.5, 1.0)) if failed else regular
        return PublishReport(self.name, stored)

    async def _put(self, relay: PkarrRelayClient, record: SignedRecord) -> Stored | Refused:
        answer: PutAnswer = await relay.put(record)
        if isinstance(answer, NotNewest):
            answer = await self._put_above(relay, record)
        if isinstance(answer, NotNewest):
            return Refused(f"HTTP status {answer.status}: it holds another record of ours")
        return answer

    async def _put_above(self, relay: PkarrRelayClient, record: SignedRecord) -> PutAnswer:
        """Replace what the relay holds, and say that we know of it."""
        got = await relay.get(record.node_id)
        if isinstance(got, Absent):
            return await relay.put(record)
        if not isinstance(got, Found):
            assert isinstance(got, Refused)
            return Refused(f"it holds another record of ours, which can't be had: {got.reason}")
        theirs = got.record.timestamp_us
        if got.record == record:
            return Stored()
        if theirs >= record.timestamp_us:
            record = self._service.ctx.signer.sign_record(record.addr, theirs + 1)
            self._highest = max(self._highest, record.timestamp_us)
        return await relay.put(record, if_match=theirs)
