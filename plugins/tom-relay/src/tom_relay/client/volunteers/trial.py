"""Whether an address is a relay that passes datagrams on: two nodes that nobody knows meet there, both of them us.

It does not learn our key. What tells the test from other traffic is the address from which both come, and, to who
opens what looks like a first packet of QUIC, that nothing is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Final

import attrs

from tom_connect.abc import DirectConnection, DirectConnections
from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.keys import NodeId
from tom_relay.client.quic import QuicCarrier, greeted
from tom_relay.errors import RelayDeniedError, RelayError
from tom_relay.wire import (
    Ping,
    Pong,
    ReceivedDatagrams,
    SendDatagrams,
    ServerConfirmsAuth,
    ServerDeniesAuth,
    decode_from_server,
    encode,
)
from tom_relay.wire.quic import ALPN, DIALECT

DIAL_TIMEOUT: Final = 1.5
"""Seconds that an address has for its handshake: several round trips to the other side of the world."""
TEST_TIMEOUT: Final = 2.0
"""Seconds for all that is tested then."""
SAMPLES: Final = 4
"""Datagrams each way; all but one must arrive."""
SIZE: Final = 1200
"""Bytes of each: what a first packet of QUIC has."""
INITIAL: Final = 0xC0
SHORT: Final = 0x40
QUIC_1: Final = (1).to_bytes(4, "big")


class TrialError(RelayError):
    """A volunteer is of no use; the message says why."""


@attrs.frozen
class Tested:
    """A volunteer that works: its URL, and seconds to it and back."""

    url: RelayUrl
    rtt: float


@attrs.define
class Stranger:
    """A node with a fresh key at a relay."""

    key: NodeId
    carrier: QuicCarrier

    async def confirmed(self) -> None:
        """Wait until the relay lets it in; raises RelayDeniedError, TrialError."""
        match decode_from_server(await self.carrier.receive(), DIALECT):
            case ServerConfirmsAuth():
                return
            case ServerDeniesAuth(reason):
                raise RelayDeniedError(reason)
        raise TrialError("it does not begin as a relay does")

    async def rtt(self) -> float:
        """Seconds to the relay and back."""
        data = os.urandom(8)
        begun = time.perf_counter()
        await self.carrier.send(encode(Ping(data), DIALECT))
        while True:
            if decode_from_server(await self.carrier.receive(), DIALECT) == Pong(data):
                return time.perf_counter() - begun

    async def send(self, to: NodeId, payloads: list[bytes]) -> None:
        """Send datagrams to a node."""
        for payload in payloads:
            await self.carrier.send(encode(SendDatagrams(to.raw, payload), DIALECT))

    async def takes(self, sender: NodeId, payloads: list[bytes]) -> None:
        """Wait until all but one have come."""
        missing = set(payloads)
        while len(missing) > 1:
            frame = decode_from_server(await self.carrier.receive(), DIALECT)
            if isinstance(frame, ReceivedDatagrams) and frame.key == sender.raw:
                missing.difference_update(frame.datagrams())


def random_payloads() -> list[bytes]:
    """Datagrams that look like those of a node which connects to another (RFC 9000 section 17), and open for nobody."""
    short = [bytes((SHORT | os.urandom(1)[0] & 0x3F,)) + os.urandom(SIZE - 1) for _ in range(SAMPLES - 1)]
    ids = b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
    head = bytes((INITIAL | os.urandom(1)[0] & 0x0F,)) + QUIC_1 + ids + b"\0"
    rest = SIZE - len(head) - 2
    return [head + (0x4000 | rest).to_bytes(2, "big") + os.urandom(rest), *short]


@contextlib.asynccontextmanager
async def _stranger(connection: DirectConnection) -> AsyncIterator[Stranger]:
    carrier = await greeted(connection)
    try:
        yield Stranger(connection.local_node_id, carrier)
    finally:
        await carrier.close()


async def volunteer_at(connections: DirectConnections, addr: SocketAddr, *, patience: float = 1.0) -> Tested:
    """Test the volunteer at an address, whoever it is; raises RelayError or another TomError.

    `patience`: how many times longer than usual each part of the test may take.
    """
    dial_timeout = patience * DIAL_TIMEOUT
    first = await connections.dial(addr, ALPN, timeout=dial_timeout, anonymous=True)
    try:
        url = RelayUrl.of_node(first.remote_node_id, addr)
        async with asyncio.timeout(patience * TEST_TIMEOUT), _stranger(first) as one:
            who = NodeAddr(first.remote_node_id, (), (addr,))
            second = await connections.dial(who, ALPN, timeout=dial_timeout, anonymous=True)
            async with _stranger(second) as other:
                await one.confirmed()
                await other.confirmed()
                rtt = await one.rtt()
                there, back = random_payloads(), random_payloads()
                await one.send(other.key, there)
                await other.send(one.key, back)
                await other.takes(one.key, there)
                await one.takes(other.key, back)
                return Tested(url, rtt)
    except TimeoutError:
        raise TrialError("it passes nothing on, or too slowly") from None
    finally:
        await first.close()


@contextlib.asynccontextmanager
async def stranger_at(connections: DirectConnections, relay: RelayUrl) -> AsyncIterator[Stranger]:
    """A node that nobody knows, connected to a relay of ours whose URL has an address.

    Raises RelayError or another TomError where not even that is possible.
    """
    assert relay.node_id is not None and relay.node_addr is not None
    where = NodeAddr(relay.node_id, (), (relay.node_addr,))
    # We are connected there, so it need not be held to what an address is that somebody named.
    connection = await connections.dial(where, ALPN, trusted=True, timeout=DIAL_TIMEOUT, anonymous=True)
    try:
        async with _stranger(connection) as stranger:
            try:
                async with asyncio.timeout(TEST_TIMEOUT):
                    await stranger.confirmed()
            except TimeoutError:
                raise TrialError("it does not let a stranger in") from None
            yield stranger
    finally:
        await connection.close()
