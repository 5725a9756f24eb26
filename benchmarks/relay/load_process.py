"""The child that loads a server: `python -m benchmarks.relay.load_process relay|echo PORT`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

import attrs

from benchmarks.relay.link import Link, Pair
from tests.interop.peers.lines import serve

#: Links that are being opened at once: fewer than a relay lets one host have pending.
AT_ONCE = 64
#: Seconds in which what is under way arrives.
SETTLE = 0.3


@attrs.define(eq=False)
class Load:
    """The commands."""

    port: int
    echo: bool
    links: list[Link] = attrs.field(factory=list)

    async def connect(self, count: int) -> dict[str, Any]:
        """Open links until there are `count`."""
        while (missing := count - len(self.links)) > 0:
            opening = [Link.open(self.port, echo=self.echo) for _ in range(min(missing, AT_ONCE))]
            self.links += await asyncio.gather(*opening)
        return {}

    def _pairs(self, count: int, **shape: int) -> list[Pair]:
        """Pairs of links; an echo's link is a pair with itself."""
        senders = self.links[:count]
        receivers = senders if self.echo else self.links[count : 2 * count]
        return [Pair(sender, receiver, **shape) for sender, receiver in zip(senders, receivers, strict=True)]

    async def flow(self, pairs: int, size: int, packets: int, window: int, seconds: float) -> dict[str, Any]:
        """Keep `window` frames on their way in each pair; returns the bytes of datagrams of each, and the time."""
        flows = self._pairs(pairs, size=size, packets=packets, window=window)
        start = time.perf_counter()
        for each in flows:
            each.start()
        await asyncio.sleep(seconds)
        came = [each.stop() * size * packets for each in flows]
        elapsed = time.perf_counter() - start
        await asyncio.sleep(SETTLE)
        return {"bytes": came, "seconds": elapsed}

    async def pace(self, size: int, rate: float, seconds: float) -> dict[str, Any]:
        """Send `rate` datagrams a second through one pair, evenly; returns each one's time on its way, in seconds."""
        (pair,) = self._pairs(1, size=size, packets=1, window=1)
        receiver = self.links[0] if self.echo else self.links[1]
        sent: list[float] = []
        taken: list[float] = []

        def came(count: int) -> None:
            now = time.perf_counter()
            for _ in range(count):
                taken.append(now - sent[len(taken)])

        receiver.on_datagrams = came
        start = time.perf_counter()
        while (now := time.perf_counter()) - start < seconds:
            # One after the other has its turn: a sleep of asyncio's is too coarse for more.
            if len(sent) < (now - start) * rate:
                sent.append(now)
                pair.sender.transport.write(pair.frame)
            await asyncio.sleep(max(0.0, start + len(sent) / rate - time.perf_counter()))
        await asyncio.sleep(SETTLE)
        return {"taken": taken, "sent": len(sent)}

    async def overload(self, senders: int, size: int, rate: int, seconds: float) -> dict[str, Any]:
        """Send from many to one that reads `rate` bytes a second (0: all it can); returns what was sent and got."""
        # A new one: whoever reads too slowly for the relay is let go.
        target, sources = await Link.open(self.port, echo=False), self.links[:senders]
        got, sent, running = 0, 0, True

        def came(count: int) -> None:
            nonlocal got
            got += count

        frames = {source: Pair(source, target, size=size, packets=1, window=1).frame for source in sources}
        target.on_datagrams = came

        async def send(source: Link) -> None:
            nonlocal sent
            room = asyncio.Event()
            source.on_room = room.set
            while running:
                source.transport.write(frames[source] * 16)
                sent += 16
                if source.full:
                    room.clear()
                    await room.wait()
                else:
                    await asyncio.sleep(0)

        async def read_slowly() -> None:
            last = time.perf_counter()
            allowed = 0.0
            read = 0
            while rate:
                await asyncio.sleep(0.02)
                now = time.perf_counter()
                allowed, last = min(allowed + (now - last) * rate, rate), now
                if got * size - read > allowed:
                    target.transport.pause_reading()
                else:
                    target.transport.resume_reading()
                spent = min(allowed, got * size - read)
                allowed -= spent
                read += int(spent)

        tasks = [asyncio.create_task(send(source)) for source in sources]
        tasks.append(asyncio.create_task(read_slowly()))
        await asyncio.sleep(seconds)
        running = False
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        target.transport.resume_reading()
        await asyncio.sleep(SETTLE)
        lost = target.transport.is_closing()
        target.transport.abort()
        return {"sent": sent, "got": got, "lost": lost}


async def main(kind: str, port: str) -> None:
    """Load the server until stdin ends."""
    load = Load(int(port), kind == "echo")
    names = ("connect", "flow", "pace", "overload")
    try:
        await serve({name: getattr(load, name) for name in names})
    finally:
        for link in load.links:
            link.transport.abort()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
