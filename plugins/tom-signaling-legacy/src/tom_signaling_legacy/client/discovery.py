"""Finding a node that is registered with a signaling server: by asking it for its signed record."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.exceptions import DiscoveryError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_signaling_legacy.client.config import host_of
from tom_signaling_legacy.client.connection import AnswerError, ServerConnection
from tom_signaling_legacy.client.service import SignalingService

LAST_RESORT = 5.0
"""Seconds after all other sources: whoever needs no signaling troubles no server, and is not seen to look."""


class SignalingDiscovery(Discovery):
    """Asks the node through every server at which it is present. What it did not sign is not believed."""

    name = "signaling"
    stage = LAST_RESORT
    stage_is_fixed = True
    serverless = False

    def __init__(self, service: SignalingService) -> None:
        self._service = service

    async def start(self) -> None:
        """Connect to the servers."""
        self._service.acquire(self)

    async def aclose(self) -> None:
        """Disconnect if nobody else uses them."""
        await self._service.release(self)

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """The addresses in the node's own signed records, newer ones as they come.

        Ends without any where the node is at no server, or has no address. Raises DiscoveryError with each server's
        reason where one could not be asked or the node gave nothing that can be used.
        """
        newest = -1
        failed: list[str] = []
        asking = {
            asyncio.create_task(self._ask(server, node_id), name=f"asking through {server.url}"): server
            for server in self._service.servers
        }
        try:
            waiting = set(asking)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        record = task.result()
                    except AnswerError as exc:
                        failed.append(f"{host_of(asking[task].url)}: {exc}")
                        continue
                    if record is not None and record.timestamp_us > newest:
                        if newest < 0:
                            self._service.found += 1
                            self._service.warn("found", f"{node_id.short()} was found through it")
                        newest = record.timestamp_us
                        yield FoundAddr(record.addr, self.name, record.timestamp_us, record)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if newest < 0 and failed:
            raise DiscoveryError("; ".join(sorted(failed)))

    async def _ask(self, server: ServerConnection, node_id: NodeId) -> SignedRecord | None:
        timeout = self._service.config.timeout
        if not await self._service.until(lambda: server.is_registered, timeout):
            raise AnswerError(server.problem or f"not registered within {timeout:g} s")
        if not server.is_present(node_id):
            return None
        return await server.ask(node_id, secrets.token_hex(16), timeout)
