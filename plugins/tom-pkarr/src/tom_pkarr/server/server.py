"""The Pkarr relay: its sockets, its upkeep, and its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tom_connect.addr import SocketAddr
from tom_connect.record import SignedRecord
from tom_connect.serving.listening import bound_addrs, listen, url_here
from tom_pkarr.core.rules import Packet
from tom_pkarr.errors import PkarrServerError, StoreError
from tom_pkarr.server.config import PkarrServerConfig
from tom_pkarr.server.connection import Gate, PkarrConnection
from tom_pkarr.server.dht import DhtBehind, is_usable
from tom_pkarr.server.metrics import PkarrMetrics
from tom_pkarr.server.shelf import HotPackets, Shelf
from tom_pkarr.server.site import Site
from tom_pkarr.server.store import Kept, PacketStore, PutOrder

logger = logging.getLogger("tom_connect.plugin.pkarr-server")

SWEEP_INTERVAL = 0.5
"""Seconds between two looks at what is late."""
EXPIRE_INTERVAL = 10.0
"""Seconds between two looks at what is past its time."""


class _Manager(web.Server):
    """aiohttp's low-level server, with our connections."""

    def __init__(self, handler: Any, gate: Gate) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._gate = gate

    def __call__(self) -> PkarrConnection:
        return PkarrConnection(
            self,
            self._gate,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=logger,
            keepalive_timeout=self._gate.config.idle_timeout,
            lingering_time=0.0,
        )


class PkarrRelay:
    """A relay in this program: `async with PkarrRelay(PkarrServerConfig.dev()) as relay: relay.url`.

    `bootstrap`: first nodes of the DHT where the configuration names none; `wall`: the time in seconds since 1970, for
    tests. Raises PkarrServerError if it can't start.
    """

    def __init__(
        self,
        config: PkarrServerConfig | None = None,
        *,
        bootstrap: Sequence[str] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config = config or PkarrServerConfig.dev()
        self.wall = wall
        self.store = PacketStore(
            config.store, max_packets=config.max_packets, max_bytes=config.max_bytes, keep=config.keep
        )
        self.hot = HotPackets(config.hot_bytes)
        self.gate = Gate(config)
        self.site = Site(self)
        self.metrics = PkarrMetrics(self)
        self.dht: DhtBehind | None = None
        self.dht_missing: str | None = None
        """Why there is no DHT behind the relay although the configuration would have it; None otherwise."""
        self.started_at = 0.0
        self.failures = 0
        self.addrs: tuple[SocketAddr, ...] = ()
        """Where HTTP is served, with the ports that were chosen."""
        self._bootstrap = bootstrap
        self._servers: list[asyncio.Server] = []
        self._manager: _Manager | None = None
        self._upkeep: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Bind and serve; raises PkarrServerError with what is wrong and leaves nothing behind then."""
        loop = asyncio.get_running_loop()
        self.started_at = self.wall()
        self.shelf = Shelf(self.store, self.hot, self.config.max_ahead, self.wall)
        await self.shelf.open()
        try:
            self._manager = _Manager(self.site.handle, self.gate)
            await self._bind()
            await self._start_dht()
        except BaseException:
            await self.stop()
            raise
        self._upkeep = loop.create_task(self._keep_up(), name="pkarr upkeep")

    async def _bind(self) -> None:
        assert self._manager is not None
        self._servers = await listen(self._manager, self.config.listen_addrs, PkarrServerError)
        self.addrs = bound_addrs(self._servers)

    async def _start_dht(self) -> None:
        if self.config.dht == "off":
            return
        try:
            dht = DhtBehind(self.config, self._bootstrap)
        except ImportError:
            if self.config.dht == "on":
                raise PkarrServerError("dht: tom-dht-mainline is not installed; install it or say off") from None
            self.dht_missing = "tom-dht-mainline is not installed"
            logger.info("no DHT behind the relay: %s", self.dht_missing)
            return
        self.dht = dht
        await dht.start(self._found_in_dht)

    async def stop(self) -> None:
        """Let go of everything; packets that were answered for are in the store."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
            self._upkeep = None
        if self._manager is not None:
            for connection in list(self.gate.connections):
                connection.abort()
            await self._manager.shutdown(1.0)
            self._manager = None
        if self.dht is not None:
            await self.dht.close()
            self.dht = None
        await self.shelf.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        expire_due = loop.time() + EXPIRE_INTERVAL
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                now = loop.time()
                self.gate.sweep(now)
                if now >= expire_due:
                    expire_due = now + EXPIRE_INTERVAL
                    await self.shelf.expire()
            except StoreError as exc:
                self.report(exc)
            except Exception:  # what fails once must not end the upkeep of all
                logger.exception("upkeep failed")

    async def _found_in_dht(self, record: SignedRecord) -> Kept | None:
        """Keep what the DHT turned out to hold, by the rules for what is put; returns what is kept then."""
        if not is_usable(record, self.wall(), self.config.max_ahead):
            return None
        try:
            _, kept = await self.shelf.put(PutOrder(Packet.of(record), record.node_id.z32()))
        except StoreError as exc:
            self.report(exc)
            return None
        return kept

    # What is known

    def report(self, error: StoreError) -> None:
        """The store failed: count it, say it once."""
        self.failures += 1
        if self.failures == 1:
            logger.error("%s; further failures are only counted", error)

    def now(self) -> float:
        """Monotonic seconds."""
        return asyncio.get_running_loop().time()

    def earliest(self) -> float:
        """What was last seen before this, in seconds since 1970, is past its time."""
        return self.wall() - self.config.keep

    @property
    def url(self) -> str:
        """The URL by which clients reach the relay, without a slash at the end: configured, or the first address."""
        if self.config.url is not None:
            return self.config.url.rstrip("/")
        return url_here("http", self.addrs[0])

    def describe(self) -> dict[str, Any]:
        """What `/healthz` says."""
        return {
            "status": "ok",
            "packets": self.store.packets,
            "uptime": round(self.wall() - self.started_at, 1),
            "dht": "on" if self.dht is not None else "off",
        }
