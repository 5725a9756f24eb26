"""Reaches relays that are nodes, `tom://NODEID@IP:PORT`: QUIC on the endpoint's own socket, direct paths alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

import attrs

from tom_connect.abc import DirectConnection, DirectConnections, DirectStream
from tom_connect.addr import NodeAddr, RelayUrl
from tom_connect.exceptions import ConnectionClosedError, DatagramTooLargeError, NetworkError, TomError
from tom_relay.client.carrier import CarrierClosedError
from tom_relay.errors import RelayUnreachableError, WireError
from tom_relay.wire import Ping, encode
from tom_relay.wire.quic import ALPN, DIALECT, CloseCode, FrameReader, Way, in_datagram, on_stream, way_of

CONNECT_TIMEOUT: Final = 4.0
"""Seconds for a look-up, if the URL has no address, and the handshake."""
MAX_WAITING: Final = 512
"""Messages that wait to be read; more datagrams are dropped, and the stream is not read on."""
DATAGRAMS_AHEAD: Final = 64
"""Datagrams that wait inside QUIC: enough for a turn of the loop, few enough that pings are not delayed."""


class QuicCarrier:
    """A QUIC connection to a relay (`Carrier`); made by `open_carrier`."""

    dialect = DIALECT
    proven = True

    def __init__(self, connection: DirectConnection, stream: DirectStream) -> None:
        self.services: Mapping[str, int] | None = None
        self.connection = connection
        self.dropped = 0
        """Datagrams that did not fit into the path, or came faster than they were read."""
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._error: Exception | None = None
        self._tasks = [
            asyncio.create_task(self._read_stream(), name="reading a relay's stream"),
            asyncio.create_task(self._read_datagrams(), name="reading a relay's datagrams"),
        ]

    async def receive(self) -> bytes:
        """See `Carrier`."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._waiting.popleft()

    async def send(self, message: bytes) -> None:
        """See `Carrier`."""
        try:
            way = way_of(message, self.connection.max_datagram_size)
            if way is Way.DATAGRAM:
                await self.connection.datagrams_sent(DATAGRAMS_AHEAD)
                self.connection.send_datagram(message)
            elif way is Way.STREAM:
                self._stream.write(on_stream(message))
                await self._stream.drain()
            else:
                self.dropped += 1
        except DatagramTooLargeError:  # the path has shrunk in this moment
            self.dropped += 1
        except TomError as exc:
            raise _closed(exc) from None

    async def close(self) -> None:
        """See `Carrier`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.connection.close(CloseCode.DONE)

    def abort(self) -> None:
        """See `Carrier`."""
        for task in self._tasks:
            task.cancel()

    def address_is_gone(self) -> bool:
        """See `Carrier`: never, since the shared socket follows the machine."""
        return False

    async def _read_stream(self) -> None:
        reader = FrameReader()
        try:
            while data := await self._stream.read(1 << 16):
                for frame in reader.feed(data):
                    while len(self._waiting) >= MAX_WAITING:
                        self._room.clear()
                        await self._room.wait()
                    self._put(frame)
            self._fail(CarrierClosedError("it ended the stream"))
        except TomError as exc:
            self._fail(exc if isinstance(exc, WireError) else _closed(exc))

    async def _read_datagrams(self) -> None:
        try:
            while True:
                frame = in_datagram(await self.connection.read_datagram())
                if len(self._waiting) >= MAX_WAITING:
                    self.dropped += 1
                else:
                    self._put(frame)
        except TomError as exc:
            self._fail(exc if isinstance(exc, WireError) else _closed(exc))

    def _put(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self._arrived.set()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._arrived.set()


def _closed(exc: TomError) -> CarrierClosedError:
    return CarrierClosedError(exc.reason if isinstance(exc, ConnectionClosedError) else str(exc))


async def greeted(connection: DirectConnection) -> QuicCarrier:
    """A carrier over a connection that was just made; the relay hears of its stream by a first ping."""
    try:
        stream = await connection.open_bi()
        stream.write(on_stream(encode(Ping(bytes(8)), DIALECT)))
    except NetworkError as exc:
        raise RelayUnreachableError(str(exc)) from None
    return QuicCarrier(connection, stream)


@attrs.define
class QuicDialer:
    """Opens QUIC connections to relays. `connections`: the endpoint's, None if it has none."""

    connections: DirectConnections | None

    async def open(self, url: RelayUrl, *, configured: bool, trusted: bool) -> QuicCarrier:
        """A carrier to a relay that proved the key in its URL; raises RelayUnreachableError."""
        if self.connections is None:
            raise RelayUnreachableError("this endpoint lends no QUIC connections")
        assert url.node_id is not None
        where = NodeAddr(url.node_id, (), () if url.node_addr is None else (url.node_addr,))
        try:
            connection = await self.connections.dial(where, ALPN, trusted=trusted, timeout=CONNECT_TIMEOUT)
        except TomError as exc:
            raise RelayUnreachableError(" ".join(str(exc).split())[:200]) from None
        return await greeted(connection)
