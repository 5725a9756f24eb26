"""Two nodes that dial each other at once: of protocols whose ends are equal, one connection results.

The dial of the larger NodeId becomes the connection, which both can tell alone. The other node's `connect` returns what
came in, in place of its own dial.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

import attrs

from tom_connect.connection import Connection
from tom_connect.dial import Dial
from tom_connect.keys import NodeId
from tom_connect.quic.link import Link

GRACE: Final = 3.0
"""Seconds that the other's dial may still be given up after ours was accepted: its goodbye may be lost once or twice.
What is still there then was begun after the other had accepted ours, and is a connection of its own."""


@attrs.define(eq=False)
class _UnderWay:
    """A dial of ours. `instead`: the connection that takes its place; `held`: one that has to wait for its end."""

    instead: asyncio.Future[Link]
    held: Link | None = None


class Crossings:
    """The dials of one endpoint that may be crossed. `own`: its key; `alpns`: the protocols that want it.

    `offer(link)`: let the application accept a connection that came in; `spawn`: run what lasts longer than a dial.
    """

    def __init__(
        self,
        own: NodeId,
        alpns: Collection[str],
        *,
        offer: Callable[[Link], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._own = own
        self._alpns = frozenset(alpns)
        self._offer = offer
        self._spawn = spawn
        self._under_way: dict[tuple[NodeId, str], list[_UnderWay]] = {}

    def take(self, link: Link) -> bool:
        """Whether a connection that came in belongs to a dial of ours, and is not to be accepted by anybody else."""
        for dial in self._under_way.get((link.peer, link.alpn), ()):
            if dial.held is None and not dial.instead.done():
                if self._own.raw > link.peer.raw:
                    dial.held = link
                else:
                    dial.instead.set_result(link)
                return True
        return False

    async def connect(self, dial: Dial, peer: NodeId, alpn: str, waiting: deque[Link]) -> Connection:
        """Run a dial, or take what came in from its node. `waiting`: connections that nobody has accepted yet."""
        if alpn not in self._alpns:
            return await dial.run()
        for link in waiting:
            if (link.peer, link.alpn, link.error) == (peer, alpn, None):
                waiting.remove(link)
                return dial.replaced(link)
        mine = _UnderWay(asyncio.get_running_loop().create_future())
        others = self._under_way.setdefault((peer, alpn), [])
        others.append(mine)
        dialing = asyncio.create_task(dial.run(), name="a dial that may be crossed")
        replaced = False
        try:
            await asyncio.wait((dialing, mine.instead), return_when=asyncio.FIRST_COMPLETED)
            if not dialing.done() and mine.instead.result().error is None:
                await _end(dialing)
                replaced = dialing.cancelled()
            if not replaced:
                return await dialing
            link = mine.instead.result()
            mine.instead = asyncio.get_running_loop().create_future()
            return dial.replaced(link)
        finally:
            others.remove(mine)
            if not others:
                del self._under_way[peer, alpn]
            if not dialing.done():
                await _end(dialing)
            if mine.instead.done():
                self._offer(mine.instead.result())
            if mine.held is not None:
                if dialing.cancelled() or dialing.exception() is not None:
                    self._offer(mine.held)
                else:
                    self._spawn(self._see_off(mine.held), "waiting for a crossed dial's end")

    async def _see_off(self, link: Link) -> None:
        try:
            async with asyncio.timeout(GRACE):
                await link.over.wait()
        except TimeoutError:
            self._offer(link)


async def _end(task: asyncio.Task[Connection]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
