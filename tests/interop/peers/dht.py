"""What every DHT peer offers: puts and gets from any of its nodes, timed where they run."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import attrs

from tests.interop.peers.process import LineProcess

Address = tuple[str, int]


def _optional_bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


@attrs.frozen
class Put:
    """How a put went: nodes that stored it, milliseconds, and queries sent for it."""

    stored: int
    ms: float
    packets: int
    seq: int | None = None
    signature: bytes | None = None
    target: bytes | None = None


@attrs.frozen
class Got:
    """What a get found: None where nothing was, and milliseconds to the first value and to the lookup's end."""

    value: bytes | None
    first_ms: float | None
    end_ms: float
    packets: int
    seq: int | None = None
    signature: bytes | None = None


@attrs.define(eq=False)
class DhtPeer:
    """A child process with DHT nodes; nodes are named by number, 0 first."""

    process: LineProcess
    addresses: list[Address]

    @property
    def bootstrap(self) -> list[str]:
        """Up to three nodes as host:port."""
        return [f"{host}:{port}" for host, port in self.addresses[:3]]

    async def put_mutable(
        self, seed: bytes, value: bytes, *, salt: bytes = b"", seq: int = 1, cas: int | None = None, node: int = 0
    ) -> Put:
        """Put a mutable item signed by the seed's key; libtorrent ignores `seq` and `cas` and takes old + 1."""
        reply = await self.process.call(
            "put_mutable", node=node, seed=seed.hex(), value=value.hex(), salt=salt.hex(), **self._seq(seq, cas)
        )
        signature = _optional_bytes(reply.get("signature"))
        return Put(reply["stored"], reply["ms"], reply["packets"], reply.get("seq", seq), signature)

    async def get_mutable(self, key: bytes, *, salt: bytes = b"", node: int = 0) -> Got:
        """Get a mutable item by its public key (32 bytes) and salt."""
        return self._got(await self.process.call("get_mutable", node=node, key=key.hex(), salt=salt.hex()))

    async def put_immutable(self, value: bytes, *, node: int = 0) -> Put:
        """Put an immutable item, a byte string."""
        reply = await self.process.call("put_immutable", node=node, value=value.hex())
        return Put(reply["stored"], reply["ms"], reply["packets"], target=bytes.fromhex(reply["target"]))

    async def get_immutable(self, target: bytes, *, node: int = 0) -> bytes | None:
        """Get an immutable item by its target (20 bytes)."""
        reply = await self.process.call("get_immutable", node=node, target=target.hex())
        return _optional_bytes(reply["value"])

    async def add_node(self, address: Address, *, node: int | None = None) -> None:
        """Tell one node, or all of them, of another."""
        for number in range(len(self.addresses)) if node is None else [node]:
            await self.process.call("add_node", node=number, host=address[0], port=address[1])

    async def open(self, address: Address, bootstrap: list[Address], know: list[Address] | None = None) -> int:
        """Open a further node, a client, and return its number; `know` go straight to its routing table."""
        reply = await self.process.call("open", host=address[0], port=address[1], bootstrap=bootstrap, know=know or [])
        return int(reply["node"])

    async def cold_get(self, address: Address, bootstrap: list[Address], key: bytes, *, salt: bytes = b"") -> Got:
        """Get from a node that is made for it, until the first value; times count from before it exists."""
        reply = await self.process.call(
            "cold_get", host=address[0], port=address[1], bootstrap=bootstrap, key=key.hex(), salt=salt.hex()
        )
        return self._got(reply)

    async def warm(self, node: int, lookups: int) -> None:
        """Let a node look up random keys, all at once, so that it gets to know others."""
        await self.process.call("warm", node=node, lookups=lookups)

    async def queries(self, node: int) -> int:
        """Return how many queries a node has sent since its start."""
        return int((await self.process.call("queries", node=node))["sent"])

    async def counters(self, *, node: int = 0) -> dict[str, int]:
        """Return what the peer counts about a node, under the peer's own names."""
        return await self.process.call("counters", node=node)

    async def close_node(self, node: int) -> None:
        """End one node without a word to the others."""
        await self.process.call("close", node=node)

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seq(self, seq: int, cas: int | None) -> dict[str, Any]:
        return {}

    @staticmethod
    def _got(reply: dict[str, Any]) -> Got:
        return Got(
            _optional_bytes(reply["value"]),
            reply["first_ms"],
            reply["end_ms"],
            reply["packets"],
            reply.get("seq"),
            _optional_bytes(reply.get("signature")),
        )
