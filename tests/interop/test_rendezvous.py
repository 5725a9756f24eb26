"""An independent caller and an endpoint of ours meet through libtorrent's nodes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from tests.interop.peers import LibtorrentNet
from tests.interop.rendezvous_caller import Caller
from tom_connect import Endpoint, EndpointConfig
from tom_dht_mainline.config import DhtConfig

pytestmark = pytest.mark.interop

#: Seconds for each step, on a machine that is busy with other things.
PATIENCE = 30.0


@contextlib.asynccontextmanager
async def callee(net: LibtorrentNet) -> AsyncIterator[Endpoint]:
    """An endpoint that has said how it is to be called."""
    config = EndpointConfig(
        alpns=("meet/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        dht_only=True,
        plugins=("dht",),
        plugin_configs={"dht": DhtConfig(bootstrap=tuple(net.bootstrap), ipv6=False)},
    )
    async with Endpoint.bind(config) as endpoint:
        async with asyncio.timeout(PATIENCE):
            while not str(endpoint.diagnostics()["dht"].get("calls")).startswith("invited"):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        yield endpoint


async def test_a_caller_written_from_the_page_is_knocked_for_and_gets_a_path(libtorrent_net: LibtorrentNet) -> None:
    """It reads the invitation, announces itself, is knocked for, and its ping is answered where the knock came from."""
    async with callee(libtorrent_net) as endpoint:
        caller = Caller(libtorrent_net.addresses[:3], os.urandom(32))
        with contextlib.closing(caller):
            node_id = endpoint.node_id.raw
            told = await asyncio.to_thread(caller.invitation, node_id)
            assert told["mailbox"] == hashlib.sha1(node_id).digest()
            assert (told["interval"], told["nodes"], told["ports_differ"]) == (1.1, 8, False)
            assert await asyncio.to_thread(caller.announce, told["mailbox"]) > 0
            there = await asyncio.to_thread(caller.knocked, PATIENCE)
            assert there is not None
            assert there[1] == endpoint.local_addrs[0].port
            assert await asyncio.to_thread(caller.ping, node_id, there, PATIENCE)


async def test_a_sealed_call_written_from_the_page_is_read(libtorrent_net: LibtorrentNet) -> None:
    """The callee finds the nonce, fetches and opens the item, and pings the address that it names, sealed for us."""
    async with callee(libtorrent_net) as endpoint:
        caller = Caller(libtorrent_net.addresses[:3], os.urandom(32))
        with contextlib.closing(caller):
            node_id = endpoint.node_id.raw
            assert await asyncio.to_thread(caller.leave_sealed_call, node_id, "127.0.0.1") > 0
            ping = await asyncio.to_thread(caller.await_message, 1, node_id, PATIENCE)
            assert ping is not None
            assert ping[1][1] == endpoint.local_addrs[0].port
