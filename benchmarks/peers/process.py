"""The child of `bench_peers`: the endpoint that is measured, or all its peers: `... process hub|peers NAME OPTIONS`.

The peers are endpoints of their own, each with its key and its sockets, that answer requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import attrs

from benchmarks.quic.contender import Connection, Contender, Where, load
from benchmarks.quic.process import ECHO, Child, answer, read_to_end
from tests.interop.peers.lines import serve

DEAD = ("127.0.0.2:9", "127.0.0.3:9")
"""Candidates of every peer at which nobody is."""
SIZE = 64
"""Bytes of a request, and of its answer."""


@attrs.define(eq=False)
class Peers:
    """All peers of one hub."""

    name: str
    options: dict[str, Any]
    all: list[Contender] = attrs.field(factory=list)

    async def listen(self, count: int) -> dict[str, Any]:
        """Open that many endpoints and say where each is; of its candidates two answer and two don't."""
        places: list[Where] = []
        for _ in range(count):
            peer = load(self.name, **self.options)
            self.all.append(peer)
            where = await peer.listen(answer)
            if "addresses" in where:
                where["addresses"] = [*where["addresses"], *DEAD]
            places.append(where)
        return {"where": places}

    async def close(self) -> None:
        """Close them all."""
        for peer in self.all:
            await peer.close()


class Hub(Child):
    """The endpoint that is measured."""

    async def dial(self, where: list[Where]) -> dict[str, Any]:  # type: ignore[override]
        """Connect to peers one after the other, and keep the connections."""
        for place in where:
            self.connections.append(await self.contender.connect(place))
        return {}

    async def rest(self, seconds: float) -> dict[str, Any]:
        """Do nothing, and say how much CPU time that took: what connections do by themselves."""
        began, busy = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - busy}

    async def talk(self, seconds: float, rate: float) -> dict[str, Any]:
        """Send each peer `rate` small requests a second, evenly spread; the CPU time that took, and how many."""
        began, busy = time.perf_counter(), time.process_time()
        rounds = max(1, round(seconds * rate))
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(self.connections):
                first = began + number / len(self.connections) / rate
                group.create_task(_ask_again_and_again(connection, first, 1 / rate, rounds))
        return {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - busy,
            "requests": rounds * len(self.connections),
        }


async def _ask_again_and_again(connection: Connection, first: float, every: float, rounds: int) -> None:
    body = os.urandom(SIZE)
    for number in range(rounds):
        await asyncio.sleep(max(0.0, first + number * every - time.perf_counter()))
        stream = await connection.open_stream()
        await stream.write(ECHO + body)
        await stream.finish()
        if await read_to_end(stream) != body:
            raise ValueError("the other side answered something else")


async def main(role: str, name: str, options: str) -> None:
    """Run the hub, or the peers, until stdin ends."""
    if role == "peers":
        peers = Peers(name, json.loads(options))
        try:
            await serve({"listen": peers.listen})
        finally:
            await peers.close()
        return
    hub = Hub(load(name, **json.loads(options)))
    try:
        await serve({command: getattr(hub, command) for command in ("dial", "rest", "talk", "memory")})
    finally:
        await hub.drop()
        await hub.contender.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
