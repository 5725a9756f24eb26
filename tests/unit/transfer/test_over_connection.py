"""Transfers between two endpoints: the last word arrives although the connection is closed at once."""

from __future__ import annotations

import asyncio
import pathlib
import random

import pytest

from tests.unit.endpoint.pairs import Pair, make_pair
from tom_connect.transfer import (
    Manifest,
    TransferInterruptedError,
    TransferRefusedError,
    TransferResult,
    receive,
    scan,
    send,
)

pytestmark = pytest.mark.timeout(60)
SIZE = 3_000_000


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "film.mkv"
    path.write_bytes(random.Random(11).randbytes(SIZE))
    return path


async def sending(pair: Pair, file: pathlib.Path) -> TransferResult:
    async with pair.dialed:
        return await send(pair.dialed, file)


async def receiving(pair: Pair, into: pathlib.Path, **more: object) -> TransferResult:
    try:
        return await receive(pair.accepted, into, **more)  # type: ignore[arg-type]
    finally:
        await pair.accepted.close()


async def test_a_file_arrives(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Both sides return, and close as soon as they like."""
    async with make_pair() as pair:
        sent, received = await asyncio.gather(sending(pair, file), receiving(pair, tmp_path / "into"))
    assert (sent.moved, received.moved) == (SIZE, SIZE)
    assert (tmp_path / "into" / "film.mkv").read_bytes() == file.read_bytes()


async def test_a_refusal_arrives(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Although the receiver closes the connection at once."""

    async def decline(_manifest: Manifest) -> bool:
        return False

    async with make_pair() as pair:
        sent, received = await asyncio.gather(
            sending(pair, file), receiving(pair, tmp_path / "into", decide=decline), return_exceptions=True
        )
    assert type(sent) is TransferRefusedError
    assert type(received) is TransferRefusedError


async def test_a_lost_connection_is_an_interruption(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """At both sides, whichever closed it."""
    async with make_pair() as pair:
        found = scan(file)
        sent, received = await asyncio.gather(
            send(pair.dialed, found, on_progress=lambda _: asyncio.create_task(pair.dialed.close(5, "enough"))),
            receiving(pair, tmp_path / "into"),
            return_exceptions=True,
        )
    assert type(sent) is TransferInterruptedError
    assert type(received) is TransferInterruptedError
    assert "enough" in str(received)


async def test_a_cancelled_sender_frees_the_receiver(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Its stream is reset: the receiver need not wait for a time-out."""
    gate = asyncio.Event()
    async with make_pair() as pair:
        task = asyncio.create_task(send(pair.dialed, file, on_progress=lambda _: gate.set()))
        ends = asyncio.create_task(receiving(pair, tmp_path / "into"))
        await gate.wait()
        task.cancel()
        outcomes = await asyncio.gather(task, ends, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert type(outcomes[1]) is TransferInterruptedError


async def test_a_peer_that_offers_nothing_is_given_up(tmp_path: pathlib.Path) -> None:
    """Whether it opens no stream or says nothing on it."""
    async with make_pair() as pair:
        with pytest.raises(TransferInterruptedError, match="offered nothing"):
            await receive(pair.accepted, tmp_path, offer_timeout=0.05)
        stream = await pair.dialed.open_bi()
        stream.write(b"\1")
        with pytest.raises(TransferInterruptedError, match="offered nothing"):
            await receive(pair.accepted, tmp_path, offer_timeout=0.05)
