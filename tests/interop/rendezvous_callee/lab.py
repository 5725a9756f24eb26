"""What tests of a node that dials put before it: a DHT of a few nodes that say what they are told, and sockets."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.interop.rendezvous_parts import formats
from tests.interop.rendezvous_parts.disco import Addr
from tests.interop.rendezvous_parts.wire import Wire

from . import left
from .dht_node import DhtNode

Items: TypeAlias = Mapping[bytes, left.Put]

KEY_OF_CALLS = bytes(31) + b"\1"


@dataclass(eq=False)
class Ear:
    """A socket of the callee's, and what came there."""

    heard: list[tuple[bytes, Addr]] = field(default_factory=list)
    wire: Wire = field(init=False)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.wire = Wire("127.0.0.1", 0, self._receive)

    @property
    def addr(self) -> Addr:
        """Where it is."""
        return "127.0.0.1", self.wire.port

    def _receive(self, wire: Wire, packet: bytes, addr: Addr) -> None:
        self.heard.append((packet, addr))
        self._came.set()

    async def comes(self) -> None:
        """Wait for a packet that is yet to come."""
        self._came.clear()
        await self._came.wait()


@contextlib.contextmanager
def giving(*items: Items) -> Iterator[list[DhtNode]]:
    """A DHT in which each node gives items of its own, after those before it.

    No more than ours asks for confirmation once it has found something.
    """
    assert len(items) <= 3
    nodes = DhtNode.in_order(*items)
    try:
        yield nodes
    finally:
        for node in nodes:
            node.close()


@contextlib.contextmanager
def ears(*names: str) -> Iterator[dict[str, Ear]]:
    """A socket for each name."""
    made = {name: Ear() for name in names}
    try:
        yield made
    finally:
        for ear in made.values():
            ear.wire.close()


def without_salt(item: tuple[bytes, left.Put]) -> left.Put:
    """What a node gives of an item: it knows the salt by the target."""
    return {name: value for name, value in item[1].items() if name != b"salt"}


def invited(seed: bytes, mailbox: bytes, *, interval: float = 1.1, nodes: int = 8) -> Items:
    """An invitation that is as it should be."""
    said = formats.Invitation(True, False, interval, nodes, mailbox, KEY_OF_CALLS, None)
    target, put = formats.signed_item(seed, left.invitation(said), int(time.time() * 1e6), formats.SALT)
    return {target: without_salt((target, put))}
