"""npm's pkarr: its client, and its relay before a DHT node of its own, in one node.js child."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import attrs

from tests.interop.peers.npm import start_node
from tests.interop.peers.process import LineProcess

Address = tuple[str, int]


@attrs.frozen
class Resolved:
    """What npm's client found: microseconds since 1970, names and texts of the TXT records."""

    timestamp_us: int
    names: list[str]
    texts: list[str]


@attrs.define(eq=False)
class NpmPkarr:
    """A child with npm's pkarr."""

    process: LineProcess

    @classmethod
    def start(cls) -> NpmPkarr:
        """Start the child; raises PeerMissing without node.js or its packages."""
        return cls(start_node("pkarr", "pkarr-process.mjs", options=("--expose-gc",)))

    async def start_relay(self, bootstrap: Sequence[Address], values: int = 1000) -> tuple[str, Address]:
        """Start npm's relay with a DHT node that joins through `bootstrap` and holds `values` items; URL, address."""
        reply = await self.process.call("start_relay", bootstrap=list(bootstrap), host="127.0.0.1", values=values)
        return str(reply["url"]), (reply["dht"][0], reply["dht"][1])

    async def open_dht(self, bootstrap: Sequence[Address], values: int = 1000) -> Address:
        """Open a further DHT node; returns its address. Nodes are numbered in the order of their start."""
        reply = await self.process.call("open_dht", bootstrap=list(bootstrap), host="127.0.0.1", values=values)
        return reply["dht"][0], reply["dht"][1]

    async def put(self, url: str, seed: bytes, texts: Sequence[str], timestamp_us: int) -> int:
        """Sign TXT records under `_iroh` and put them at a relay; the HTTP status."""
        reply = await self.process.call(
            "relay_put", url=url, seed=seed.hex(), texts=list(texts), timestamp=timestamp_us
        )
        return int(reply["status"])

    async def get(self, url: str, key: bytes) -> Resolved:
        """Get a packet from a relay and verify it; raises PeerError where there is none."""
        reply = await self.process.call("relay_get", url=url, key=key.hex())
        return Resolved(reply["timestamp"], reply["names"], reply["texts"])

    async def call(self, do: str, **options: Any) -> dict[str, Any]:
        """Any other command of the child."""
        return await self.process.call(do, **options)

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
