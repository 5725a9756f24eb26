"""Calls through the DHT (see docs/reference/rendezvous.md): the asyncio shell around `core.rendezvous`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from tom_connect.abc import Call, Callee, Rendezvous
from tom_connect.keys import NodeId
from tom_dht_mainline.service import DhtService

from .caller import Caller
from .for_contacts import ReachableForContacts
from .reachable import Reachable

MAX_CALLS: Final = 64
"""Calls that nobody has taken yet."""


class DhtRendezvous(Rendezvous):
    """Leaves calls by announcing our address, from the endpoint's own socket, where the callee polls."""

    name = "dht"
    serverless = True

    def __init__(self, service: DhtService) -> None:
        self._service = service
        self._calls: asyncio.Queue[Call | None] = asyncio.Queue(MAX_CALLS)
        self._reachable: list[Reachable] = []
        if not service.contacts.only:
            self._reachable.append(Reachable(service, self._calls))
        if service.contacts:
            self._reachable.append(ReachableForContacts(service, self._calls))
        self._caller = Caller(service)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the node if it does not run yet, and be reachable."""
        await self._service.acquire(self)
        spawn = self._service.ctx.create_task
        for each in self._reachable:
            self._tasks += [
                spawn(each.watch(), "polling for calls"),
                spawn(each.read(), "reading calls"),
                spawn(each.publish(), "publishing how to call us"),
            ]

    async def aclose(self) -> None:
        """Be reachable no more; close the node if nobody else uses it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._calls.full():
            self._calls.get_nowait()
        self._calls.put_nowait(None)
        await self._service.release(self)

    def network_changed(self) -> None:
        """Be found at the new place: tokens, nodes and external addresses are others there."""
        if self._service.is_running:
            self._service.node.network_changed()
        for each in self._reachable:
            each.network_changed()

    async def calls(self) -> AsyncIterator[Call]:
        """See `Rendezvous`."""
        while (call := await self._calls.get()) is not None:
            yield call

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """See `Rendezvous`."""
        await self._caller.call(node_id, words, opened, learned)

    async def say(self, node_id: NodeId, sealed: bytes) -> None:
        """See `Rendezvous`."""
        await self._caller.say(node_id, sealed)


__all__ = ["DhtRendezvous"]
