"""Whoever waits for a value runs before what came with it is handled."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing

from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_dht_mainline import CoreConfig, DhtNode
from tom_dht_mainline.core import DhtCore, Mode
from tom_dht_mainline.transport import Datagram, Receiver

US, OTHER = ("127.0.0.1", 1111), ("127.0.0.1", 2222)


class Wire:
    """A transport to one other node, a bare core; each batch of its replies has some junk at its end."""

    def __init__(self, other: DhtCore, junk: int) -> None:
        self.other = other
        self.junk = junk
        self.receive: Receiver = lambda batch: None
        self.local_addrs: Sequence[SocketAddr] = (SocketAddr(*US),)
        self.dropped = 0

    async def open(self, receive: Receiver) -> None:
        self.receive = receive

    def send(self, datagrams: Iterable[Datagram]) -> None:
        for data, _ in datagrams:
            self.other.receive(data, US, time.monotonic())
        replies = [(data, OTHER) for data, to in self.other.datagrams_to_send() if to == US]
        asyncio.get_running_loop().call_soon(self.receive, [*replies, *[(b"junk", OTHER)] * self.junk])

    async def close(self) -> None:
        pass


async def test_a_value_is_read_before_the_rest_of_its_batch_is_handled() -> None:
    """When a value's reader runs, of the batch only the reply with the value was handled; the rest is soon after."""
    other = DhtCore(CoreConfig(mode=Mode.SERVER, ipv6=False), rng=random.Random(1), now=time.monotonic())
    wire = Wire(other, junk=5)
    config = CoreConfig(mode=Mode.CLIENT, ipv6=False)
    async with DhtNode(wire, config=config, bootstrap=[f"{OTHER[0]}:{OTHER[1]}"]) as node:
        await node.bootstrap()
        key = SecretKey(bytes(32))
        await node.put_mutable(key, b"here", seq=1, wait_for="all")
        await asyncio.sleep(0)  # what came with the last acknowledgement
        junk = node.stats().dropped["not-krpc"]
        async with aclosing(node.get_values(key.node_id.raw)) as values:
            assert (await anext(values)).value == b"here"
            assert node.stats().dropped["not-krpc"] == junk
            await asyncio.sleep(0)
            assert node.stats().dropped["not-krpc"] == junk + wire.junk
        assert node.failures == 0


async def test_a_batch_that_comes_while_a_reader_has_its_turn_waits_too() -> None:
    """Batches that arrive between a value and the turn that handles the rest are handled in order, none is lost."""
    other = DhtCore(CoreConfig(mode=Mode.SERVER, ipv6=False), rng=random.Random(1), now=time.monotonic())
    wire = Wire(other, junk=1)
    config = CoreConfig(mode=Mode.CLIENT, ipv6=False)
    async with DhtNode(wire, config=config, bootstrap=[f"{OTHER[0]}:{OTHER[1]}"]) as node:
        await node.bootstrap()
        key = SecretKey(bytes(32))
        await node.put_mutable(key, b"here", seq=1, wait_for="all")
        await asyncio.sleep(0)  # what came with the last acknowledgement
        junk = node.stats().dropped["not-krpc"]
        async with aclosing(node.get_values(key.node_id.raw)) as values:
            await anext(values)
            wire.receive([(b"more junk", OTHER)])
            assert node.stats().dropped["not-krpc"] == junk
            await asyncio.sleep(0)
            assert node.stats().dropped["not-krpc"] == junk + 2
    wire.receive([(b"after the end", OTHER)])
