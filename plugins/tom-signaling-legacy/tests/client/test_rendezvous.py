"""Calls through signaling servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tom_connect.abc import Call, Callee, PluginContext
from tom_connect.exceptions import NetworkError
from tom_connect.keys import SecretKey
from tom_signaling_legacy.client import rendezvous as rendezvous_module
from tom_signaling_legacy.client.config import SignalingConfig
from tom_signaling_legacy.client.plugin import tom_rendezvous
from tom_signaling_legacy.client.rendezvous import SignalingRendezvous
from tom_signaling_legacy.client.service import MAX_CALLS, SignalingService
from tom_signaling_legacy.server import SignalingServer

WAIT = 30.0
SEALED = bytes(range(200))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ways get no time."""
    monkeypatch.setattr(rendezvous_module, "LAST_RESORT", 0.0)


@contextlib.asynccontextmanager
async def calling(lend: Any, key: SecretKey, *urls: str) -> AsyncIterator[tuple[SignalingRendezvous, SignalingService]]:
    """A rendezvous that is registered with every server."""
    ctx: PluginContext = lend(SignalingConfig(urls=urls, phase=1), key=key)
    way = tom_rendezvous(ctx)
    assert isinstance(way, SignalingRendezvous)
    service = SignalingService.of(ctx)
    await way.start()
    try:
        assert await service.until(lambda: all(server.is_registered for server in service.servers), WAIT)
        yield way, service
    finally:
        await way.aclose()


def opened() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_a_call_reaches_the_node_as_it_was_sealed(server: SignalingServer, lend: Any) -> None:
    """It waits until our NAT is open, comes out at the other end unchanged, and says nothing of the node."""
    alice, bob = SecretKey.generate(), SecretKey.generate()
    async with calling(lend, bob, server.url) as (callee, _), calling(lend, alice, server.url) as (caller, service):
        assert await service.until(lambda: service.servers[0].is_present(bob.node_id), WAIT)
        learned: list[Callee] = []
        gate = asyncio.Event()
        leaving = asyncio.create_task(caller.call(bob.node_id, lambda: SEALED, gate, learned.append))
        called = asyncio.ensure_future(anext(aiter(callee.calls())))
        done, _ = await asyncio.wait([leaving, called], timeout=0.1)
        assert not done
        gate.set()
        async with asyncio.timeout(WAIT):
            await leaving
            assert await called == Call(sealed=SEALED)
        assert learned == []
    assert server.hub.passed_on["call"] == 1


async def test_a_node_that_is_at_no_server_can_not_be_called(server: SignalingServer, lend: Any) -> None:
    """The caller hears so, as an error of the network."""
    async with calling(lend, SecretKey.generate(), server.url) as (caller, _):
        with pytest.raises(NetworkError, match="at no signaling server"):
            await caller.call(SecretKey.generate().node_id, lambda: SEALED, opened(), lambda _: None)


async def test_a_flood_of_calls_fills_no_memory(server: SignalingServer, lend: Any, connect: Any) -> None:
    """Of thousands of calls a few wait; closing ends whoever follows them, also when the queue is full."""
    key = SecretKey.generate()
    async with calling(lend, key, server.url) as (callee, service):
        for _ in range(3 * MAX_CALLS):
            service._called(SEALED)
        assert service.calls.qsize() == MAX_CALLS
    async with asyncio.timeout(WAIT):
        assert len([call async for call in callee.calls()]) == MAX_CALLS - 1


@pytest.mark.parametrize("call", [None, 5, "", "not base64!", "A" * 2001, ["QUJD"], {"a": 1}])
async def test_calls_of_a_wrong_shape_are_passed_over(
    call: Any, server: SignalingServer, lend: Any, connect: Any
) -> None:
    """What is no base64 of a packet's size is no call, and the next one counts."""
    key, mallory = SecretKey.generate(), "a" * 64
    async with calling(lend, key, server.url) as (callee, _):
        raw = await connect(server.url)
        await raw.register(mallory)
        for value in (call, "QUJD"):
            payload = {"type": "tom-call", "call": value}
            await raw.say({"type": "signal", "from": mallory, "to": str(key.node_id), "payload": payload})
        async with asyncio.timeout(WAIT):
            assert await anext(aiter(callee.calls())) == Call(sealed=b"ABC")


async def test_without_servers_or_direct_packets_there_is_none(lend: Any) -> None:
    """No server configured: nothing is started."""
    assert tom_rendezvous(lend(SignalingConfig())) is None
