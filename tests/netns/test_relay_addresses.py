"""What a relay says of a node's address, as the node's NAT makes it: real namespaces, a relay as a process."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.netns.test_blocked_udp import PORT, relay_on
from tom_connect import SecretKey
from tom_connect.testing.natlab import Host, Lab, Nat

pytest.importorskip("tom_relay", reason="needs the relay plugin: pip install 'tom-connect[relay]'")

from tom_relay.wire import (
    AskAddress,
    ClientFrame,
    ClientHandshake,
    Dialect,
    PeerAddress,
    Ping,
    Pong,
    ReceivedDatagrams,
    SendDatagrams,
    ServerFrame,
    decode_from_server,
    encode,
)

DIALECT = Dialect.TOM_V2
PATIENCE = 60.0


@attrs.frozen
class Client:
    """A client of the relay on a host of the lab."""

    key: bytes
    websocket: ClientConnection

    async def say(self, frame: ClientFrame) -> None:
        await self.websocket.send(encode(frame, DIALECT))

    async def hear(self) -> ServerFrame:
        """The next frame that is no ping."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self.websocket.recv()
                assert isinstance(message, bytes)
                frame = decode_from_server(message, DIALECT)
                if not isinstance(frame, Ping):
                    return frame
                await self.say(Pong(frame.data))

    async def heard_all(self) -> None:
        """Check that nothing came, up to the answer to a ping that is sent now."""
        await self.say(Ping(b"the last"))
        assert await self.hear() == Pong(b"the last")


@asynccontextmanager
async def client_on(host: Host, relay: Host, **headers: str) -> AsyncIterator[Client]:
    """Connect from a host."""
    secret = SecretKey.generate()
    sock = host.socket(type=socket.SOCK_STREAM)
    sock.setblocking(False)
    async with asyncio.timeout(PATIENCE):
        await asyncio.get_running_loop().sock_connect(sock, (relay.addr, PORT))
    url = f"ws://{relay.addr}:{PORT}/relay"
    subprotocols = [Subprotocol(DIALECT.value)]
    async with connect(url, sock=sock, proxy=None, subprotocols=subprotocols, additional_headers=headers) as websocket:
        handshake = ClientHandshake(DIALECT, secret.node_id, secret.sign)
        while not handshake.done:
            message = await websocket.recv()
            assert isinstance(message, bytes)
            if answer := handshake.receive(message):
                await websocket.send(answer)
        yield Client(secret.node_id.raw, websocket)


async def met(sender: Client, receiver: Client) -> None:
    """A datagram from one arrives at the other."""
    await sender.say(SendDatagrams(receiver.key, b"hello"))
    assert await receiver.hear() == ReceivedDatagrams(sender.key, b"hello")


async def test_the_address_that_is_told_is_that_of_the_nat(natlab: Lab, tmp_path: Path) -> None:
    """Each node behind a NAT learns the outer address of the other's router, once the other has sent it something."""
    relay = natlab.host("relay")
    routers = [natlab.router(name, Nat.MODERATE) for name in ("one-home", "other-home")]
    hosts = [natlab.host(name, router) for name, router in zip(("one", "other"), routers, strict=True)]
    with relay_on(relay, tmp_path):
        async with client_on(hosts[0], relay) as one, client_on(hosts[1], relay) as other:
            await one.say(AskAddress(other.key))
            await one.heard_all()
            for asker, asked, router in ((one, other, routers[1]), (other, one, routers[0])):
                await met(asked, asker)
                await asker.say(AskAddress(asked.key))
                assert await asker.hear() == PeerAddress(asked.key, ipaddress.ip_address(router.wan))


async def test_a_node_can_not_have_a_stranger_aimed_at(natlab: Lab, tmp_path: Path) -> None:
    """A node that names somebody else's address in the headers of proxies is not vouched for at all."""
    relay, stranger, asking = natlab.host("relay"), natlab.host("stranger"), natlab.host("asking")
    liar = natlab.host("liar", natlab.router("home", Nat.MODERATE))
    claims = {"X-Forwarded-For": stranger.addr, "X-Real-IP": stranger.addr}
    with relay_on(relay, tmp_path):
        async with client_on(asking, relay) as asker, client_on(liar, relay, **claims) as asked:
            await met(asked, asker)
            await asker.say(AskAddress(asked.key))
            await asker.heard_all()
