"""Finding a node's address record at Pkarr relays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.exceptions import DiscoveryError, RecordError
from tom_connect.keys import NodeId
from tom_pkarr.client.relay import PkarrRelayClient
from tom_pkarr.client.service import PkarrService
from tom_pkarr.core.answers import Absent, Found, GetAnswer, Held, Refused, Unchanged
from tom_pkarr.core.freshness import check_time


class PkarrDiscovery(Discovery):
    """Asks all relays at once: the first valid record at once, newer ones as they come."""

    name = "pkarr"

    def __init__(self, service: PkarrService) -> None:
        self._service = service
        self.stage = service.config.delay

    async def start(self) -> None:
        """Open the session."""
        self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the session if nobody else uses it."""
        await self._service.release(self)

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Addresses from the node's signed record; from what is known alone while that is fresh.

        Ends without any where relays answer that they hold none. Raises DiscoveryError with each relay's reason where
        none was found and a relay failed or gave something unusable.
        """
        held = self._held(node_id)
        if held is not None and self._service.cache.fresh(node_id.raw, self._now()) is not None:
            yield self._found(held)
            return
        newest = -1
        outcomes: list[str] = []
        failed = False
        asking = {
            asyncio.create_task(relay.get(node_id, held), name=f"pkarr relay {relay.url}"): relay
            for relay in self._service.relays
        }
        try:
            waiting = set(asking)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    relay, answer = asking[task], task.result()
                    current = self._learned(node_id, relay, answer, held)
                    if current is not None and current.record.timestamp_us > newest:
                        newest = current.record.timestamp_us
                        yield self._found(current)
                    elif current is None:
                        failed = failed or isinstance(answer, Refused)
                        outcomes.append(f"{host_of(relay.url)}: {_words(answer)}")
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if newest < 0 and failed:
            if held is not None:
                # Nobody confirms it, but nobody knows better either.
                yield self._found(held)
                return
            raise DiscoveryError("; ".join(sorted(outcomes)))

    def _learned(self, node_id: NodeId, relay: PkarrRelayClient, answer: GetAnswer, held: Held | None) -> Held | None:
        """What an answer tells of the node, kept for the next look-up; None if it tells nothing."""
        cache = self._service.cache
        if isinstance(answer, Unchanged) and held is not None:
            confirmed = cache.get(node_id.raw) or held
            cache.put(node_id.raw, confirmed, answer.fresh_for, self._now())
            return confirmed
        if not isinstance(answer, Found):
            return None
        known = cache.get(node_id.raw)
        etags = {relay.url: answer.etag} if answer.etag is not None else {}
        if known is not None and known.record == answer.record:
            etags = {**known.etags, **etags}
        current = Held(answer.record, answer.addr, self._service.ctx.clock.wall(), etags)
        if known is None or known.record.timestamp_us <= answer.record.timestamp_us:
            cache.put(node_id.raw, current, answer.fresh_for, self._now())
        return current

    def _held(self, node_id: NodeId) -> Held | None:
        """What is known of the node, unless it has become too old to be used."""
        held = self._service.cache.get(node_id.raw)
        if held is None:
            return None
        try:
            check_time(held.record.timestamp_us, self._service.ctx.clock.wall())
        except RecordError:
            return None
        return held

    def _found(self, held: Held) -> FoundAddr:
        return FoundAddr(held.addr, self.name, held.record.timestamp_us, held.record)

    def _now(self) -> float:
        return self._service.ctx.clock.monotonic()


def host_of(url: str) -> str:
    """Host and port of a relay, as messages name it."""
    return urlsplit(url).netloc or url


def _words(answer: GetAnswer) -> str:
    if isinstance(answer, Refused):
        return answer.reason
    assert isinstance(answer, Absent | Unchanged)
    return "it holds no record"
