"""A responder serves its controllers, within its limits, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import attrs
import pytest

from tom_campaign.core.control import CONTROL_ALPN, DATA_ALPN, Admit, Connect, Ping, Transfer
from tom_campaign.core.errors import ControlError, NodeGoneError
from tom_campaign.networks.remote import responders
from tom_campaign.nodes.limits import Limits
from tom_campaign.nodes.responder import Responder
from tom_campaign.nodes.worker import Worker, bound_with
from tom_connect import Connection, Endpoint, EndpointConfig, NodeId, SecretKey, TomError, encode_ticket

PLAIN = EndpointConfig(bind=("127.0.0.1:0",), allow_local=True, persist=False, plugins=(), watch_network=False)


@contextlib.asynccontextmanager
async def responding(*allowed: NodeId, limits: Limits | None = None) -> AsyncIterator[Endpoint]:
    async with Endpoint.bind(bound_with(PLAIN, takes_control=True)) as endpoint:
        responder = Responder(Worker(endpoint, limits or Limits()), frozenset(allowed))
        serving = asyncio.create_task(responder.serve())
        try:
            yield endpoint
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def controller() -> EndpointConfig:
    return attrs.evolve(PLAIN, secret_key=SecretKey.generate())


def key_of(config: EndpointConfig) -> NodeId:
    assert config.secret_key is not None
    return config.secret_key.node_id


async def used(connection: Connection) -> None:
    """Wait for what the other side makes of it: a refusal may come a moment after the handshake."""
    await (await connection.open_bi()).read()


def ticket(endpoint: Endpoint) -> str:
    return encode_ticket(endpoint.node_addr())


async def test_two_responders_are_measured_by_their_controller() -> None:
    """A controller admits two responders to each other, and has one measure the other."""
    config = controller()
    async with responding(key_of(config)) as one, responding(key_of(config)) as other:
        targets = {"far-1": ticket(one), "far-2": ticket(other)}
        async with responders(targets, config, lambda _name: None) as channels:
            hellos = [await channel.hello for channel in channels.values()]
            assert [hello.node_id for hello in hellos] == [str(one.node_id), str(other.node_id)]
            for channel in channels.values():
                await channel.ask(Admit(nodes=tuple(hello.node_id for hello in hellos)), 20)
            what = Ping(target=hellos[1].ticket, timeout=20, count=10, interval=0.01, size=64)
            answer = await channels["far-1"].ask(what, 20)
            assert (answer["sent"], answer["received"]) == (10, 10)


async def test_nobody_else_controls_it() -> None:
    """A key that is not allowed is refused, and told whom to have allowed."""
    stranger = controller()
    async with responding(key_of(controller())) as one:
        with pytest.raises(ControlError, match=f"has other controllers.*respond --allow {key_of(stranger)}"):
            async with responders({"far-1": ticket(one)}, stranger, lambda _name: None) as channels:
                await channels["far-1"].hello


async def test_what_a_campaign_opened_ends_with_it() -> None:
    """When the controller has gone, those whom it admitted are strangers again, and another controller may come."""
    config = controller()
    async with responding(key_of(config)) as one, Endpoint.bind(bound_with(PLAIN)) as peer:
        async with responders({"far-1": ticket(one)}, config, lambda _name: None) as channels:
            await channels["far-1"].ask(Admit(nodes=(str(peer.node_id),)), 20)
            async with await peer.connect(one.node_addr(), DATA_ALPN, timeout=20) as connection:
                stream = await connection.open_bi()
                stream.write(b"ehello")
                assert await stream.readexactly(5) == b"hello"
                await connection.close()
        async with asyncio.timeout(20):
            while True:  # it hears of the controller's end a moment later
                try:
                    again = attrs.evolve(config)
                    async with responders({"far-1": ticket(one)}, again, lambda _name: None) as channels:
                        await channels["far-1"].hello
                    break
                except (ControlError, NodeGoneError):
                    await asyncio.sleep(0.05)
        with pytest.raises(TomError):
            await used(await peer.connect(one.node_addr(), DATA_ALPN, timeout=20))


async def test_one_campaign_at_a_time() -> None:
    """While a controller is there, another one is refused."""
    first, second = controller(), controller()
    async with responding(key_of(first), key_of(second)) as one:
        async with responders({"far-1": ticket(one)}, first, lambda _name: None) as channels:
            await channels["far-1"].hello
            with pytest.raises(ControlError, match="a campaign is under way here"):
                async with responders({"far-1": ticket(one)}, second, lambda _name: None) as others:
                    await others["far-1"].hello


async def test_limits_hold_for_controllers_too() -> None:
    """What the owner of a responder did not allow is refused, and smaller things still work."""
    config = controller()
    async with responding(key_of(config), limits=Limits(max_seconds=5, max_mib=1, max_rate=100)) as one:
        async with responders({"far-1": ticket(one)}, config, lambda _name: None) as channels:
            ask = channels["far-1"].ask
            target = str(SecretKey.generate().node_id)
            for what in (
                Transfer(target=target, timeout=1, blocks=1000),
                Ping(target=target, timeout=1, count=10, interval=0.001, size=64),
                Connect(target=target, timeout=3600, direct_wait=0),
            ):
                with pytest.raises(ControlError, match="not allowed here"):
                    await ask(what, 20)
            assert (await ask(Connect(target=target, timeout=1, direct_wait=0), 20))["received"] == 0


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\n", b"x" * 200_000, b'{"id":"1"}\n', b"[]\n" * 100])
async def test_a_controller_that_talks_rubbish_is_left(rubbish: bytes) -> None:
    """What is no request ends the control connection; the responder goes on and takes the next controller."""
    config = controller()
    async with responding(key_of(config)) as one, Endpoint.bind(config) as endpoint:
        connection = await endpoint.connect(one.node_addr(), CONTROL_ALPN, timeout=20)
        async with asyncio.timeout(30):
            stream = await connection.open_bi()
            stream.write(rubbish)
            await connection.closed()
            while True:
                connection = await endpoint.connect(one.node_addr(), CONTROL_ALPN, timeout=20)
                stream = await connection.open_bi()
                stream.write(b"\n")
                try:
                    assert "hello" in json.loads(await stream.readline())
                    break
                except TomError:  # it is still busy with the end of the one before
                    await asyncio.sleep(0.05)
            await connection.close()


async def test_a_request_that_makes_no_sense_is_answered() -> None:
    """A request with a number gets an error with that number, and the channel stays."""
    config = controller()
    async with responding(key_of(config)) as one, Endpoint.bind(config) as endpoint:
        connection = await endpoint.connect(one.node_addr(), CONTROL_ALPN, timeout=20)
        async with asyncio.timeout(30):
            stream = await connection.open_bi()
            stream.write(b'{"id": 5, "do": "format disk"}\n{"id": 6, "do": "bind", "config": {}}\n')
            stream.write(b'{"id": 7, "do": "connect", "target": "nobody", "timeout": 1, "direct_wait": 0}\n')
            stream.write(b'{"id": 8, "do": "admit", "nodes": ["zz"]}\n{"id": 9, "do": "admit", "nodes": []}\n')
            lines = [json.loads(await stream.readline()) for _ in range(6)]
            assert "hello" in lines[0]
            answers = {line["id"]: line for line in lines[1:]}
            assert {number for number, line in answers.items() if "error" in line} == {5, 6, 7, 8}
            assert answers[9]["ok"] == {}
            await connection.close()
