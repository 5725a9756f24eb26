"""What a caller has to say, left in a DHT on loopback and read there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tom_connect import Endpoint, EndpointConfig
from tom_connect.exceptions import NetworkError
from tom_connect.keys import SecretKey
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.deferred import DeferredRendezvous
from tom_dht_mainline.rendezvous import caller as caller_module
from tom_dht_mainline.testing import Testnet


@contextlib.asynccontextmanager
async def node(net: Testnet) -> AsyncIterator[tuple[Endpoint, DeferredRendezvous]]:
    """An endpoint, and its rendezvous."""
    config = EndpointConfig(
        alpns=("said/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        watch_network=False,
        plugins=("dht",),
        plugin_configs={"dht": DhtConfig(bootstrap=net.bootstrap, ipv6=False, rendezvous_poll=0.5)},
    )
    async with Endpoint.bind(config) as endpoint:
        ((_name, way),) = endpoint._objects.rendezvous
        assert isinstance(way, DeferredRendezvous)
        yield endpoint, way


@pytest.mark.slow
async def test_what_is_said_is_read_by_whom_it_is_for(net: Testnet) -> None:
    """Where no NAT shifts ports a call alone leaves no words; `say` does, and each time anew."""
    async with node(net) as (callee, theirs), node(net) as (caller, ours), asyncio.timeout(60):
        service = (await theirs.loaded())._service
        while not service.calls.startswith("invited, polled"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
        remote = caller._magic.remote(callee.node_id)
        opened = asyncio.Event()
        opened.set()
        await ours.call(callee.node_id, caller._magic.doorstep.sealed_call(remote), opened, lambda _callee: None)
        counters = callee._magic.counters
        while not counters["rendezvous: calls found"]:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.05)
        assert counters["rendezvous: calls answered"] == 0
        await ours.say(callee.node_id, caller._magic.doorstep.sealed_call(remote))
        while not counters["rendezvous: calls answered"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        # The same words in another envelope, so that the second is seen too.
        words = caller._magic.doorstep.sealed_call(remote)
        for _ in range(2):
            await ours.say(callee.node_id, words)
        while not counters["rendezvous: replay"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        remote.release()


async def test_who_moves_while_it_is_called_is_called_where_it_is(
    net: Testnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callee leaves its mailbox for another between saying where it is called and the call: the call follows."""
    monkeypatch.setattr(caller_module, "FOLLOW", (0.3,) * 20)
    async with node(net) as (callee, theirs), node(net) as (caller, ours), asyncio.timeout(60):
        loaded = await theirs.loaded()
        while not loaded._service.calls.startswith("invited, polled"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
        remote = caller._magic.remote(callee.node_id)
        opened, learned = asyncio.Event(), asyncio.Event()
        calling = asyncio.create_task(ours.call(callee.node_id, b"", opened, lambda _callee: learned.set()))
        await learned.wait()
        reachable = loaded._reachable[0]
        reachable._callee.mailbox = reachable._callee.mailbox[:12] + bytes(8)
        reachable._moved.set()
        reachable._changed.set()
        while reachable._watch is None or reachable._watch.target != reachable._callee.mailbox:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        opened.set()
        while not callee._magic.counters["rendezvous: calls found"]:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.05)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        remote.release()


async def test_nothing_is_said_to_who_does_not_invite(net: Testnet) -> None:
    """A node that says nothing of being called has no key to seal for; the error says so."""
    async with node(net) as (_caller, ours), asyncio.timeout(60):
        with pytest.raises(NetworkError, match="how to call the node"):
            await ours.say(SecretKey.generate().node_id, b"hello")
