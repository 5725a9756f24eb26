"""The port mappings of an endpoint, as its plugin object: begun in the background, given back at the end."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tom_connect.abc import AddressSource, PluginContext
from tom_connect.addr import SocketAddr
from tom_connect.watch import Watch
from tom_portmap.core.eligible import can_be_mapped

if TYPE_CHECKING:
    from tom_portmap.mapper import Mapper

START_DELAY = 0.3
"""Seconds after which gateways are asked: a program that binds and dials at once has its dial first, and one that only
dials and ends changes nothing at the router."""


class PortMappings(AddressSource):
    """The mappings of one endpoint; `ctx.config` is a PortmapConfig."""

    name = "portmap"

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self._watch: Watch[tuple[SocketAddr, ...]] = Watch(())
        self._mapper: Mapper | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin in the background: nobody waits for a gateway."""
        if self._ctx.config.enabled and any(map(can_be_mapped, self._ctx.socket.local_addrs)):
            self._task = self._ctx.create_task(self._run(), "mapping ports")

    async def _run(self) -> None:
        await asyncio.sleep(START_DELAY)
        # In a thread: what goes on meanwhile does not wait while modules are read.
        module = await asyncio.to_thread(importlib.import_module, "tom_portmap.mapper")
        mapper: Mapper = module.Mapper(self._ctx, self._watch)
        self._mapper = mapper
        await mapper.run()

    def watch(self) -> Watch[tuple[SocketAddr, ...]]:
        """The external addresses that are mapped to us, and our IPv6 addresses that a firewall was opened for."""
        return self._watch

    def router_addresses(self) -> Sequence[str]:
        """Where our gateways are outside, mapped to us or not."""
        return () if self._mapper is None else self._mapper.router_addresses()

    def network_changed(self) -> None:
        """Ask again, whatever gateways there are now."""
        if self._mapper is not None:
            self._mapper.network_changed()

    async def aclose(self) -> None:
        """Give every mapping back; takes less than a second."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._mapper is not None:
            await self._mapper.aclose()
        self._watch.close()

    def diagnostics(self) -> dict[str, object]:
        """What `tom-connect doctor` shows, as it is now."""
        if not self._ctx.config.enabled:
            return {"state": "switched off"}
        if self._task is None:
            return {"state": "not needed: the endpoint is bound to no private address"}
        told = {} if self._mapper is None else self._mapper.diagnostics()
        return told or {"state": "looking for gateways"}
