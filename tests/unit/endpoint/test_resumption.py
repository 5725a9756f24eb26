"""Meeting a node again: session tickets and 0-RTT between real endpoints."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import Connection, Endpoint, SecretKey

EARLY = local_config(early_data_alpns=(ALPN,))


async def meet(client: Endpoint, server: Endpoint) -> tuple[Connection, Connection]:
    """Connect and wait until a session ticket has come."""
    accepting = asyncio.create_task(accept_one(server))
    dialed = await client.connect(server.node_addr(), ALPN)
    accepted = await accepting
    stream = await accepted.open_uni()
    stream.write(b"x")
    stream.finish()
    await (await dialed.accept_uni()).read()
    return dialed, accepted


async def test_second_meeting_resumes_and_still_knows_the_peer() -> None:
    """A resumed connection carries no key in its handshake, yet both sides name the right peer."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        for round_number in range(2):
            dialed, accepted = await meet(client, server)
            assert dialed._link.handshake is not None
            assert dialed._link.handshake.session_resumed is bool(round_number)
            assert dialed.remote_node_id == server.node_id
            assert accepted.remote_node_id == client.node_id
            assert not dialed.early_data_accepted
            await dialed.close()


async def test_early_data_where_both_sides_opted_in() -> None:
    """With an ALPN that opted in, the server takes what a second dial sends before its handshake is done."""
    async with Endpoint.bind(EARLY) as server, Endpoint.bind(EARLY) as client:
        first, _ = await meet(client, server)
        await first.close()
        accepting = asyncio.create_task(accept_one(server))
        dialed = await client.connect(server.node_addr(), ALPN)
        assert dialed.remote_node_id == server.node_id
        stream = await dialed.open_bi()
        stream.write(b"early")
        stream.finish()
        accepted = await accepting
        theirs = await accepted.accept_bi()
        assert await theirs.read() == b"early"
        assert accepted.early_data_accepted
        assert dialed.early_data_accepted


@pytest.mark.skip(
    reason="a fault that is not found yet: in one of eight runs the second server's accept() never returns"
)
async def test_early_data_that_is_refused_is_sent_again() -> None:
    """A server that was restarted refuses the ticket; the data arrive all the same, after a full handshake."""
    config = local_config(early_data_alpns=(ALPN,), secret_key=SecretKey.generate())
    async with Endpoint.bind(EARLY) as client:
        async with Endpoint.bind(config) as server:
            first, _ = await meet(client, server)
            await first.close()
        async with Endpoint.bind(config) as server:
            accepting = asyncio.create_task(accept_one(server))
            dialed = await client.connect(server.node_addr(), ALPN)
            stream = await dialed.open_bi()
            stream.write(b"early")
            stream.finish()
            accepted = await accepting
            theirs = await accepted.accept_bi()
            assert await theirs.read() == b"early"
            assert not dialed.early_data_accepted
