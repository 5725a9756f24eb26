"""A WebSocket client that costs little: frames are masked beforehand, and counted when they come.

aiohttp's own client would take as much time as the server that is measured.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from typing import cast

from tom_connect.exceptions import TomError
from tom_connect.keys import SecretKey
from tom_relay.wire import ClientHandshake, Dialect, FrameType, Pong, SendDatagrams, encode

DIALECT = Dialect.IROH_V2
BINARY = 0x82
MASK = b"\x37\xfa\x21\x3d"


def masked(message: bytes) -> bytes:
    """A WebSocket frame as a client has to send it (RFC 6455 section 5.3)."""
    size = len(message)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    stream = (MASK * (size // 4 + 1))[:size]
    body = (int.from_bytes(message, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
    return b"\x82" + length + MASK + body


class Link(asyncio.Protocol):
    """One connection, to a relay or to an echo; `on_datagrams` is called with each message of datagrams that comes."""

    def __init__(self, *, echo: bool, sign_with: SecretKey | None = None) -> None:
        self.echo = echo
        self.key = SecretKey.generate()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_datagrams: Callable[[int], None] = lambda _count: None
        self.on_room: Callable[[], None] = lambda: None
        self.full = False
        self._handshake = ClientHandshake(DIALECT, self.key.node_id, (sign_with or self.key).sign)
        self._upgraded = False
        self._rest = b""

    @classmethod
    async def open(cls, port: int, *, echo: bool, sign_with: SecretKey | None = None) -> Link:
        """Connect, upgrade, and prove a new key where a relay asks for it; with a wrong key there is no proof."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: cls(echo=echo, sign_with=sign_with), "127.0.0.1", port)
        try:
            await asyncio.wait_for(link.ready, 60)
        except BaseException:
            link.transport.abort()
            raise
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = transport = cast(asyncio.Transport, transport)
        nonce = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /relay HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {DIALECT.value}\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for the connection hears of its end."""
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def pause_writing(self) -> None:
        """The server reads more slowly than we write."""
        self.full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.full = False
        self.on_room()

    def data_received(self, data: bytes) -> None:
        """Split what came into messages."""
        data = self._rest + data if self._rest else data
        if not self._upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.transport.abort()
                return
            self._upgraded = True
            if self.echo:
                self.ready.set_result(None)
        at, end, count = 0, len(data), 0
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            if start + size > end:
                break
            # A long message is one of datagrams, in a relay as in an echo.
            if size > 125:
                count += 1
            elif size and data[at] == BINARY:
                self._control(data[start : start + size])
            at = start + size
        self._rest = data[at:]
        if count:
            self.on_datagrams(count)

    def _control(self, message: bytes) -> None:
        if message[0] == FrameType.PING:
            self.transport.write(masked(encode(Pong(message[1:]), DIALECT)))
        elif not self._handshake.done and not self.echo:
            try:
                answer = self._handshake.receive(message)
            except TomError as refused:
                self.ready.set_exception(refused)
                self.transport.abort()
                return
            if answer is None:
                self.ready.set_result(None)
            else:
                self.transport.write(masked(answer))


class Pair:
    """Frames from one link to another, or to an echo and back, with so many on their way at once."""

    def __init__(self, sender: Link, receiver: Link, *, size: int, packets: int, window: int) -> None:
        self.sender = sender
        self.window = window
        data = os.urandom(size * packets)
        segment = size if packets > 1 else None
        # An echo gets what a relay gets, byte for byte.
        self.frame = masked(encode(SendDatagrams(receiver.key.node_id.raw, data, 0, segment), DIALECT))
        self.came = 0
        self._running = False
        receiver.on_datagrams = self._more

    def start(self) -> None:
        """Begin to send."""
        self.came, self._running = 0, True
        self.sender.transport.write(self.frame * self.window)

    def stop(self) -> int:
        """Send no more; returns how many frames came."""
        self._running = False
        return self.came

    def _more(self, count: int) -> None:
        self.came += count
        if self._running:
            self.sender.transport.write(self.frame * count)
