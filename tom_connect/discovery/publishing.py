"""Telling the world where we are: when the address changes, and again before what was told expires."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from tom_connect.abc import Clock, Publisher, PublishReport, Signer
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import NetworkError
from tom_connect.watch import Watch

FIRST_RETRY = 1.0
"""Seconds before a failed attempt is repeated: about one more look-up of a cold DHT."""
LAST_RETRY = 60.0
"""Seconds at most between two attempts: a network that comes back is used within a minute without any notice."""
FEW_RETRY = 15.0
"""Seconds after which a record that too few have stored is published again, doubled each time: a DHT node that has just
joined knows few of those who should have it."""
SETTLE = 0.05
"""Seconds that an address must stand before it is published, so that a burst of changes is one record."""


class PublishService:
    """Publishes the value of `addr` through every publisher, newest first; `run()` is its one task.

    `addr` holds what may be published; an address without any way in it is not. `published` holds the newest report
    of each publisher.
    """

    def __init__(
        self,
        publishers: Sequence[tuple[str, Publisher]],
        *,
        signer: Signer,
        addr: Watch[NodeAddr],
        clock: Clock,
        report: Callable[[str, BaseException], None],
        logger: logging.Logger,
    ) -> None:
        self._publishers = publishers
        self._signer = signer
        self._addr = addr
        self._clock = clock
        self._report = report
        self._logger = logger
        self._last_timestamp = 0
        self.published: Watch[tuple[PublishReport, ...]] = Watch(())

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, publisher in self._publishers:
                group.create_task(self._publish_on(name, publisher), name=f"publishing by {name}")

    async def _publish_on(self, name: str, publisher: Publisher) -> None:
        failures = few = 0
        while True:
            addr = self._addr.value
            if addr.is_empty():
                await self._changed(addr, None)
                continue
            if await self._changed(addr, SETTLE):
                continue
            report = await self._attempt(name, publisher, addr)
            if report is not None:
                failures = 0
                few = 0 if report.enough else few + 1
                wait = publisher.republish_after
                if few:
                    wait = min(wait, FEW_RETRY * 2 ** min(few - 1, 20) * random.uniform(0.5, 1.0))
            else:
                wait = min(LAST_RETRY, FIRST_RETRY * 2**failures) * random.uniform(0.5, 1.0)
                failures = min(failures + 1, 10)
            await self._changed(addr, wait)

    async def _attempt(self, name: str, publisher: Publisher, addr: NodeAddr) -> PublishReport | None:
        record = self._signer.sign_record(addr, self._timestamp())
        try:
            async with asyncio.timeout(publisher.timeout):
                report = await publisher.publish(record)
        except (NetworkError, TimeoutError) as exc:
            self._logger.info("publishing by %s failed: %s", name, str(exc) or f"no answer in {publisher.timeout:g} s")
            return None
        except Exception as exc:  # a plugin may raise anything, and the others go on
            self._report(name, exc)
            return None
        others = tuple(r for r in self.published.value if r.by != report.by)
        self.published.set((*others, report))
        return report

    def _timestamp(self) -> int:
        # Stores keep the highest timestamp: one that does not rise would be refused.
        self._last_timestamp = max(self._last_timestamp + 1, int(self._clock.wall() * 1e6))
        return self._last_timestamp

    async def _changed(self, addr: NodeAddr, seconds: float | None) -> bool:
        """Wait until the address is another one, at most `seconds`; whether it is."""
        try:
            async with asyncio.timeout(seconds):
                await self._addr.other_than(addr)
        except TimeoutError:
            return False
        return True
