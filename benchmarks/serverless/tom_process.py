"""The child that runs one endpoint of ours with `dht_only` on a lab's machine: bound anew each time, it dials or waits.

Nothing passes between it and others but what the DHT carries: the dialer is told a node id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.nat.bound import Bound
from benchmarks.nat.directness import direct_path
from tests.interop.peers.lines import serve
from tom_connect import Connection, Endpoint, EndpointConfig, NetworkError, NodeAddr, NodeId, SecretKey
from tom_connect.discovery import KnownRecords
from tom_connect.record import sign_record
from tom_dht_mainline.config import DhtConfig

ALPN = "serverless/1"
PUBLISH_TIMEOUT = 60.0
#: Seconds for the record of a node that can be called already; behind a strict NAT there is none.
RECORD_TIMEOUT = 5.0


@attrs.define(eq=False)
class Node(Bound):
    """Dials, or waits to be dialed."""

    async def bind(
        self,
        bootstrap: Sequence[str],
        *,
        data_dir: str | None = None,
        seed: str | None = None,
        port: int = 0,
        plugins: Sequence[str] = ("dht",),
        options: dict[str, Any] | None = None,
        dht: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Open an endpoint with a fresh key, or that of a seed in hex, and say who it is; `dht`: options of its DHT."""
        await self.unbind()
        config = EndpointConfig(
            alpns=(ALPN,),
            bind=(f"0.0.0.0:{port}",),
            secret_key=SecretKey(bytes.fromhex(seed)) if seed is not None else None,
            data_dir=Path(data_dir) if data_dir is not None else None,
            persist=data_dir is not None,
            dht_only=True,
            plugins=tuple(plugins),
            plugin_configs={"dht": DhtConfig(bootstrap=tuple(bootstrap), ipv6=False, **(dht or {}))},
            **(options or {}),
        )
        self.endpoint = await Endpoint.bind(config)
        self.accepting = asyncio.create_task(self._accept(self.endpoint))
        return {"node_id": str(self.endpoint.node_id)}

    async def _accept(self, endpoint: Endpoint) -> None:
        async with asyncio.TaskGroup() as group:
            async for incoming in endpoint.accept():
                connection = await incoming.accept()
                self.connections.append(connection)
                group.create_task(self._echo(connection))

    @staticmethod
    async def _echo(connection: Connection) -> None:
        with contextlib.suppress(NetworkError):
            stream = await connection.accept_bi()
            while data := await stream.read(4096):
                stream.write(data)

    @property
    def _bound(self) -> Endpoint:
        assert self.endpoint is not None, "bind first"
        return self.endpoint

    async def remember(self, data_dir: str, peers: int) -> dict[str, Any]:
        """Keep records of so many peers that were never met, in a directory that an endpoint is then bound with."""
        known = KnownRecords(Path(data_dir))
        for number in range(1, peers + 1):
            key = SecretKey(number.to_bytes(32))
            addr = NodeAddr(key.node_id, direct_addrs=[f"198.51.{number >> 8}.{number & 255}:4433"])
            known.keep(sign_record(key, addr, int(time.time() * 1e6)))
        known.save()
        return {}

    async def published(self) -> dict[str, Any]:
        """Wait until a record with an address is in the DHT; say how many nodes took it, and the addresses."""
        async with asyncio.timeout(PUBLISH_TIMEOUT):
            async for reports in self._bound.watch_published():
                if reports:
                    return {"stored": reports[0].nodes, "addresses": self._addresses()}
        raise AssertionError

    async def reachable(self) -> dict[str, Any]:
        """Wait until others can find this node and call it: behind a strict NAT it has no address to publish."""
        async with asyncio.timeout(PUBLISH_TIMEOUT):
            while not str(self._bound.diagnostics()["dht"].get("calls")).startswith("invited"):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        seen = (await self.dht())["dht"]["seen by others at"]
        if all("port differs" in address for address in seen.values()):
            return {}
        # Where there is an address, the record that tells it goes out at about the same time.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECORD_TIMEOUT):
                await self._bound.watch_published().other_than(())
        return {}

    async def find(self, node_id: str) -> dict[str, Any]:
        """Look a node up to the end: its addresses, seconds to the first answer, and what became of each source."""
        began = time.monotonic()
        first = None
        async with self._bound.look_up(NodeId.parse(node_id)) as lookup:
            async for _found in lookup:
                first = first if first is not None else time.monotonic() - began
            found = lookup.merged()
        return {
            "addresses": [str(addr) for addr in found.addr.direct_addrs] if found else [],
            "source": found.source if found else None,
            "seconds": first,
            "outcomes": [str(outcome) for outcome in lookup.outcomes],
        }

    async def dial(self, node_id: str, wait: float, relayed_for: float | None = None) -> dict[str, Any]:
        """Dial a node by its id; seconds until connected and until on a direct path, None if it never was.

        `relayed_for`: seconds after which a connection is believed to stay relayed, instead of `wait`. What was said
        over the connection has come back when this returns. A dial that fails says why.
        """
        began = time.monotonic()
        try:
            connection = await self._bound.connect(NodeId.parse(node_id), ALPN, timeout=wait)
        except NetworkError as error:
            return {"connected": None, "direct": None, "addr": None, "why": str(error)}
        connected = time.monotonic() - began
        async with connection:
            patience = max(0.0, wait - connected) if relayed_for is None else relayed_for
            addr = await direct_path(connection, patience)
            direct = time.monotonic() - began if addr is not None else None
            stream = await connection.open_bi()
            stream.write(b"are you there?")
            assert await stream.read(4096) == b"are you there?"
            stats = connection.stats()
            shown = str(addr) if addr is not None else None
            return {"connected": connected, "direct": direct, "addr": shown, "why": stats.why_relayed}

    async def stay(self, node_id: str, addr: str, wait: float = 30.0) -> dict[str, Any]:
        """Connect to a node at an address that was told to us, and stay connected; seconds until direct."""
        where = NodeAddr(node_id, direct_addrs=[addr])
        began = time.monotonic()
        connection = await self._bound.connect(where, ALPN, timeout=wait)
        self.connections.append(connection)
        direct = await direct_path(connection, wait)
        return {"direct": time.monotonic() - began if direct is not None else None}

    def _addresses(self) -> list[str]:
        return [str(addr) for addr in self._bound.node_addr().direct_addrs]

    async def addresses(self) -> dict[str, Any]:
        """Say at which addresses the endpoint believes to be reachable."""
        return {"addresses": self._addresses()}

    async def dht(self) -> dict[str, Any]:
        """Say what the DHT plugin tells of itself."""
        told = dict(self._bound.diagnostics()["dht"])
        return {"dht": json.loads(json.dumps(told, default=str))}

    async def costs(self) -> dict[str, Any]:
        """Say how many seconds of CPU this process has used."""
        times = os.times()
        return {"cpu": times.user + times.system, "at": time.monotonic()}


async def main(level: str = "ERROR") -> None:
    """Answer until standard input ends."""
    logging.basicConfig(level=level, format="%(asctime)s.%(msecs)03d %(name)s %(message)s", datefmt="%M:%S")
    node = Node()
    names = (
        "bind",
        "remember",
        "published",
        "reachable",
        "find",
        "dial",
        "stay",
        "addresses",
        "dht",
        "costs",
        "unbind",
    )
    try:
        await serve({name: getattr(node, name) for name in names})
    finally:
        await node.unbind()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
