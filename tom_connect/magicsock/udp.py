"""One non-blocking UDP socket: drained in batches, sent to in groups, without ever blocking or raising.

What one system has more of (segmentation offload, recvmsg, don't-fragment) is tried at run time and
switches itself off.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import LocalError
from tom_connect.holepunch.addrfilter import normal
from tom_connect.magicsock.sockopts import (
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    enlarge_buffers,
    fragmentation_switch,
    try_option,
    ttl_switch,
)

BUFFER_SIZE: Final = 4 << 20
"""Bytes asked for each of the kernel's buffers: what arrives in 30 ms at 1 Gbit/s."""
DRAIN_PACKETS: Final = 256
"""Datagrams taken in one turn of the loop, so that timers and others get theirs."""
MAX_SEGMENTS: Final = 64
MAX_GROUP: Final = 65000
"""Bytes of one send with segmentation: below the 65,507 of a UDP datagram."""
MIN_MTU_PAYLOAD: Final = 1200
"""Datagrams up to this size may be fragmented (RFC 9000 section 14: larger ones must not)."""
BACKLOG: Final = 1024
"""Datagrams that wait for the kernel's buffer, at most; further ones are dropped."""
BROKEN: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.EPIPE, errno.ESHUTDOWN})
"""Errors of a socket that the system has taken away, as macOS and iOS do when they sleep."""
_MAX_DATAGRAM = 65536
_SEGMENT_SIZE = struct.Struct("=H")
_KNOWN_SOURCES = 4096

SockAddr = tuple[Any, ...]
"""An address as the `socket` module wants it."""
BatchReceiver = Callable[[SocketAddr, list[bytes], float], None]


def _missing(*_args: object) -> Any:
    raise NotImplementedError


def open_socket(addr: SocketAddr) -> socket.socket:
    """A bound, non-blocking UDP socket; raises OSError."""
    sock = socket.socket(addr.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if addr.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        enlarge_buffers(sock, BUFFER_SIZE)
        sock.bind(sockaddr(addr))
    except BaseException:
        sock.close()
        raise
    return sock


def sockaddr(addr: SocketAddr) -> SockAddr:
    """The tuple for the `socket` module; raises OSError for a scope that this machine does not have."""
    if ":" not in addr.host:
        return (addr.host, addr.port)
    host, _percent, scope = addr.host.partition("%")
    if not scope:
        return (host, addr.port, 0, 0)
    return (host, addr.port, 0, int(scope) if scope.isdigit() else socket.if_nametoindex(scope))


def bind_error(addr: SocketAddr, exc: OSError) -> LocalError:
    """What to tell a user who asked for `addr`."""
    if exc.errno == errno.EADDRINUSE:
        return LocalError(f"UDP port {addr.port} of {addr.host} is in use: choose another, or 0 for any free one")
    if exc.errno == errno.EACCES:
        return LocalError(f"UDP port {addr.port} needs rights that this program lacks: choose one above 1023")
    if exc.errno == errno.EADDRNOTAVAIL:
        return LocalError(f"this machine has no address {addr.host}: bind to one that it has, or to a wildcard")
    return LocalError(f"can't bind UDP {addr}: {exc.strerror or exc}")


class UdpSocket:
    """A bound socket in an event loop. `receive(source, datagrams, now)` gets what arrives, in batches of a source."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        receive: BatchReceiver,
        turn_end: Callable[[float], None],
        writable: Callable[[], None],
        clock: Callable[[], float],
        counters: Counter[str],
        broken: Callable[[UdpSocket], None] = lambda _udp: None,
    ) -> None:
        """`broken(self)` is called when the system has made the socket useless; only `attach` helps then."""
        self.family = sock.family
        self._receive = receive
        self._turn_end = turn_end
        self._writable = writable
        self._clock = clock
        self._counters = counters
        self._broken = broken
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._reading = False
        self._backlog: deque[tuple[bytes, SockAddr]] = deque()
        self._sources: dict[SockAddr, SocketAddr] = {}
        self._buffer = bytearray(_MAX_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._use(sock)

    def _use(self, sock: socket.socket) -> None:
        name = sock.getsockname()
        self.local = SocketAddr(name[0], name[1])
        self._sock = sock
        # Windows has neither of the two calls.
        self._sendmsg: Callable[..., int] = getattr(sock, "sendmsg", _missing)
        self._recvmsg_into: Callable[..., tuple[int, list[tuple[int, int, bytes]], int, SockAddr]] = getattr(
            sock, "recvmsg_into", _missing
        )
        self.gso = self._sendmsg is not _missing and try_option(sock, SOL_UDP, UDP_SEGMENT, 0)
        self.gro = self._recvmsg_into is not _missing and try_option(sock, SOL_UDP, UDP_GRO, 1)
        self._set_dont_fragment = fragmentation_switch(sock)
        self._dont_fragment: bool | None = None
        self._set_ttl = ttl_switch(sock)

    @property
    def limits_ttl(self) -> bool:
        """Whether `send_opener` can let a datagram die after few hops."""
        return self._set_ttl is not None

    @property
    def congested(self) -> bool:
        """Whether datagrams wait for room in the kernel's buffer."""
        return bool(self._backlog)

    async def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to receive."""
        try:
            self.start_reading(loop)
        except NotImplementedError:
            # The proactor loop of Windows has no readers: asyncio's own transport then does the reading.
            await self.start_transport(loop)

    def start_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to receive by a reader of the loop; raises NotImplementedError where it has none."""
        self._loop = loop
        loop.add_reader(self._sock.fileno(), self._drain_gro if self.gro else self._drain)
        self._reading = True

    async def start_transport(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to receive through asyncio's datagram transport, which works on every loop, one datagram at a time."""
        self._loop = loop
        if self.gro:
            try_option(self._sock, SOL_UDP, UDP_GRO, 0)
            self.gro = False
        self.gso = False
        self._transport, _protocol = await loop.create_datagram_endpoint(lambda: _Bridge(self), sock=self._sock)

    async def detach(self) -> None:
        """Let go of the socket underneath; until `attach` what is sent is lost, and counted. Idempotent."""
        loop = self._loop
        if loop is None:
            return
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()
            # asyncio closes the socket in the loop's next turn; before that its port is taken.
            await asyncio.sleep(0)
            return
        if self._sock.fileno() < 0:
            return
        self._stop_reading(loop)
        if self._backlog:
            loop.remove_writer(self._sock.fileno())
            self._counters["send: rebound"] += len(self._backlog)
            self._backlog.clear()
            loop.call_soon(self._writable)
        self._sock.close()

    async def attach(self, sock: socket.socket) -> None:
        """Go on with a bound socket of the same family, in place of the one that was detached. Raises OSError.

        Who holds this object need not know of it; `local` may have another port.
        """
        loop = self._loop
        if loop is None:  # closed meanwhile
            sock.close()
            return
        self._use(sock)
        await self.start(loop)

    def _stop_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._reading:
            loop.remove_reader(self._sock.fileno())
            self._reading = False

    def close(self) -> None:
        """Stop and close; what waits is tried once more. Idempotent."""
        loop, self._loop = self._loop, None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
            return
        if self._sock.fileno() < 0:
            return
        if loop is not None:
            self._stop_reading(loop)
        if self._backlog:
            if loop is not None:
                loop.remove_writer(self._sock.fileno())
            while self._backlog and self._send_now(*self._backlog.popleft()):
                pass
            self._backlog.clear()
        self._sock.close()

    # --- receiving --------------------------------------------------------------------------------------------

    def _source(self, raw: SockAddr) -> SocketAddr:
        """The one SocketAddr for an address of the kernel's, so that looking it up compares by identity."""
        source = self._sources.get(raw)
        if source is None:
            if len(self._sources) >= _KNOWN_SOURCES:
                self._sources.clear()
            source = self._sources[raw] = normal(SocketAddr(raw[0], raw[1]))
        return source

    def _drain_gro(self) -> None:
        """Receive until there is nothing or the turn is over; the kernel hands over trains of equal datagrams."""
        receive, view, buffers = self._recvmsg_into, self._view, (self._view,)
        batch: list[bytes] = []
        batch_from: SockAddr | None = None
        taken = 0
        now = self._clock()
        try:
            while taken < DRAIN_PACKETS and self._loop is not None:
                size, ancillary, _flags, source = receive(buffers, 64)
                if source != batch_from:
                    if batch and batch_from is not None:
                        self._receive(self._source(batch_from), batch, now)
                        batch = []
                    batch_from = source
                segment = 0
                for level, kind, data in ancillary:
                    if level == SOL_UDP and kind == UDP_GRO:
                        segment = int.from_bytes(data[:4], sys.byteorder)
                if 0 < segment < size:
                    for at in range(0, size, segment):
                        batch.append(bytes(view[at : min(at + segment, size)]))
                    taken += -(-size // segment)
                else:
                    batch.append(bytes(view[:size]))
                    taken += 1
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            self._receive_failed(exc)
        if batch and batch_from is not None and self._loop is not None:
            self._receive(self._source(batch_from), batch, now)
        if taken:
            self._turn_end(now)

    def _drain(self) -> None:
        """The same without recvmsg."""
        sock = self._sock
        batch: list[bytes] = []
        batch_from: SockAddr | None = None
        taken = 0
        now = self._clock()
        try:
            while taken < DRAIN_PACKETS and self._loop is not None:
                data, source = sock.recvfrom(_MAX_DATAGRAM)
                if source != batch_from:
                    if batch and batch_from is not None:
                        self._receive(self._source(batch_from), batch, now)
                        batch = []
                    batch_from = source
                batch.append(data)
                taken += 1
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            self._receive_failed(exc)
        if batch and batch_from is not None and self._loop is not None:
            self._receive(self._source(batch_from), batch, now)
        if taken:
            self._turn_end(now)

    def received_one(self, data: bytes, source: SockAddr) -> None:
        """Take what asyncio's transport received."""
        if self._loop is not None:
            now = self._clock()
            self._receive(self._source(source), [data], now)
            self._turn_end(now)

    def _receive_failed(self, exc: OSError) -> None:
        # An ICMP error of an earlier send shows up here on some systems (WSAECONNRESET on Windows); what else has
        # arrived is received in the next turn.
        self._counters[f"receive: {errno.errorcode.get(exc.errno or 0, 'error')}"] += 1
        if exc.errno in BROKEN and self._loop is not None:
            # It would be readable for ever.
            self._stop_reading(self._loop)
            self._broken(self)

    # --- sending ----------------------------------------------------------------------------------------------

    def send(self, datagrams: Sequence[bytes], dest: SockAddr) -> None:
        """Send datagrams to one address, as few system calls as the machine allows."""
        if self._loop is None:
            self._counters["send: closed"] += len(datagrams)
            return
        if len(datagrams) == 1:
            self.send_one(datagrams[0], dest)
            return
        if self._backlog or not self.gso:
            for data in datagrams:
                self.send_one(data, dest)
            return
        start, count = 0, len(datagrams)
        while start < count:
            size = len(datagrams[start])
            limit = min(count, start + max(1, min(MAX_SEGMENTS, MAX_GROUP // max(size, 1))))
            end = start + 1
            while end < limit and len(datagrams[end]) == size:
                end += 1
            if end < limit and len(datagrams[end]) < size:
                # The last segment of a train may be shorter.
                end += 1
            if end - start == 1 or not self.gso:
                for data in datagrams[start:end]:
                    self.send_one(data, dest)
            else:
                self._send_train(datagrams[start:end], size, dest)
            start = end

    def _send_train(self, train: Sequence[bytes], size: int, dest: SockAddr) -> None:
        self._protect(size > MIN_MTU_PAYLOAD)
        try:
            self._sendmsg(train, [(SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(size))], 0, dest)
        except (BlockingIOError, InterruptedError):
            self._wait(train, dest)
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                self._counters["send: ENOBUFS"] += len(train)
                return
            # Either the path takes no datagrams of this size, or the device takes no trains: one by one tells.
            sent = [self._send_now(data, dest) for data in train]
            if all(sent) and exc.errno in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT):
                self.gso = False
                self._counters["segmentation offload switched off"] += 1

    def send_one(self, data: bytes, dest: SockAddr) -> bool:
        """Send one datagram, or queue it behind those that wait; False if it was dropped."""
        if self._loop is None:
            self._counters["send: closed"] += 1
            return False
        if self._backlog:
            return self._wait((data,), dest)
        return self._send_now(data, dest, wait=True)

    def send_opener(self, data: bytes, dest: SockAddr, ttl: int) -> None:
        """Send one datagram that routers after the first `ttl` do not see; dropped where that is not possible now."""
        if self._loop is None or self._set_ttl is None or not self._set_ttl(ttl):
            self._counters["send: no opener"] += 1
            return
        try:
            self._send_now(data, dest)
        finally:
            self._set_ttl(None)

    def _send_now(self, data: bytes, dest: SockAddr, *, wait: bool = False) -> bool:
        large = len(data) > MIN_MTU_PAYLOAD
        if large is not self._dont_fragment:
            self._protect(large)
        try:
            self._sock.sendto(data, dest)
        except (BlockingIOError, InterruptedError):
            return wait and self._wait((data,), dest)
        except (OSError, OverflowError) as exc:
            # No route, an ICMP error of an earlier packet, larger than the path takes: the packet is lost, and
            # every protocol above lives with loss.
            number = exc.errno if isinstance(exc, OSError) else None
            self._counters[f"send: {errno.errorcode.get(number or 0, 'error')}"] += 1
            return False
        return True

    def _protect(self, dont_fragment: bool) -> None:
        if dont_fragment is not self._dont_fragment:
            self._dont_fragment = dont_fragment
            if self._set_dont_fragment is not None and not self._set_dont_fragment(dont_fragment):
                self._set_dont_fragment = None

    def _wait(self, datagrams: Sequence[bytes], dest: SockAddr) -> bool:
        """Queue until the kernel has room; False if one had to be dropped."""
        room = BACKLOG - len(self._backlog)
        if room < len(datagrams):
            self._counters["send: backlog full"] += len(datagrams) - room
        if not self._backlog and self._loop is not None:
            try:
                self._loop.add_writer(self._sock.fileno(), self._flush)
            except NotImplementedError:
                self._counters["send: would block"] += len(datagrams)
                return False
        self._backlog.extend((data, dest) for data in datagrams[: max(room, 0)])
        return room >= len(datagrams)

    def _flush(self) -> None:
        backlog = self._backlog
        while backlog:
            data, dest = backlog[0]
            large = len(data) > MIN_MTU_PAYLOAD
            self._protect(large)
            try:
                self._sock.sendto(data, dest)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._counters[f"send: {errno.errorcode.get(exc.errno or 0, 'error')}"] += 1
            backlog.popleft()
        if self._loop is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._writable()


class _Bridge(asyncio.DatagramProtocol):
    """Hands what asyncio's transport receives to a UdpSocket."""

    def __init__(self, owner: UdpSocket) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: SockAddr) -> None:
        self._owner.received_one(data, addr)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: what was sent is lost, and QUIC or disco will notice."""
