"""How a DHT node sends and receives: over UDP sockets of its own, or through the endpoint's shared socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tom_connect.abc import SharedSocket
from tom_connect.addr import SocketAddr

from .core import Address
from .errors import BindError

Datagram = tuple[bytes, Address]
Receiver = Callable[[Sequence[Datagram]], None]

BATCH = 32
"""Datagrams handled before the loop gets its turn: about 1 ms of work, which a QUIC packet may wait."""
QUEUE = 512
"""Datagrams of the shared socket that wait for their turn; more are dropped, as a full socket buffer would."""
_BUFFER = 1 << 20
_MAX_DATAGRAM = 65536


class DatagramTransport(Protocol):
    """Carries datagrams for one node. `open` once, then `send`, `close` at the end."""

    async def open(self, receive: Receiver) -> None:
        """Begin; `receive` gets batches from now on. Raises BindError."""

    def send(self, datagrams: Iterable[Datagram]) -> None:
        """Send now what the system takes; the rest is dropped and counted. Never raises."""

    async def close(self) -> None:
        """Stop receiving and let go of the sockets."""

    @property
    def local_addrs(self) -> Sequence[SocketAddr]:
        """Where it is bound, one a family; hosts may be wildcards."""

    @property
    def dropped(self) -> int:
        """Datagrams that were lost here, in either direction."""


class UdpTransport:
    """UDP sockets of the node's own, one for each of the addresses to bind.

    An address that can't be bound is left out as long as one of the others can. Works on every event loop: where it
    can't watch sockets (Windows' proactor) a task for each socket reads instead.
    """

    def __init__(self, bind: Sequence[SocketAddr]) -> None:
        self._bind = tuple(bind)
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._watched: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._receive: Receiver = lambda batch: None
        self.dropped = 0
        self.local_addrs: tuple[SocketAddr, ...] = ()

    async def open(self, receive: Receiver) -> None:
        """Bind and begin to read. Raises BindError if no address could be bound."""
        self._receive = receive
        failures = []
        for addr in self._bind:
            try:
                self._add(addr)
            except OSError as exc:
                failures.append(f"{addr}: {exc.strerror or exc}")
        if not self._sockets:
            raise BindError(f"no UDP socket could be bound ({'; '.join(failures) or 'no address was given'})")
        self.local_addrs = tuple(SocketAddr(*sock.getsockname()[:2]) for sock in self._sockets.values())
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            try:
                loop.add_reader(sock, self._on_readable, sock)
                self._watched.append(sock)
            except NotImplementedError:
                self._tasks.append(loop.create_task(self._read(sock), name="dht-socket"))

    def _add(self, addr: SocketAddr) -> None:
        if addr.family in self._sockets:
            raise OSError("a second address of the same family; one is used")
        sock = socket.socket(addr.family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if addr.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                with contextlib.suppress(OSError):  # macOS refuses what is above its limit
                    sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            sock.bind(addr)
        except BaseException:
            sock.close()
            raise
        self._sockets[addr.family] = sock

    def _drain(self, sock: socket.socket, batch: list[Datagram], limit: int) -> None:
        """Read what waits, at most `limit` datagrams."""
        for _ in range(limit):
            try:
                data, addr = sock.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # Linux, macOS and Windows report that an earlier datagram found no listener; the next read is fresh.
                continue
            if "%" not in addr[0]:  # link-local: means nothing without its interface
                batch.append((data, (addr[0], addr[1])))

    def _on_readable(self, sock: socket.socket) -> None:
        batch: list[Datagram] = []
        self._drain(sock, batch, BATCH)
        if batch:
            self._receive(batch)

    async def _read(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch: list[Datagram] = []
            try:
                data, addr = await loop.sock_recvfrom(sock, _MAX_DATAGRAM)
            except OSError:
                if sock.fileno() < 0:
                    return
                await asyncio.sleep(0)  # a socket that only fails must not take the loop
                continue
            batch.append((data, (addr[0], addr[1])))
            self._drain(sock, batch, BATCH - 1)
            self._receive([datagram for datagram in batch if "%" not in datagram[1][0]])

    def send(self, datagrams: Iterable[Datagram]) -> None:
        """Send now what the system takes; the rest is dropped and counted."""
        v4 = self._sockets.get(socket.AF_INET)
        v6 = self._sockets.get(socket.AF_INET6)
        for data, addr in datagrams:
            sock = v6 if ":" in addr[0] else v4
            if sock is None:
                self.dropped += 1
                continue
            try:
                sock.sendto(data, addr)
            except (OSError, OverflowError):
                self.dropped += 1

    async def close(self) -> None:
        """Stop reading and close the sockets."""
        loop = asyncio.get_running_loop()
        for sock in self._watched:
            loop.remove_reader(sock)
        self._watched.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


class SharedTransport:
    """The endpoint's socket, shared with QUIC: datagrams wait in a bounded queue of their own.

    Each turn of the event loop handles one batch, so that a flood of queries delays QUIC by one batch at most.
    """

    def __init__(self, shared: SharedSocket) -> None:
        self._shared = shared
        self._receive: Receiver | None = None
        self._queue: deque[Datagram] = deque()
        self._turn: asyncio.Handle | None = None
        self.dropped = 0

    @property
    def local_addrs(self) -> Sequence[SocketAddr]:
        """Where the endpoint's sockets are bound."""
        return self._shared.local_addrs

    async def open(self, receive: Receiver) -> None:
        """Begin to hand on what `feed` takes."""
        self._receive = receive

    def feed(self, datagrams: Sequence[Datagram]) -> None:
        """Take a batch from the endpoint; what does not fit into the queue is dropped."""
        if self._receive is None:
            self.dropped += len(datagrams)
            return
        room = QUEUE - len(self._queue)
        if len(datagrams) > room:
            self.dropped += len(datagrams) - room
            datagrams = datagrams[:room]
        self._queue.extend(datagrams)
        if self._turn is None and self._queue:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        if self._receive is None:
            return
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        if queue:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)
        self._receive([(data, (addr[0], addr[1])) for data, addr in batch if "%" not in addr[0]])

    def send(self, datagrams: Iterable[Datagram]) -> None:
        """Send through the endpoint's sockets."""
        for data, addr in datagrams:
            if not self._shared.send(data, SocketAddr(*addr)):
                self.dropped += 1

    async def close(self) -> None:
        """Hand nothing on any more; the sockets are the endpoint's."""
        self._receive = None
        self._queue.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
