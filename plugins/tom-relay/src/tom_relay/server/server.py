"""The relay server: its sockets, its upkeep, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tom_connect.addr import SocketAddr
from tom_connect.serving.listening import bound_addrs, listen, url_here
from tom_relay.errors import RelayServerError
from tom_relay.server.access import AccessPolicy, FileState, access_files, build_access
from tom_relay.server.accounts import Accounts
from tom_relay.server.config import RelayServerConfig
from tom_relay.server.connection import RelayConnection
from tom_relay.server.gate import Gate
from tom_relay.server.hub import RelayClient, RelayHub
from tom_relay.server.metrics import RelayMetrics
from tom_relay.server.quic import QuicSessions
from tom_relay.server.sessions import Sessions
from tom_relay.server.site import Site
from tom_relay.server.tls import Certificate
from tom_relay.server.udp import UdpServices
from tom_relay.wire.quic import CloseCode
from tom_relay.wire.services import encode_services

logger = logging.getLogger("tom_connect.plugin.relay-server")

SWEEP_INTERVAL = 0.25
"""Seconds between two looks at what is late: a fraction of the shortest time-out."""
FILES_INTERVAL = 1.0
"""Seconds between two looks at certificate and list files."""


class _Manager(web.Server):
    """aiohttp's low-level server, with our connections."""

    def __init__(self, handler: Any, gate: Gate) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._gate = gate

    def __call__(self) -> RelayConnection:
        return RelayConnection(
            self,
            self._gate,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=logger,
            keepalive_timeout=self._gate.config.handshake_timeout,
            lingering_time=0.0,
        )


class RelayServer:
    """A relay in this program: `async with RelayServer(RelayServerConfig.dev()) as relay: relay.url`.

    `access`: who may use it, in place of what the configuration says. Raises RelayServerError if it can't start.
    """

    def __init__(self, config: RelayServerConfig | None = None, *, access: AccessPolicy | None = None) -> None:
        self.config = config or RelayServerConfig.dev()
        self._given_access = access
        self._servers: list[asyncio.Server] = []
        self._upkeep: asyncio.Task[None] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._manager: _Manager | None = None
        self._certificate: Certificate | None = None
        self._access_states: tuple[FileState | None, ...] = ()
        self.started_at = 0.0
        self.addrs: tuple[SocketAddr, ...] = ()
        """Where HTTP is served, with the ports that were chosen."""

    # Life

    async def start(self) -> None:
        """Bind and serve; raises RelayServerError with what is wrong and leaves nothing behind then."""
        config = self.config
        loop = asyncio.get_running_loop()
        self.started_at = time.time()
        self.gate = Gate(config, loop)
        self.hub = self.gate.hub = RelayHub(config, self._queued)
        try:
            if config.tls_cert is not None and config.tls_key is not None:
                self._certificate = Certificate(config.tls_cert, config.tls_key)
            access = self._given_access
            if access is None:
                access = build_access(config)
                self._access_states = self._seen_access()
            self.accounts = Accounts(config, self.hub)
            self._stack.push_async_callback(self.accounts.close)
            await self.accounts.open()
            self.sessions = Sessions(config, self.hub, self.gate, self.accounts, access)
            self._stack.push_async_callback(self.sessions.close)
            self.quic = QuicSessions(
                self.hub,
                max_clients=config.max_clients,
                clock=loop.time,
                refusal=self.sessions.refusal,
                write_timeout=config.write_timeout,
                begun=self.accounts.begin,
                over=self.accounts.end,
                elsewhere=self.sessions.end,
            )
            self.sessions.elsewhere = lambda client: self.quic.end(client, CloseCode.SILENT, "no answer")
            self.metrics = RelayMetrics(self)
            site = Site(self)
            self._manager = _Manager(site.handle, self.gate)
            await self._bind()
            self.udp = UdpServices(config)
            self._stack.push_async_callback(self.udp.close)
            await self.udp.start()
            self.sessions.services = encode_services(self.udp.ports)
        except BaseException:
            await self._release()
            raise
        self._upkeep = loop.create_task(self._keep_up(), name="relay upkeep")

    def _queued(self, client: RelayClient) -> None:
        if client in self.gate.proven:
            self.gate.queued(client)
        else:
            self.quic.queued(client)

    async def _bind(self) -> None:
        assert self._manager is not None
        context = self._certificate.context if self._certificate is not None else None
        tls: dict[str, Any] = (
            {} if context is None else {"ssl": context, "ssl_handshake_timeout": self.config.handshake_timeout}
        )
        self._servers = await listen(self._manager, self.config.listen_addrs, RelayServerError, **tls)
        self.addrs = bound_addrs(self._servers)

    async def stop(self, drain: float | None = None) -> None:
        """Tell clients that the relay restarts, let queues empty for `drain` seconds at most, and close."""
        if self._manager is None:
            return
        for server in self._servers:
            server.close()
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
        self.hub.announce_restart()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain if drain is None else drain):
                await self.sessions.drained()
        await self.sessions.end_all()
        await self._release()

    async def _release(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._manager is not None:
            for connection in self._manager.connections:
                if isinstance(connection, RelayConnection):
                    connection.abort()
            await self._manager.shutdown(1.0)
            self._manager = None
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # What may change while it runs

    async def set_access(self, access: AccessPolicy) -> None:
        """Change who may use the relay; who is connected and may not any more is let go."""
        self._given_access = access
        await self.sessions.set_access(access)

    async def reload(self) -> None:
        """Read the files of lists and certificates again if they changed; what is wrong in them is logged."""
        if self._certificate is not None and self._certificate.refresh():
            self.udp.refresh_certificate()
        if self._given_access is None and (states := self._seen_access()) != self._access_states:
            self._access_states = states
            try:
                access = build_access(self.config)
            except RelayServerError as exc:
                logger.warning("the access list stays as it was: %s", exc)
            else:
                logger.info("the access list was read again")
                await self.sessions.set_access(access)

    def _seen_access(self) -> tuple[FileState | None, ...]:
        return tuple(FileState.of(file) for file in access_files(self.config))

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        files_due = loop.time() + FILES_INTERVAL
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                now = loop.time()
                self.sessions.tick(now)
                self.gate.sweep(now)
                await self.accounts.tick(now)
                if now >= files_due:
                    files_due = now + FILES_INTERVAL
                    await self.reload()
            except Exception:  # what fails once must not end the upkeep of all
                logger.exception("upkeep failed")

    # What is known

    @property
    def udp_addrs(self) -> dict[str, list[str]]:
        """Where UDP services listen, by their names `qad` and `stun`."""
        return self.udp.addrs

    @property
    def url(self) -> str:
        """The URL by which nodes reach the relay: what was configured, else the first address."""
        if self.config.url is not None:
            return self.config.url
        return url_here("http" if self._certificate is None else "https", self.addrs[0])

    def describe_relays(self) -> list[dict[str, Any]]:
        """What `/relays` says: ourselves with score and role, then the relays that the operator names."""
        relay = self.accounts.describe(b"", self.accounts.ledger.relay)
        own = {
            "url": self.url,
            "score": relay["score"],
            "role": relay["role"],
            "clients": len(self.hub),
            "accepting": len(self.hub) < self.config.max_clients,
            **{f"{name.replace('-', '_')}_port": port for name, port in self.udp.ports.items()},
        }
        return [own, *({"url": url} for url in self.config.relays if url != self.url)]

    def describe_statistics(self) -> dict[str, Any]:
        """What `/stats` says: the relay's own contribution, and each node's, the most recently active first."""
        self.accounts.update()
        ledger = self.accounts.ledger
        nodes = [self.accounts.describe(key, entry) for key, entry in ledger.items()]
        return {
            "relay": self.accounts.describe(b"", ledger.relay),
            "connected": sorted(str(client.node_id) for client in self.hub.clients() if client.active),
            "forgotten": ledger.forgotten,
            "nodes": nodes[::-1],
        }
