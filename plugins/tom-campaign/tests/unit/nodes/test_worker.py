"""Nodes measure each other over real sockets on loopback, and strangers get nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

import tom_connect
from tom_campaign.core.control import DATA_ALPN, Admit, Ask, Close, Connect, Ping, Ready, Resolve, Transfer, Window
from tom_campaign.core.errors import ControlError
from tom_campaign.core.summing import Measured
from tom_campaign.core.typed import typed
from tom_campaign.nodes.acceptor import BLOCK, SINK
from tom_campaign.nodes.limits import Limits
from tom_campaign.nodes.worker import Worker, bound_with
from tom_connect import BiStream, Connection, Endpoint, EndpointConfig, StreamResetError, encode_ticket

CONFIG = bound_with(
    EndpointConfig(bind=("127.0.0.1:0",), allow_local=True, persist=False, plugins=(), watch_network=False)
)


@contextlib.asynccontextmanager
async def worker(limits: Limits | None = None) -> AsyncIterator[Worker]:
    async with Endpoint.bind(CONFIG) as endpoint:
        found = Worker(endpoint, limits or Limits())
        serving = asyncio.create_task(found.serve_data())
        try:
            yield found
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await found.aclose()


@contextlib.asynccontextmanager
async def couple(limits: Limits | None = None) -> AsyncIterator[tuple[Worker, Worker, str]]:
    """Two workers, the second of which admits the first, and the second's ticket."""
    async with worker() as one, worker(limits) as other:
        await ask(other, Admit(nodes=(str(one.endpoint.node_id),)))
        yield one, other, encode_ticket(other.endpoint.node_addr())


async def ask(worker: Worker, what: Ask, windows: list[Window] | None = None) -> dict[str, Any]:
    async with asyncio.timeout(60):
        return dict(await worker.answer(what, (windows if windows is not None else []).append))


async def measured(worker: Worker, what: Ask, windows: list[Window] | None = None) -> Measured:
    return typed(Measured, _as_json(await ask(worker, what, windows)), "answer")


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


async def test_a_dial_is_measured() -> None:
    """A dial tells its time and path; on loopback it is direct at once."""
    async with couple() as (one, _, target):
        found = await measured(one, Connect(target=target, timeout=30, direct_wait=0))
    assert (found.sent, found.received, found.path_kind, found.error) == (1, 1, "direct", None)
    assert found.direct_s is not None and found.rtt.p50_ms == pytest.approx(1000 * found.direct_s, rel=0.01, abs=0.2)
    assert [span.path_kind for span in found.paths] == ["direct"]


@pytest.mark.parametrize("reliable", [False, True], ids=["datagrams", "stream"])
async def test_pings_come_back(reliable: bool) -> None:
    """Each message comes back once, as datagram or on a stream, and a connection is made where there is none."""
    async with couple() as (one, _, target):
        what = Ping(target=target, timeout=20, count=40, interval=0.005, size=100, reliable=reliable)
        found = await measured(one, what)
    assert (found.sent, found.received, found.reconnections, found.error) == (40, 40, 0, None)
    assert len(found.samples_ms) == 40 and found.rtt.min_ms is not None and found.rtt.min_ms > 0
    assert found.path_kind == "direct"


async def test_windows_tell_of_all_messages() -> None:
    """With `every` the figures come in pieces, which add up to the whole."""
    windows: list[Window] = []
    async with couple() as (one, _, target):
        what = Ping(target=target, timeout=20, count=60, interval=0.01, size=64, every=0.15)
        found = await measured(one, what, windows)
    assert len(windows) >= 3
    assert sum(window.sent for window in windows) == found.sent == 60
    assert sum(window.received for window in windows) == found.received == 60
    assert windows[-1].total_sent == 60 and windows[0].path_kind == "direct"


async def test_a_broken_connection_is_made_anew() -> None:
    """When the other side closes in the middle, the next messages go over a new connection, which is counted."""
    async with couple() as (one, _, target):
        what = Ping(target=target, timeout=10, count=150, interval=0.01, size=64)
        measuring = asyncio.create_task(measured(one, what))
        session = await _session(one)
        while session.connection is None or not session.spans:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await session.connection.close(7, "in the middle")
        found = await measuring
    assert found.reconnections == 1 and found.sent == 150 and found.received >= 50
    assert "none" in {span.path_kind for span in found.paths}


async def _session(worker: Worker) -> Any:
    async with asyncio.timeout(10):
        while not worker._sessions:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
    return next(iter(worker._sessions.values()))


async def test_a_node_that_is_gone_is_a_result() -> None:
    """Measuring somebody who closed its endpoint loses everything, and says why, and raises nothing."""
    async with worker() as one:
        async with worker() as other:
            target = encode_ticket(other.endpoint.node_addr())
        for what in (
            Ping(target=target, timeout=0.5, count=3, interval=0.01, size=64),
            Connect(target=target, timeout=0.5, direct_wait=0),
            Transfer(target=target, timeout=0.5, blocks=2),
        ):
            found = await measured(one, what)
            assert found.received == 0 and found.sent >= 1 and found.error and found.path_kind == "none"


async def test_lost_messages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the other side sends back every other datagram, half of them are lost, after their time and no earlier."""
    seen = 0

    async def echo_half(connection: Any) -> None:
        nonlocal seen
        while True:
            data = await connection.read_datagram()
            seen += 1
            if seen % 2:
                connection.send_datagram(data)

    monkeypatch.setattr("tom_campaign.nodes.acceptor._echo_datagrams", echo_half)
    async with couple() as (one, _, target):
        found = await measured(one, Ping(target=target, timeout=1.0, count=40, interval=0.005, size=64))
    assert seen == 40 and (found.sent, found.received) == (40, 20)
    assert found.longest_gap_ms is not None and found.longest_gap_ms >= 1000 * 0.9


async def test_a_transfer_is_verified() -> None:
    """All blocks arrive, and their hash is what was sent; a receiver that tells another hash has received nothing."""
    async with couple() as (one, _, target):
        found = await measured(one, Transfer(target=target, timeout=60, blocks=20))
    assert (found.sent, found.received, found.bytes, found.error) == (20, 20, 20 * BLOCK, None)
    assert found.bytes_per_s is not None and found.bytes_per_s > 0


async def test_a_wrong_hash_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that arrive with another content count for nothing."""
    monkeypatch.setattr("tom_campaign.nodes.acceptor.hashlib", types.SimpleNamespace(sha256=_WrongHash))
    async with couple() as (one, _, target):
        found = await measured(one, Transfer(target=target, timeout=60, blocks=3))
    assert found.received == 0 and found.error == "what arrived is not what was sent"


class _WrongHash:
    def update(self, data: object) -> None: ...

    def digest(self) -> bytes:
        return b"w" * 32


async def used(connection: Connection) -> None:
    """Wait for what the other side makes of it: a refusal may come a moment after the handshake."""
    await (await connection.open_bi()).read()


async def to_the_end(stream: BiStream) -> None:
    async for _data in stream:
        pass


async def test_strangers_are_refused() -> None:
    """Who is not admitted gets no connection; neither does one who was admitted before and no longer is."""
    async with couple() as (one, other, target), worker() as stranger:
        with pytest.raises(tom_connect.ConnectionRefusedError):
            await used(await stranger.endpoint.connect(other.endpoint.node_addr(), DATA_ALPN, timeout=20))
        assert (await measured(one, Connect(target=target, timeout=20, direct_wait=0))).received == 1
        await ask(other, Admit(nodes=()))
        found = await measured(one, Ping(target=target, timeout=20, count=1, interval=1, size=64))
        assert found.received == 1  # over the connection from when it was admitted
        await ask(one, Close(target=target))
        found = await measured(one, Ping(target=target, timeout=2, count=1, interval=1, size=64))
        assert found.received == 0 and found.error is not None


async def test_nobody_sends_more_than_is_allowed() -> None:
    """A peer that sends more on streams than the limit is cut off there."""
    async with couple(Limits(max_mib=1)) as (one, other, _):
        connection = await one.endpoint.connect(other.endpoint.node_addr(), DATA_ALPN, timeout=20)
        async with asyncio.timeout(30), connection:
            stream = await connection.open_bi()
            stream.write(SINK + bytes(3 << 20))
            with pytest.raises(StreamResetError) as raised:
                await to_the_end(stream)
            assert raised.value.code == 2
            await connection.close()


async def test_a_stream_of_no_kind_is_reset() -> None:
    """Bytes that are neither echo nor transfer end the stream, and nothing else."""
    async with couple() as (one, other, target):
        connection = await one.endpoint.connect(other.endpoint.node_addr(), DATA_ALPN, timeout=20)
        async with asyncio.timeout(20), connection:
            stream = await connection.open_bi()
            stream.write(b"?")
            with pytest.raises(StreamResetError):
                await stream.read(1)
            await connection.close()
        assert (await measured(one, Connect(target=target, timeout=20, direct_wait=0))).received == 1


@pytest.mark.parametrize(
    ("limits", "what", "option"),
    [
        (Limits(max_seconds=5), Connect(target="x", timeout=4, direct_wait=2), "--max-seconds"),
        (Limits(max_seconds=5), Ping(target="x", timeout=1, count=50, interval=0.1, size=64), "--max-seconds"),
        (Limits(max_seconds=5), Ready(timeout=6), "--max-seconds"),
        (Limits(max_seconds=5), Resolve(target="x", timeout=6), "--max-seconds"),
        (Limits(max_mib=1), Transfer(target="x", timeout=1, blocks=17), "--max-mib"),
        (Limits(max_mib=1), Ping(target="x", timeout=1, count=2000, interval=0.001, size=1000), "--max-mib"),
        (Limits(max_rate=100), Ping(target="x", timeout=1, count=5, interval=0.005, size=64), "--max-rate"),
    ],
)
async def test_limits_name_the_option_that_allows_more(limits: Limits, what: Ask, option: str) -> None:
    """What is beyond a limit is refused before anything is done, and within generous ones it is not."""
    with pytest.raises(ControlError, match=option):
        limits.check(what)
    Limits(max_seconds=1000, max_mib=100, max_rate=1000).check(what)
    Limits().check(what)


async def test_an_unknown_node_is_looked_up_in_vain() -> None:
    """Without any discovery a look-up fails with a reason, with a fresh endpoint as well."""
    async with worker() as one, worker() as other:
        for fresh in (False, True):
            found = await measured(one, Resolve(target=str(other.endpoint.node_id), timeout=5, fresh=fresh))
            assert (found.sent, found.received) == (1, 0) and found.error


async def test_a_node_that_is_not_ready_says_why() -> None:
    """Waiting for a publication that nobody makes ends with what is missing."""
    async with worker() as one:
        assert (await ask(one, Ready(timeout=5)))["published"] == 0
        with pytest.raises(ControlError, match=r"not ready after 0\.2 s: its address was not published"):
            await ask(one, Ready(timeout=0.2, published=True))
        with pytest.raises(ControlError, match="no relay let it in"):
            await ask(one, Ready(timeout=0.2, relay=True))
