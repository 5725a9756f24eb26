"""What an endpoint lends a plugin, without an endpoint."""

from __future__ import annotations

import asyncio
import logging
import pathlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import attrs

from tom_connect.abc import Clock, DatagramProtocol, PluginContext
from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.keys import SecretKey
from tom_connect.signing import NodeSigner, SystemClock
from tom_connect.watch import Watch

MAX_KEPT: Final = 1_000
"""Datagrams that a FakeSharedSocket remembers; a test that floods it keeps its memory."""


class FakeSharedSocket:
    """An endpoint's UDP sockets (`tom_connect.abc.SharedSocket`) that send nothing and remember what should have gone.

    `send`: what becomes of a datagram, given its bytes and address; returns whether it was sent. By default all are.
    """

    def __init__(
        self,
        local_addrs: Sequence[SocketAddr | str] = ("127.0.0.1:4433",),
        send: Callable[[bytes, SocketAddr], bool] = lambda data, addr: True,
    ) -> None:
        self.local_addrs: Sequence[SocketAddr] = tuple(_socket_addr(addr) for addr in local_addrs)
        """The addresses that the sockets are bound to."""
        self.sent: deque[tuple[bytes, SocketAddr]] = deque(maxlen=MAX_KEPT)
        """What was sent, the newest last."""
        self.refused = 0
        """Datagrams that were dropped, as by a full buffer."""
        self._send = send

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        """Take one datagram; False if it was dropped."""
        if not self._send(data, addr):
            self.refused += 1
            return False
        self.sent.append((bytes(data), addr))
        return True

    @staticmethod
    def deliver(protocol: DatagramProtocol, data: bytes, source: SocketAddr | str) -> bool:
        """Give a protocol a datagram as the endpoint does, if it claims it; whether it did."""
        if not protocol.claims(data[:8]):
            return False
        protocol.datagrams_received([(data, _socket_addr(source))])
        return True


@attrs.frozen(eq=False)
class LentContext(PluginContext):
    """A PluginContext that remembers what a plugin did with it; made by `plugin_context`.

    `external_addrs`: what was given to `report_external_addr`; `tasks`: what runs of that which was given to
    `create_task`; `failures`: what such tasks raised.
    """

    external_addrs: list[SocketAddr] = attrs.field(factory=list)
    tasks: set[asyncio.Task[None]] = attrs.field(factory=set)
    failures: list[Exception] = attrs.field(factory=list)

    async def end_tasks(self) -> None:
        """Cancel what runs, as an endpoint does when it is closed, and wait for it."""
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def plugin_context(
    config: Any = None,
    *,
    key: SecretKey | None = None,
    clock: Clock | None = None,
    socket: FakeSharedSocket | Any = None,
    data_dir: pathlib.Path | None = None,
    allow_local: bool = True,
    local_addr: NodeAddr | None = None,
    relay_urls: Sequence[RelayUrl | str] = (),
    direct: bool = True,
    public_relays: Sequence[str] = (),
    name: str = "tested",
) -> LentContext:
    """What a plugin gets from an endpoint, for its tests. Needs no running event loop.

    `config`: an instance of the plugin's class of options; `key`: the node's, a new one by default; `clock`: the
    system's by default, or a `tom_connect.testing.clock.VirtualClock`; `socket`: a FakeSharedSocket by default;
    `local_addr`: our own address, by default one without any way in it; `name`: the plugin's, for its logger.
    """
    key = key or SecretKey.generate()
    tasks: set[asyncio.Task[None]] = set()
    failures: list[Exception] = []
    external_addrs: list[SocketAddr] = []

    async def guarded(coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as exc:  # as an endpoint does, which reports it
            failures.append(exc)

    def create_task(coroutine: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(guarded(coroutine), name=f"{name}: {what}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # What is cancelled before its first step is never awaited, which is no mistake of the plugin's.
        task.add_done_callback(lambda _task: coroutine.close())
        return task

    return LentContext(
        node_id=key.node_id,
        signer=NodeSigner(key),
        config=config,
        clock=clock or SystemClock(),
        logger=logging.getLogger(f"tom_connect.plugin.{name}"),
        local_addrs=Watch(local_addr or NodeAddr(key.node_id)),
        socket=socket if socket is not None else FakeSharedSocket(),
        data_dir=data_dir,
        allow_local=allow_local,
        create_task=create_task,
        report_external_addr=external_addrs.append,
        shared={},
        relay_urls=tuple(url if isinstance(url, RelayUrl) else RelayUrl.parse(url) for url in relay_urls),
        direct=direct,
        public_relays=tuple(public_relays),
        external_addrs=external_addrs,
        tasks=tasks,
        failures=failures,
    )


def _socket_addr(addr: SocketAddr | str) -> SocketAddr:
    return addr if isinstance(addr, SocketAddr) else SocketAddr.parse(addr)
