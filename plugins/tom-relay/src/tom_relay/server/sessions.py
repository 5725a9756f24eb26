"""Relay sessions: a WebSocket from its request to its end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable

import attrs
from aiohttp import WSCloseCode, WSMsgType, web

from tom_connect.keys import NodeId
from tom_relay.errors import HandshakeError, WireError
from tom_relay.server.access import AccessPolicy
from tom_relay.server.accounts import Accounts
from tom_relay.server.config import RelayServerConfig
from tom_relay.server.connection import RelayConnection
from tom_relay.server.gate import Gate
from tom_relay.server.hub import RelayClient, RelayHub
from tom_relay.server.origin import public_origin
from tom_relay.wire import MAX_MESSAGE, SUBPROTOCOLS, Dialect, IPAddress, ServerHandshake, choose_dialect
from tom_relay.wire.frames import CHALLENGE_SIZE
from tom_relay.wire.services import HEADER

logger = logging.getLogger("tom_connect.plugin.relay-server")

CLOSE_TIMEOUT = 0.5
"""Seconds that a client gets to answer our WebSocket close; nothing is lost if it does not."""
MAX_TOKEN = 4096
"""Characters of a token that are looked at."""


@attrs.define
class SessionCounters:
    """What became of requests for sessions, for metrics."""

    upgrades: int = 0
    bad_requests: dict[str, int] = attrs.Factory(lambda: {"no_upgrade": 0, "subprotocol": 0})
    authenticated: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(SUBPROTOCOLS, 0))
    gone: int = 0
    """Connections that ended while they were written to."""
    denied: Counter[str] = attrs.Factory(Counter)
    """Refusals by kind: "signature", "key", "access", "full" and so on."""
    violations: Counter[str] = attrs.Factory(Counter)
    """Breaches after the handshake by kind: "unknown", "truncated", "direction", "text", "too-large" and so on."""


class Sessions:
    """Runs every session, with who may have one."""

    def __init__(
        self, config: RelayServerConfig, hub: RelayHub, gate: Gate, accounts: Accounts, access: AccessPolicy
    ) -> None:
        self.counters = SessionCounters()
        self.services: str | None = None
        """What clients are told about our UDP services, once they run."""
        self._config = config
        self._hub = hub
        self._gate = gate
        self._accounts = accounts
        self._access = access
        self._proxies = config.proxies
        self.elsewhere: Callable[[RelayClient], object] = lambda _client: None
        """Ends a client's connection that is no WebSocket of ours."""
        self._sockets: dict[RelayClient, tuple[web.WebSocketResponse, str | None]] = {}

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request for `/relay`."""
        self.counters.upgrades += 1
        websocket = web.WebSocketResponse(
            protocols=SUBPROTOCOLS,
            compress=False,
            max_msg_size=MAX_MESSAGE,
            timeout=CLOSE_TIMEOUT,
        )
        if self.services is not None:
            websocket.headers[HEADER] = self.services
        if request.method != "GET" or not websocket.can_prepare(request):
            self.counters.bad_requests["no_upgrade"] += 1
            text = "This is a relay for encrypted datagrams: connect by WebSocket.\n"
            return web.Response(status=426, text=text, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        offered = [name for value in request.headers.getall("Sec-WebSocket-Protocol", ()) for name in value.split(",")]
        dialect = choose_dialect(offered)
        if dialect is None:
            self.counters.bad_requests["subprotocol"] += 1
            text = f"None of the offered WebSocket sub-protocols is spoken here; ours are {', '.join(SUBPROTOCOLS)}.\n"
            return web.Response(status=400, text=text)
        try:
            await self._run(websocket, request, dialect)
        except ConnectionError:  # it has gone in the midst of it, and nobody waits for an answer
            self.counters.gone += 1
        return websocket

    async def _run(self, websocket: web.WebSocketResponse, request: web.BaseRequest, dialect: Dialect) -> None:
        connection = request.protocol
        assert isinstance(connection, RelayConnection)
        await websocket.prepare(request)
        token = _token(request)
        address = public_origin(
            request.get_extra_info("peername"),
            request.headers,
            request.headers.getall("X-Forwarded-For", ()),
            self._proxies,
        )
        client = await self._let_in(websocket, connection, dialect, token, address)
        if client is not None:
            self._sockets[client] = (websocket, token)
            try:
                await self._receive(websocket, client)
            finally:
                self._let_go(client)

    # Coming

    async def _let_in(
        self,
        websocket: web.WebSocketResponse,
        connection: RelayConnection,
        dialect: Dialect,
        token: str | None,
        address: IPAddress | None,
    ) -> RelayClient | None:
        handshake = ServerHandshake(dialect, secrets.token_bytes(CHALLENGE_SIZE))
        await websocket.send_bytes(handshake.challenge())
        message = await websocket.receive()
        if message.type is not WSMsgType.BINARY:
            if message.type is WSMsgType.TEXT:
                await self._deny(websocket, handshake, "text", "expected ClientAuth, got a text message")
            return None
        try:
            node_id = handshake.authenticate(message.data)
        except HandshakeError as exc:
            await self._deny(websocket, handshake, exc.kind, str(exc))
            return None
        reason = await self._access.refusal(node_id, token)
        if reason is not None:
            await self._deny(websocket, handshake, "access", reason)
            return None
        if len(self._hub) >= self._config.max_clients and not self._hub.is_connected(node_id):
            await self._deny(websocket, handshake, "full", "the relay is full; use another one")
            return None
        await websocket.send_bytes(handshake.confirm())
        return self._register(connection, node_id, dialect, address)

    def _register(
        self, connection: RelayConnection, node_id: NodeId, dialect: Dialect, address: IPAddress | None
    ) -> RelayClient | None:
        if connection.transport is None:  # it has ended meanwhile
            return None
        client, surplus = self._hub.register(node_id, dialect, asyncio.get_running_loop().time(), address)
        self.counters.authenticated[dialect.value] += 1
        self._accounts.begin(client)
        self._gate.prove(connection, client)
        if surplus is not None:
            self._abort(surplus)
        return client

    async def _deny(self, websocket: web.WebSocketResponse, handshake: ServerHandshake, kind: str, reason: str) -> None:
        self.counters.denied[kind] += 1
        await websocket.send_bytes(handshake.deny(reason))
        await websocket.close(code=WSCloseCode.POLICY_VIOLATION, message=_cut(reason))

    # Being there

    async def _receive(self, websocket: web.WebSocketResponse, client: RelayClient) -> None:
        clock = asyncio.get_running_loop().time
        hub = self._hub
        while True:
            message = await websocket.receive()
            if message.type is WSMsgType.BINARY:
                try:
                    wait = hub.receive(client, message.data, clock())
                except WireError as exc:
                    self.counters.violations[exc.kind] += 1
                    code = WSCloseCode.MESSAGE_TOO_BIG if exc.kind == "too-large" else WSCloseCode.PROTOCOL_ERROR
                    await websocket.close(code=code, message=_cut(str(exc)))
                    return
                if wait:
                    await asyncio.sleep(wait)  # what is not read stays with the sender: TCP's flow control
            elif message.type is WSMsgType.TEXT:
                self.counters.violations["text"] += 1
                await websocket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"only binary messages are spoken")
                return
            else:
                if message.type is WSMsgType.ERROR:
                    self.counters.violations["websocket"] += 1
                return

    def tick(self, now: float) -> None:
        """Ping, and end the sessions of clients that do not answer."""
        for client in self._hub.tick(now):
            self._abort(client)

    # Going

    def _let_go(self, client: RelayClient) -> None:
        self._sockets.pop(client, None)
        self._accounts.end(client)
        self._hub.unregister(client)

    def _abort(self, client: RelayClient) -> None:
        connection = self._gate.proven.get(client)
        if connection is not None:
            connection.abort()
        else:
            self.elsewhere(client)

    def end(self, client: RelayClient) -> None:
        """End a client's connection at once, if it has one here."""
        connection = self._gate.proven.get(client)
        if connection is not None:
            connection.abort()

    async def refusal(self, node_id: NodeId) -> str | None:
        """Why a node that shows no token may not use the relay, None if it may."""
        return await self._access.refusal(node_id, None)

    async def set_access(self, access: AccessPolicy) -> None:
        """Use another policy from now on, also on those who are connected."""
        previous, self._access = self._access, access
        if previous is not access:
            await previous.aclose()
        for client, (websocket, token) in list(self._sockets.items()):
            reason = await access.refusal(client.node_id, token)
            if reason is not None and client in self._sockets:
                self.counters.denied["access"] += 1
                await websocket.close(code=WSCloseCode.POLICY_VIOLATION, message=_cut(reason), drain=False)

    async def drained(self) -> None:
        """Wait until nothing waits for any client."""
        while self._hub.queued_bytes or any(  # noqa: ASYNC110 - transports tell of no such event
            connection.transport is not None and connection.transport.get_write_buffer_size()
            for connection in self._gate.proven.values()
        ):
            await asyncio.sleep(0.01)

    async def end_all(self) -> None:
        """Close every session: the relay goes away."""

        async def end(websocket: web.WebSocketResponse) -> None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await websocket.close(code=WSCloseCode.GOING_AWAY, message=b"the relay restarts", drain=False)
            except (TimeoutError, OSError):
                pass

        await asyncio.gather(*(end(websocket) for websocket, _token in list(self._sockets.values())))

    async def close(self) -> None:
        """Let go of the access policy."""
        await self._access.aclose()


def _token(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    found = token.strip() if scheme.lower() == "bearer" else request.query.get("token")
    return found[:MAX_TOKEN] if found else None


def _cut(reason: str) -> bytes:
    """A close reason has at most 123 bytes (RFC 6455 section 5.5)."""
    return reason.encode()[:123].decode(errors="ignore").encode()
