"""Calling nodes, and being called, through signaling servers: where no path leads yet, and no other way to say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from tom_connect.abc import Call, Callee, Rendezvous
from tom_connect.keys import NodeId
from tom_signaling_legacy.client.connection import AnswerError
from tom_signaling_legacy.client.discovery import LAST_RESORT
from tom_signaling_legacy.client.service import SignalingService


class SignalingRendezvous(Rendezvous):
    """Passes sealed calls through every server at which a node is present. A server can read and forge none."""

    name = "signaling"
    serverless = False

    def __init__(self, service: SignalingService) -> None:
        self._service = service

    async def start(self) -> None:
        """Connect to the servers."""
        self._service.acquire(self)

    async def aclose(self) -> None:
        """Disconnect if nobody else uses them; whoever follows `calls` comes to their end."""
        calls = self._service.calls
        if calls.full():
            calls.get_nowait()
        calls.put_nowait(None)
        await self._service.release(self)

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """See `Rendezvous`. The last resort as in discovery: other ways have 5 s before a server is troubled.

        Raises AnswerError if the node is at no server.
        """
        await asyncio.sleep(LAST_RESORT)
        await opened.wait()
        sealed = words()
        if not sum(server.call(node_id, sealed) for server in self._service.servers):
            raise AnswerError("the node is at no signaling server that we know")
        # That a server passes it on does not say that the node is there: `learned` is for what the node itself says.
        self._service.warn("call", f"a call was left for {node_id.short()}")

    async def calls(self) -> AsyncIterator[Call]:
        """See `Rendezvous`."""
        while (sealed := await self._service.calls.get()) is not None:
            yield Call(sealed=sealed)
