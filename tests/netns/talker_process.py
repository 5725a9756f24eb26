"""The child that is one end of a live stream: every 20 ms a record with its number goes out, and is looked for.

All its times are seconds of CLOCK_MONOTONIC, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

import attrs

from tests.interop.peers.lines import serve
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr, NodeId, RelayUrl

ALPN = "talk/1"
INTERVAL = 0.02
_RECORD = struct.Struct("!Q")


class Talker:
    """One connection, one stream with records in both directions, and the times at which the other's came."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.connection: Connection
        self.sent = 0
        self.arrivals: list[float] = []
        self.broken: str | None = None
        self.events: list[tuple[float, str]] = []
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def accept(self) -> Mapping[str, Any]:
        """Take the other's connection and stream, and begin to talk."""
        self.connection = await (await anext(self.endpoint.accept())).accept()
        self._talk(await self.connection.accept_bi())
        return {}

    async def dial(self, node_id: str, relay: str) -> Mapping[str, Any]:
        """Connect, open the stream and begin to talk."""
        where = NodeAddr(NodeId.parse(node_id), [RelayUrl.parse(relay)])
        self.connection = await self.endpoint.connect(where, ALPN)
        self._talk(await self.connection.open_bi())
        return {}

    def _talk(self, stream: Any) -> None:
        self._tasks = [
            asyncio.create_task(work) for work in (self._send(stream), self._receive(stream), self._listen())
        ]

    async def _listen(self) -> None:
        with self.connection.path_events() as events:
            async for event in events:
                words = [
                    f"{name}={value}" for name, value in attrs.asdict(event, recurse=False).items() if name != "at"
                ]
                self.events.append((event.at, f"{type(event).__name__} {' '.join(words[1:])}"))

    async def path_events(self, since: float) -> Mapping[str, Any]:
        """What happened to paths, as times and words."""
        return {"events": [event for event in self.events if event[0] >= since]}

    async def _send(self, stream: Any) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            stream.write(_RECORD.pack(self.sent))
            self.sent += 1
            # After a sleep no bunch of records is sent to catch up.
            due = max(due + INTERVAL, time.monotonic())
            try:
                await asyncio.wait_for(self._stop.wait(), due - time.monotonic())
            except TimeoutError:
                continue
        stream.finish()

    async def _receive(self, stream: Any) -> None:
        rest = b""
        async for data in stream:
            now = time.monotonic()
            rest += data
            while len(rest) >= _RECORD.size:
                (number,) = _RECORD.unpack_from(rest)
                rest = rest[_RECORD.size :]
                if number != len(self.arrivals) and self.broken is None:
                    self.broken = f"record {number} came where {len(self.arrivals)} was due"
                self.arrivals.append(now)
        if rest and self.broken is None:
            self.broken = f"{len(rest)} bytes of a record that was cut off"

    async def state(self, since: float) -> Mapping[str, Any]:
        """The records that came, the last time that any did, and the longest time without one since then.

        `gap` is (seconds, when it ended); a silence that still lasts counts, and has no end.
        """
        now = time.monotonic()
        times = [since, *(at for at in self.arrivals if at >= since)]
        gaps = [(after - before, after) for before, after in itertools.pairwise(times)]
        longest = max(gaps, default=(0.0, since))
        if now - times[-1] > longest[0]:
            return {"received": len(self.arrivals), "last": times[-1], "gap": [now - times[-1], None]}
        return {"received": len(self.arrivals), "last": times[-1], "gap": list(longest)}

    async def path(self) -> Mapping[str, Any]:
        """The path in use: `direct`, `relay`, or none."""
        active = next((path for path in self.connection.paths() if path.active), None)
        if active is None:
            return {"kind": "none", "where": ""}
        return {"kind": "relay" if isinstance(active.addr, RelayUrl) else "direct", "where": str(active.addr)}

    async def stop(self) -> Mapping[str, Any]:
        """Send no more, finish the stream, and tell how many records went out."""
        self._stop.set()
        await self._tasks[0]
        return {"sent": self.sent}

    async def finished(self) -> Mapping[str, Any]:
        """Wait for the end of the other's stream; tell how many records came, and what was wrong with them."""
        await self._tasks[1]
        return {"received": len(self.arrivals), "broken": self.broken}

    async def counters(self) -> Mapping[str, Any]:
        """What the magic socket counted."""
        return dict(self.endpoint._magic.counters)

    async def aclose(self) -> None:
        """End what still talks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def main(relay: str, level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s.%(msecs)03d %(name)s %(message)s", datefmt="%M:%S")
    config = EndpointConfig(alpns=(ALPN,), relay=(relay,), plugins=("relay",), persist=False)
    async with Endpoint.bind(config) as endpoint:
        async with asyncio.timeout(20):
            async for addr in endpoint.watch_addr():
                if addr.relay_urls:
                    break
        talker = Talker(endpoint)
        names = ("accept", "dial", "state", "path", "path_events", "stop", "finished", "counters")
        handlers = {name: getattr(talker, name) for name in names}
        try:
            await serve(handlers, node_id=str(endpoint.node_id), relay=str(endpoint.node_addr().relay_urls[0]))
        finally:
            await talker.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
