"""Runs the network watch: woken by the system where it does so, looking every few seconds where it does not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tom_connect.addr import SocketAddr
from tom_connect.netreport.interfaces import NetworkState, network_state
from tom_connect.netreport.netwatch import netlink
from tom_connect.netreport.netwatch.clocks import boot_time
from tom_connect.netreport.netwatch.core import NetworkChange, NetworkWatchCore

POLL: Final = 3.0
"""Seconds between looks where the system does not wake us; one costs about a millisecond."""
CHECK: Final = 1.0
"""Seconds between comparisons of the clocks: a machine that wakes up is back on the air within about as much."""


class NetworkWatch:
    """Calls `changed(change)` for each change of the network; `run` it until it is cancelled.

    `state`: the network as the caller knows it. `in_use`: what our sockets are bound to. The other arguments are for
    tests: how the network is looked at, what wakes us (None: nothing does), seconds between looks, and the clocks.
    """

    def __init__(
        self,
        changed: Callable[[NetworkChange], None],
        state: NetworkState,
        *,
        in_use: Sequence[SocketAddr] = (),
        look: Callable[[], NetworkState] = network_state,
        wake: Callable[[], socket.socket | None] = netlink.open_netlink,
        poll: float = POLL,
        check: float = CHECK,
        clock: Callable[[], float] = time.monotonic,
        boot: Callable[[], float | None] = boot_time,
        logger: logging.Logger | None = None,
    ) -> None:
        self._changed = changed
        self._in_use = [str(addr.ip) for addr in in_use]
        self._look = look
        self._wake = wake
        self._poll = poll
        self._check = check
        self._clock = clock
        self._boot = boot
        self._logger = logger or logging.getLogger("tom_connect.netwatch")
        self._awake = asyncio.Event()
        self._core = NetworkWatchCore(state, clock(), boot())
        self.listening = asyncio.Event()
        """Set once changes are heard of."""

    async def run(self) -> None:
        """Watch until cancelled. A look that fails is repeated later; what `changed` raises ends the watch."""
        with self._woken_by_system() as woken:
            core, polled = self._core, self._clock()
            # What changed before the system was listened to is seen by a look afterwards.
            core.woken(polled)
            self.listening.set()
            while True:
                now = self._clock()
                due = min(core.next_look(), now + self._check)
                core.expect(due)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - now)):
                        await self._awake.wait()
                self._awake.clear()
                now = self._clock()
                slept = core.clocks(now, self._boot())
                if slept:
                    self._logger.info("the clocks say that this machine or process slept for %.0f s", slept)
                if not woken and now - polled >= self._poll:
                    polled = now
                    if self._state() != core.state:
                        core.woken(now)
                if now >= core.next_look():
                    change = core.looked(self._state(), self._in_use)
                    if change is not None:
                        self._logger.info("the network changed: %s", ", ".join(change.why))
                        self._changed(change)

    def _state(self) -> NetworkState:
        try:
            return self._look()
        except OSError as exc:
            self._logger.warning("can't look at the network interfaces: %s", exc)
            return self._core.state

    @contextlib.contextmanager
    def _woken_by_system(self) -> Iterator[bool]:
        sock = self._wake()
        if sock is None:
            yield False
            return
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(sock, self._heard, sock)
        except NotImplementedError:
            sock.close()
            yield False
            return
        try:
            yield True
        finally:
            loop.remove_reader(sock)
            sock.close()

    def _heard(self, sock: socket.socket) -> None:
        heard = netlink.read(sock)
        if heard.changed:
            self._core.woken(self._clock(), heard.links)
            self._awake.set()
