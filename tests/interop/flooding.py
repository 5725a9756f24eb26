"""Somebody who has nothing to do with a call, and fills a mailbox."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.interop.peers import LibtorrentNet
from tests.interop.rendezvous_parts import dht, wire


@contextlib.asynccontextmanager
async def stranger() -> AsyncIterator[dht.Krpc]:
    """From an address of its own, which has a budget of its own at libtorrent's nodes."""
    krpc: dht.Krpc
    alone = wire.Wire("127.0.0.2", 0, lambda _, packet, addr: krpc.receive(packet, addr))
    krpc = dht.Krpc(alone)
    with contextlib.closing(alone):
        yield krpc


async def flood(krpc: dht.Krpc, mailbox: bytes, net: LibtorrentNet) -> None:
    """Announce sixty ports."""
    for node in await dht.Lookup(krpc, mailbox, b"get_peers").run(net.addresses[:3]):
        assert node.token is not None
        for port in range(2000, 2060):
            args: dht.Reply = {b"info_hash": mailbox, b"token": node.token, b"port": port}
            await krpc.query(node.addr, b"announce_peer", args)
