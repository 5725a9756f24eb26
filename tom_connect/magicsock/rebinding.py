"""New sockets for old ones: after some changes of the network a UDP socket is dead and must be opened again."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from tom_connect.addr import SocketAddr
from tom_connect.magicsock.udp import UdpSocket, open_socket

RETRIES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts, the last for all that follow: an address that is gone may come back with the network."""


class Rebinding:
    """Gives UDP sockets a new socket underneath, and tries until that works.

    The port stays the same where it is free, else it is any; the host never becomes another, since who binds to one
    address may not want packets to leave from others. `rebound(udp)` is called after each success.
    """

    def __init__(
        self,
        *,
        rebound: Callable[[UdpSocket], None],
        counters: Counter[str],
        logger: logging.Logger,
        opened: Callable[[SocketAddr], socket.socket] = open_socket,
    ) -> None:
        self._rebound = rebound
        self._counters = counters
        self._logger = logger
        self._opened = opened
        self._wanted: dict[UdpSocket, None] = {}
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def request(self, udp: UdpSocket) -> None:
        """Rebind a socket as soon as possible; call it in the loop."""
        if self._closed:
            return
        self._wanted[udp] = None
        self._again.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="rebinding UDP sockets")

    async def aclose(self) -> None:
        """Try no more. Idempotent."""
        self._closed = True
        self._wanted.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        attempt = 0
        while self._wanted:
            self._again.clear()
            for udp in list(self._wanted):
                # Taken out before, so that what breaks meanwhile is asked for anew.
                del self._wanted[udp]
                if not await self._rebind(udp):
                    self._wanted[udp] = None
            if self._wanted:
                try:
                    async with asyncio.timeout(RETRIES[min(attempt, len(RETRIES) - 1)]):
                        await self._again.wait()
                    attempt = 0
                except TimeoutError:
                    attempt += 1

    async def _rebind(self, udp: UdpSocket) -> bool:
        await udp.detach()
        sock = self._open(udp.local) or self._open(SocketAddr(udp.local.host, 0))
        if sock is None:
            return False
        before = udp.local
        try:
            await udp.attach(sock)
        except OSError as exc:
            sock.close()
            self._failed(before, exc)
            return False
        except asyncio.CancelledError:
            sock.close()
            raise
        self._counters["socket rebound"] += 1
        self._logger.info("UDP %s is bound anew, to port %d", before, udp.local.port)
        try:
            self._rebound(udp)
        except Exception:
            self._logger.exception("what follows a rebound socket failed")
        return True

    def _open(self, addr: SocketAddr) -> socket.socket | None:
        try:
            return self._opened(addr)
        except OSError as exc:
            self._failed(addr, exc)
            return None

    def _failed(self, addr: SocketAddr, exc: OSError) -> None:
        name = errno.errorcode.get(exc.errno or 0, "error")
        if not self._counters[f"rebind: {name}"]:
            self._logger.warning("can't bind UDP %s anew, still trying: %s", addr, exc.strerror or exc)
        self._counters[f"rebind: {name}"] += 1
