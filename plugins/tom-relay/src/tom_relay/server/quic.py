"""Relay sessions over QUIC: the hub's other shell, for connections whose keys QUIC itself has proven.

What waits for a client stays in the hub's bounded queue until QUIC has room. A client that sends more than it may is
not read on the stream, which stops it, and its datagrams are dropped, which slows the connections inside it down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

import attrs

from tom_connect.abc import DirectConnection, DirectStream
from tom_connect.addr import SocketAddr
from tom_connect.exceptions import DatagramTooLargeError, NetworkError
from tom_connect.keys import NodeId
from tom_relay.errors import WireError
from tom_relay.server.hub import RelayClient, RelayHub
from tom_relay.wire import Restarting, ServerConfirmsAuth, ServerDeniesAuth, encode
from tom_relay.wire.quic import DIALECT, CloseCode, FrameReader, Way, in_datagram, on_stream, split, way_of

HANDSHAKE_TIMEOUT = 5.0
"""Seconds for a new connection to open its stream."""
MAX_PENDING = 64
"""Connections without a stream yet."""
MAX_PER_HOST = 16
"""Connections from one IP address: a household's nodes, or those behind one NAT of a provider."""
WRITE_CHUNK = 65_536
"""Bytes taken from a client's queue at once."""
DATAGRAMS_AHEAD = 64
"""Datagrams that wait inside QUIC for one client."""
READ_CHUNK = 65_536
TURN_DATAGRAMS = 64
"""Datagrams of one client handled in a row, so that others get their turn."""

Refusal = Callable[[NodeId], Awaitable[str | None]]


async def _everyone(_node_id: NodeId) -> str | None:
    return None


@attrs.define(eq=False)
class _Session:
    connection: DirectConnection
    stream: DirectStream
    client: RelayClient
    wake: asyncio.Event = attrs.Factory(asyncio.Event)
    ended: CloseCode | None = None
    why: str = ""


class QuicSessions:
    """Serves a hub's clients over QUIC; give `serve` to `PluginContext.connections`.

    `max_clients`: connected at once, of all kinds; `refusal(node_id)`: why a node may not use the relay, None if it
    may; `write_timeout`: seconds for which a client may take nothing; `begun` and `over` are told of each client;
    `elsewhere` ends the connection of a client of the hub that is none of ours.
    """

    def __init__(
        self,
        hub: RelayHub,
        *,
        max_clients: int,
        clock: Callable[[], float],
        refusal: Refusal = _everyone,
        write_timeout: float = 2.0,
        begun: Callable[[RelayClient], None] = lambda _client: None,
        over: Callable[[RelayClient], None] = lambda _client: None,
        elsewhere: Callable[[RelayClient], None] = lambda _client: None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        """What became of connections and of datagrams, by reason; only ever grows."""
        self._hub = hub
        self._max_clients = max_clients
        self._clock = clock
        self._refusal = refusal
        self._write_timeout = write_timeout
        self._begun = begun
        self._over = over
        self._elsewhere = elsewhere
        self._sessions: dict[RelayClient, _Session] = {}
        self._hosts: Counter[str] = Counter()
        self._pending = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def address_of(self, node_id: NodeId) -> SocketAddr | None:
        """Where a node's connection comes from, None if it has none."""
        found = (s.connection.remote_addr for c, s in self._sessions.items() if c.active and c.node_id == node_id)
        return next(found, None)

    def queued(self, client: RelayClient) -> None:
        """The hub has something for a client."""
        session = self._sessions.get(client)
        if session is not None:
            session.wake.set()

    def end(self, client: RelayClient, code: CloseCode, why: str) -> bool:
        """End a client's connection; False if it is none of ours."""
        session = self._sessions.get(client)
        if session is None:
            return False
        if session.ended is None:
            session.ended, session.why = code, why
            session.wake.set()
        return True

    async def stop(self, patience: float) -> None:
        """Let what the hub has for its clients leave, within `patience` seconds, then end every connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while any(s.client.queue for s in self._sessions.values()):  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(0.01)
        for client in list(self._sessions):
            self.end(client, CloseCode.RESTARTING, "the relay goes away")

    async def serve(self, connection: DirectConnection) -> None:
        """Run one connection to its end."""
        host = connection.remote_addr.host
        if self._pending >= MAX_PENDING or self._hosts[host] >= MAX_PER_HOST:
            self.counters["too many connections"] += 1
            await connection.close(CloseCode.REFUSED, "too many connections; use another relay")
            return
        self._hosts[host] += 1
        try:
            session = await self._let_in(connection)
            if session is not None:
                await self._run(session)
        finally:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    async def _let_in(self, connection: DirectConnection) -> _Session | None:
        self._pending += 1
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                stream = await connection.accept_bi()
                reason = await self._refusal(connection.remote_node_id)
        except TimeoutError:
            self.counters["no stream in time"] += 1
            await connection.close(CloseCode.PROTOCOL, "no stream was opened in time")
            return None
        finally:
            self._pending -= 1
        hub, node_id = self._hub, connection.remote_node_id
        if reason is None and len(hub) >= self._max_clients and not hub.is_connected(node_id):
            reason = "the relay is full; use another one"
        if reason is not None:
            self.counters["refused"] += 1
            stream.write(on_stream(encode(ServerDeniesAuth(reason), DIALECT)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.closed()
            await connection.close(CloseCode.REFUSED, reason)
            return None
        client, surplus = hub.register(node_id, DIALECT, self._clock(), connection.remote_addr.ip)
        if surplus is not None and not self.end(surplus, CloseCode.DONE, "this node has two newer connections"):
            self._elsewhere(surplus)
        stream.write(on_stream(encode(ServerConfirmsAuth(), DIALECT)))
        self.counters["let in"] += 1
        session = self._sessions[client] = _Session(connection, stream, client)
        return session

    async def _run(self, session: _Session) -> None:
        client = session.client
        self._begun(client)
        tasks = [
            asyncio.create_task(self._read_stream(session), name="reading a relay client's stream"),
            asyncio.create_task(self._read_datagrams(session), name="reading a relay client's datagrams"),
            asyncio.create_task(self._write(session), name="writing to a relay client"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The endpoint is closed under us: what can still be said is said.
            session.ended = session.ended or CloseCode.RESTARTING
            config = self._hub.config
            restarting = Restarting(round(config.reconnect_in * 1000), round(config.try_for * 1000))
            with contextlib.suppress(NetworkError):
                session.stream.write(on_stream(encode(restarting, DIALECT)))
                await asyncio.sleep(0)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del self._sessions[client]
            self._over(client)
            self._hub.unregister(client)
            await session.connection.close(session.ended or CloseCode.DONE, session.why)

    async def _read_stream(self, session: _Session) -> None:
        reader = FrameReader()
        try:
            while data := await session.stream.read(READ_CHUNK):
                for frame in reader.feed(data):
                    wait = self._hub.receive(session.client, frame, self._clock())
                    if wait:
                        await asyncio.sleep(wait)
        except WireError as exc:
            self._breach(session, exc)
        except NetworkError:
            pass  # it has ended

    async def _read_datagrams(self, session: _Session) -> None:
        handled = 0
        try:
            while True:
                frame = in_datagram(await session.connection.read_datagram())
                now = self._clock()
                if now < session.client.read_again_at:
                    self.counters["datagrams beyond the rate"] += 1
                else:
                    self._hub.receive(session.client, frame, now)
                handled += 1
                if handled % TURN_DATAGRAMS == 0:
                    await asyncio.sleep(0)
        except WireError as exc:
            self._breach(session, exc)
        except NetworkError:
            pass  # it has ended

    def _breach(self, session: _Session, exc: WireError) -> None:
        self.counters[f"breach: {exc.kind}"] += 1
        session.ended, session.why = CloseCode.PROTOCOL, str(exc)

    async def _write(self, session: _Session) -> None:
        hub, client = self._hub, session.client
        try:
            while True:
                while client.queue:
                    async with asyncio.timeout(self._write_timeout):
                        for message in hub.take(client, WRITE_CHUNK):
                            for frame in split(message):
                                await self._send(session, frame)
                if session.ended is not None:
                    return
                session.wake.clear()
                await session.wake.wait()
        except TimeoutError:
            self.counters["took nothing for too long"] += 1
            session.ended, session.why = CloseCode.SILENT, "it takes nothing"
        except NetworkError:
            pass  # it has ended

    async def _send(self, session: _Session, frame: bytes) -> None:
        way = way_of(frame, session.connection.max_datagram_size)
        if way is Way.DATAGRAM:
            await session.connection.datagrams_sent(DATAGRAMS_AHEAD)
            with contextlib.suppress(DatagramTooLargeError):  # the path has shrunk in this moment
                session.connection.send_datagram(frame)
        elif way is Way.STREAM:
            session.stream.write(on_stream(frame))
            await session.stream.drain()
        else:
            self.counters["datagrams too large for the path"] += 1
