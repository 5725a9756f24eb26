"""The signaling server: its sockets, its clients, its upkeep and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from types import TracebackType
from typing import Any, Self

import attrs
from aiohttp import WSMsgType, web

from tom_connect.addr import SocketAddr
from tom_connect.serving.listening import bound_addrs, listen, url_here
from tom_connect.serving.metrics import CONTENT_TYPE
from tom_signaling_legacy.core.hub import SignalingClient, SignalingHub
from tom_signaling_legacy.errors import SignalingServerError
from tom_signaling_legacy.server.config import SignalingServerConfig
from tom_signaling_legacy.server.connection import Gate, SignalingConnection
from tom_signaling_legacy.server.metrics import SignalingMetrics

logger = logging.getLogger("tom_connect.plugin.signaling-server")

SWEEP_INTERVAL = 1.0
"""Seconds between two looks at who is silent or late."""
PING_INTERVAL = 5.0
"""Seconds between two pings of a client: one that sends no heartbeats answers these, as every WebSocket does."""


class _Manager(web.Server):
    """aiohttp's low-level server, with our connections."""

    def __init__(self, handler: Any, gate: Gate) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._gate = gate

    def __call__(self) -> SignalingConnection:
        return SignalingConnection(
            self,
            self._gate,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=logger,
            keepalive_timeout=0.0,
            lingering_time=0.0,
        )


@attrs.define(eq=False)
class _Peer:
    """What the shell has of one client. `wake`: something waits for it, or it is to be ended."""

    client: SignalingClient
    connection: SignalingConnection
    next_ping: float
    wake: asyncio.Event = attrs.Factory(asyncio.Event)


class SignalingServer:
    """A server in this program: `async with SignalingServer(SignalingServerConfig.dev()) as server: server.url`.

    Raises SignalingServerError if it can't start.
    """

    def __init__(self, config: SignalingServerConfig | None = None) -> None:
        self.config = config or SignalingServerConfig.dev()
        self.gate = Gate(self.config)
        self.hub = SignalingHub(self.config.limits, self._queued)
        self.metrics = SignalingMetrics(self)
        self.started_at = 0.0
        """Seconds since 1970."""
        self.addrs: tuple[SocketAddr, ...] = ()
        """Where it listens, with the ports that were chosen."""
        self._peers: dict[SignalingClient, _Peer] = {}
        self._servers: list[asyncio.Server] = []
        self._manager: _Manager | None = None
        self._upkeep: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Bind and serve; raises SignalingServerError with what is wrong and leaves nothing behind then."""
        self.started_at = time.time()
        try:
            self._manager = _Manager(self._handle, self.gate)
            await self._bind()
        except BaseException:
            await self.stop()
            raise
        self._upkeep = asyncio.get_running_loop().create_task(self._keep_up(), name="signaling upkeep")

    async def _bind(self) -> None:
        assert self._manager is not None
        self._servers = await listen(self._manager, self.config.listen_addrs, SignalingServerError)
        self.addrs = bound_addrs(self._servers)

    async def stop(self) -> None:
        """End every connection and let go of everything."""
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

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                now = self._now()
                self.hub.tick(now)
                self.gate.sweep(now)
            except Exception:  # what fails once must not end the upkeep of all
                logger.exception("upkeep failed")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # What is known

    @property
    def url(self) -> str:
        """The URL of the first address, for WebSocket clients."""
        return url_here("ws", self.addrs[0])

    # Requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, SignalingConnection)
        protocol.request_came()
        if request.headers.get("Upgrade", "").lower() == "websocket":
            # No permessage-deflate: what is small on the wire could be large in memory.
            socket = web.WebSocketResponse(
                max_msg_size=self.config.max_message, compress=False, autoping=False, timeout=1.0
            )
            if socket.can_prepare(request).ok:
                await socket.prepare(request)
                await self._serve(socket, protocol)
                return socket
        if request.path == "/metrics" and request.method in ("GET", "HEAD"):
            return _answer(self.metrics.text(), 200, CONTENT_TYPE)
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            return _answer(b'{"ok":true}', 200)
        return _answer(b'{"error":"not found"}', 404)

    async def _serve(self, socket: web.WebSocketResponse, connection: SignalingConnection) -> None:
        now = self._now()
        client = self.hub.open(now)
        peer = self._peers[client] = _Peer(client, connection, next_ping=now + PING_INTERVAL)
        writing = asyncio.create_task(self._write(socket, peer), name="writing to a signaling client")
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._read(socket, client)
        finally:
            del self._peers[client]
            self.hub.close(client)
            writing.cancel()
            await asyncio.wait([writing])

    async def _read(self, socket: web.WebSocketResponse, client: SignalingClient) -> None:
        while client.ended is None:
            message = await socket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pause = self.hub.receive(client, message.data, self._now())
            elif message.type in (WSMsgType.PING, WSMsgType.PONG):
                pause = self.hub.heard(client, self._now())
                if message.type is WSMsgType.PING:
                    await self._in_time(socket.pong(message.data))
            else:
                return
            if pause:
                await asyncio.sleep(pause)

    async def _write(self, socket: web.WebSocketResponse, peer: _Peer) -> None:
        """Send what waits until the client is ended, then end its connection: that wakes whoever reads from it."""
        client = peer.client
        with contextlib.suppress(ConnectionError, TimeoutError):
            while client.ended is None:
                peer.wake.clear()
                now = self._now()
                if now >= peer.next_ping:
                    peer.next_ping = now + PING_INTERVAL
                    await self._in_time(socket.ping())
                while client.ended is None and (text := self.hub.take(client)) is not None:
                    await self._in_time(socket.send_str(text))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(peer.next_ping):
                        await peer.wake.wait()
        peer.connection.abort()

    async def _in_time(self, sending: Any) -> None:
        async with asyncio.timeout(self.config.write_timeout):
            await sending

    def _queued(self, client: SignalingClient) -> None:
        peer = self._peers.get(client)
        if peer is None:
            return
        peer.wake.set()
        if client.ended is not None:
            logger.info("a signaling client is ended: %s", client.ended)
            peer.connection.abort()


def _answer(body: bytes, status: int, content_type: str = "application/json") -> web.Response:
    response = web.Response(body=body, status=status, headers={"Content-Type": content_type})
    response.force_close()  # connections are counted: none lies idle
    return response
