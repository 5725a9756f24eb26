"""Finding a node by DNS, its name servers asked one after the other without waiting for silent ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tom_connect.abc import Discovery, FoundAddr, PluginContext
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DiscoveryError
from tom_connect.keys import NodeId
from tom_pkarr.core.cache import FreshCache
from tom_pkarr.core.txt import DnsAnswer, DnsRefusal
from tom_pkarr.dns.config import DnsConfig
from tom_pkarr.dns.query import DnsClient, system_servers
from tom_pkarr.dns.servers import NameServer


class DnsDiscovery(Discovery):
    """Asks for `_iroh.<z32>.<origin>` under each origin domain.

    What DNS says is not signed by the node, so it has no timestamp and is a hint: the handshake proves the key.
    """

    name = "dns"

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self._config: DnsConfig = ctx.config if ctx.config is not None else DnsConfig()
        self._cache: FreshCache[NodeAddr] = FreshCache()
        self.stage = self._config.delay
        self._client = DnsClient(self._config.timeout, self._config.ca_file)

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Addresses as each origin domain has them.

        Ends without any where name servers answer that there are none. Raises DiscoveryError with each reason where
        none was found and an origin could not be asked.
        """
        # Read anew, as a laptop that moved has others; in a thread, as some systems take their time to say.
        servers = self._config.name_servers or await asyncio.to_thread(system_servers)
        if not servers:
            raise DiscoveryError("the system names no name server; set dns.servers")
        outcomes: list[str] = []
        found = failed = False
        asking = {
            asyncio.create_task(self._ask(node_id, origin, servers), name=f"dns {origin}"): origin
            for origin in dict.fromkeys(self._config.origins)
        }
        try:
            waiting = set(asking)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    result = task.result()
                    if isinstance(result, DnsRefusal):
                        failed = True
                        outcomes.append(f"{asking[task]}: {result.reason}")
                    elif result.is_empty():
                        outcomes.append(f"{asking[task]}: no record")
                    else:
                        found = True
                        yield FoundAddr(result, self.name)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if failed and not found:
            raise DiscoveryError("; ".join(sorted(outcomes)))

    async def _ask(self, node_id: NodeId, origin: str, servers: tuple[NameServer, ...]) -> NodeAddr | DnsRefusal:
        """The first answer of the servers: each next one is asked when the one before fails or stays silent a while."""
        key = node_id.raw + origin.lower().encode()
        known = self._cache.fresh(key, self._ctx.clock.monotonic())
        if known is not None:
            return known
        refusals: list[str] = []
        asking: dict[asyncio.Task[DnsAnswer | DnsRefusal], NameServer] = {}
        left = list(servers)
        try:
            while left or asking:
                if left:
                    server = left.pop(0)
                    asking[asyncio.create_task(self._client.ask(server, node_id, origin), name=f"dns {server}")] = (
                        server
                    )
                done, _ = await asyncio.wait(
                    asking, timeout=self._config.stagger if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    server, answer = asking.pop(task), task.result()
                    if isinstance(answer, DnsAnswer):
                        if not answer.addr.is_empty():
                            self._cache.put(key, answer.addr, answer.ttl, self._ctx.clock.monotonic())
                        return answer.addr
                    refusals.append(f"{server}: {answer.reason}")
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return DnsRefusal(", ".join(refusals))
