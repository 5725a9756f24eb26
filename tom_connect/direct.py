"""QUIC connections of plugins: each over one UDP path, apart from what the endpoint has with a node.

They carry relays' traffic, so they never take a relay themselves, and what a forged record or an unauthenticated
directory names gets no more than a first flight with two repetitions.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.connection import Connection
from tom_connect.discovery import DiscoveryService
from tom_connect.exceptions import DialError, InvalidInputError, LocalError, NetworkError, PluginError
from tom_connect.holepunch.addrfilter import AddressFilter
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.address import SinglePath
from tom_connect.quic.driver import Driver
from tom_connect.quic.link import Link

SOURCE: Final = "plugin"
STAGGER: Final = 0.25
"""Seconds between first flights to several addresses of one node (RFC 8305 section 5)."""
MAX_ADDRS: Final = 4
"""Addresses of one node that are tried."""
QUIET_FOR: Final = 5.0
"""Seconds before an address that did not answer is sent to again on the word of others."""
MAX_QUIET: Final = 1024
MAX_DIALS: Final = 64
"""Dials on the word of others under way at once."""

Handler = Callable[[Any], Coroutine[Any, Any, None]]


class SinglePathConnection(Connection):
    """A connection over one UDP path (`tom_connect.abc.DirectConnection`)."""

    @property
    def remote_addr(self) -> SocketAddr:
        """Where the peer is now."""
        assert isinstance(self._link.dest, SinglePath)
        return self._link.dest.path

    @property
    def local_node_id(self) -> NodeId:
        """The key that we have proven: ours, or a fresh one."""
        return self._engine.own_node_id

    async def datagrams_sent(self, below: int) -> None:
        """Wait until fewer than `below` datagrams are queued; raises ConnectionError once the connection has ended."""
        while self._engine.datagrams_waiting >= below:
            await self._wait("datagrams sent")

    def link_moved(self) -> None:
        """Look after those who wait, for datagrams to leave too."""
        super().link_moved()
        if self._waiters.get("datagrams sent"):
            self._notify("datagrams sent")


class OwnConnections:
    """What plugins get as `PluginContext.connections`. `spawn(plugin, coroutine, what)`: the endpoint's."""

    def __init__(
        self,
        driver: Driver,
        *,
        direct: bool,
        address_filter: Callable[[], AddressFilter],
        discovery: Callable[[], DiscoveryService],
        spawn: Callable[[str, Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._driver = driver
        self._direct = direct
        self._filter = address_filter
        self._discovery = discovery
        self._spawn = spawn
        self._takers: dict[str, Callable[[Link], None]] = {}
        self._quiet: OrderedDict[SocketAddr, float] = OrderedDict()
        self._dials = 0

    # Dialing

    async def dial(
        self,
        target: NodeAddr | SocketAddr,
        alpn: str,
        *,
        trusted: bool = False,
        timeout: float = 5.0,
        anonymous: bool = False,
    ) -> SinglePathConnection:
        """See `tom_connect.abc.DirectConnections`."""
        if not self._direct:
            raise LocalError("the endpoint sends no direct packets: leave direct on for that")
        peer = target.node_id if isinstance(target, NodeAddr) else None
        if peer == self._driver.secret_key.node_id:
            raise InvalidInputError("can't dial ourselves: this is our own node id")
        if not trusted and self._dials >= MAX_DIALS:
            raise DialError(f"{MAX_DIALS} dials of plugins are under way; try again when one has ended")
        self._dials += not trusted
        key = SecretKey.generate() if anonymous else None
        try:
            async with asyncio.timeout(timeout):
                addrs = await self._addrs_of(target, trusted=trusted)
                return await self._first_of(addrs, peer, alpn, key, trusted=trusted)
        except TimeoutError:
            raise DialError(f"{_named(target)} did not answer within {timeout:g} s") from None
        finally:
            self._dials -= not trusted

    async def _addrs_of(self, target: NodeAddr | SocketAddr, *, trusted: bool) -> list[SocketAddr]:
        if isinstance(target, SocketAddr):
            return self._usable([target], target, trusted=trusted)
        if target.direct_addrs:
            return self._usable(target.direct_addrs, target, trusted=trusted)
        found: list[SocketAddr] = []
        async with self._discovery().look_up(target.node_id) as lookup:
            async for told in lookup:
                found += told.addr.direct_addrs
                if found:
                    break
        return self._usable(found, target, trusted=False)

    def _usable(self, addrs: Sequence[SocketAddr], target: NodeAddr | SocketAddr, *, trusted: bool) -> list[SocketAddr]:
        """Those that may be sent to; raises DialError if there is none."""
        permitted = [addr for addr in addrs if self._filter().probeable(addr, SOURCE, trusted=trusted)]
        if not permitted:
            reason = "no direct address of it is known" if not addrs else "its addresses may not be sent to"
            raise DialError(f"can't reach {_named(target)}: {reason}")
        now = self._driver.now()
        fresh = [addr for addr in permitted if trusted or now - self._quiet.get(addr, -QUIET_FOR) >= QUIET_FOR]
        if not fresh:
            raise DialError(f"{_named(target)} did not answer a moment ago")
        return fresh[:MAX_ADDRS]

    async def _first_of(
        self, addrs: Sequence[SocketAddr], peer: NodeId | None, alpn: str, key: SecretKey | None, *, trusted: bool
    ) -> SinglePathConnection:
        tasks: set[asyncio.Task[SinglePathConnection]] = set()
        waiting = list(addrs)
        try:
            while True:
                if waiting:
                    addr = waiting.pop(0)
                    coroutine = self._dial_one(addr, peer, alpn, key, trusted=trusted)
                    tasks.add(asyncio.create_task(coroutine, name=f"dialing {addr} for a plugin"))
                done, _pending = await asyncio.wait(
                    tasks, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    if task.exception() is None:
                        tasks.discard(task)
                        return task.result()
                    if len(tasks) == 1 and not waiting:
                        return task.result()
                    tasks.discard(task)
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, SinglePathConnection):
                    await ended.close()

    async def _dial_one(
        self, addr: SocketAddr, peer: NodeId | None, alpn: str, key: SecretKey | None, *, trusted: bool
    ) -> SinglePathConnection:
        driver = self._driver
        link = driver.connect_single(addr, alpn, peer=peer, secret_key=key)
        try:
            driver.start(link)
            await asyncio.shield(link.ready)
        except BaseException as exc:
            if link.engine.authentic_packets == 0:
                # Whoever lives there has not asked for anything, not even for a goodbye.
                driver.drop(link, DialError(f"{addr} did not answer"))
                if not trusted:
                    self._note_quiet(addr)
            elif link.error is None:
                link.abandon(exc if isinstance(exc, Exception) else DialError("the dial was given up"))
            raise
        self._quiet.pop(addr, None)
        return SinglePathConnection(link)

    def _note_quiet(self, addr: SocketAddr) -> None:
        self._quiet[addr] = self._driver.now()
        self._quiet.move_to_end(addr)
        if len(self._quiet) > MAX_QUIET:
            self._quiet.popitem(last=False)

    # Serving

    def serve(self, name: str, alpn: str, handler: Handler) -> Callable[[], None]:
        """See `tom_connect.abc.DirectConnections`. `name`: the plugin's."""
        driver = self._driver
        if alpn in driver.alpns:
            raise PluginError(f"the ALPN {alpn!r} is taken")
        tasks: set[asyncio.Task[None]] = set()

        def take(link: Link) -> None:
            connection = SinglePathConnection(link)
            link.accept()
            task = self._spawn(name, self._run(connection, handler), f"serving {alpn}")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        def end() -> None:
            if self._takers.get(alpn) is take:
                del self._takers[alpn]
                driver.alpns = tuple(other for other in driver.alpns if other != alpn)
                driver.single_path_alpns.discard(alpn)
                for task in tasks:
                    task.cancel()

        self._takers[alpn] = take
        driver.single_path_alpns.add(alpn)
        driver.alpns = (*driver.alpns, alpn)
        return end

    async def _run(self, connection: SinglePathConnection, handler: Handler) -> None:
        try:
            await handler(connection)
        except (NetworkError, asyncio.IncompleteReadError):
            pass  # it has ended
        finally:
            await connection.close()

    def take(self, link: Link) -> bool:
        """Take an incoming link if its protocol is one that a plugin serves."""
        taker = self._takers.get(link.alpn)
        if taker is not None:
            taker(link)
        return taker is not None

    def lend(self, name: str) -> LentConnections:
        """What the plugin `name` gets."""
        return LentConnections(self, name)


class LentConnections:
    """One plugin's way to `OwnConnections` (`tom_connect.abc.DirectConnections`)."""

    def __init__(self, own: OwnConnections, name: str) -> None:
        self._name = name
        self._own = own
        self.dial = own.dial

    def serve(self, alpn: str, handler: Handler) -> Callable[[], None]:
        """See `tom_connect.abc.DirectConnections`."""
        return self._own.serve(self._name, alpn, handler)


def _named(target: NodeAddr | SocketAddr) -> str:
    return target.node_id.short() if isinstance(target, NodeAddr) else str(target)


__all__ = ["OwnConnections", "SinglePathConnection"]
