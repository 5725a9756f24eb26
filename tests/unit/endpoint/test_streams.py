"""Streams between two real endpoints on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from tests.unit.endpoint.pairs import Pair, make_pair
from tom_connect import ConnectionClosedError, LocalError, StreamResetError, StreamStoppedError
from tom_connect.streams import HIGH_WATER


async def test_bidirectional_stream_carries_both_ways(pair: Pair) -> None:
    """What one side writes the other reads, in both directions, up to the end."""
    ours = await pair.dialed.open_bi()
    ours.write(b"question")
    ours.finish()
    theirs = await pair.accepted.accept_bi()
    assert await theirs.read() == b"question"
    theirs.write(b"answer")
    theirs.finish()
    assert await ours.read() == b"answer"
    assert ours.at_eof()
    await theirs.wait_closed()


async def test_streams_open_from_the_accepting_side_too(pair: Pair) -> None:
    """The side that accepted the connection opens streams as well."""
    sending = await pair.accepted.open_uni()
    sending.write(b"hello")
    sending.finish()
    receiving = await pair.dialed.accept_uni()
    assert await receiving.read() == b"hello"


async def test_large_transfer_arrives_whole(pair: Pair) -> None:
    """Eight MiB written with drain arrive unchanged while read in chunks."""
    data = random.Random(1).randbytes(8 << 20)

    async def send() -> None:
        stream = await pair.dialed.open_uni()
        for start in range(0, len(data), 65536):
            stream.write(data[start : start + 65536])
            await stream.drain()
        stream.finish()
        await stream.wait_closed()

    async def receive() -> str:
        stream = await pair.accepted.accept_uni()
        digest = hashlib.sha256()
        async for chunk in stream:
            digest.update(chunk)
        return digest.hexdigest()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        received = group.create_task(receive())
    assert received.result() == hashlib.sha256(data).hexdigest()


async def test_slow_reader_stops_a_fast_sender() -> None:
    """A sender that drains gets no further than the flow window and its own high-water mark while nobody reads."""
    async with make_pair() as pair:
        stream = await pair.dialed.open_uni()
        sent = 0

        async def pump() -> None:
            nonlocal sent
            while True:
                stream.write(bytes(65536))
                sent += 65536
                await stream.drain()

        task = asyncio.create_task(pump())
        receiving = await pair.accepted.accept_uni()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 1.0)
        held = sent
        assert held <= (8 << 20) + 2 * HIGH_WATER
        buffered = len(receiving._buffer)
        assert buffered <= 8 << 20
        got = 0
        while got < held:
            got += len(await receiving.read(1 << 20))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sent > held


async def test_read_until_and_exactly(pair: Pair) -> None:
    """The reading methods of asyncio's StreamReader behave as there, errors included."""
    ours = await pair.dialed.open_uni()
    ours.write(b"line one\nline two\n" + b"x" * 10 + b"tail")
    ours.finish()
    theirs = await pair.accepted.accept_uni()
    assert await theirs.readuntil(b"\n") == b"line one\n"
    assert await theirs.readline() == b"line two\n"
    assert await theirs.readexactly(10) == b"x" * 10
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await theirs.readexactly(5)
    assert caught.value.partial == b"tail"
    assert await theirs.read(10) == b""
    assert theirs.at_eof()


async def test_readuntil_has_a_limit(pair: Pair) -> None:
    """A line that never ends is reported instead of buffered for ever, and stays readable."""
    ours = await pair.dialed.open_uni()
    ours.write(bytes(200_000))
    theirs = await pair.accepted.accept_uni()
    with pytest.raises(asyncio.LimitOverrunError):
        await theirs.readuntil(b"\n")
    assert len(await theirs.readexactly(200_000)) == 200_000


async def test_readexactly_of_more_than_the_window(pair: Pair) -> None:
    """One read larger than every flow window completes, since credit is given as the data come in."""
    size = 20 << 20

    async def send() -> None:
        stream = await pair.dialed.open_uni()
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
            await stream.drain()
        stream.finish()

    task = asyncio.create_task(send())
    stream = await pair.accepted.accept_uni()
    assert len(await stream.readexactly(size)) == size
    await task


async def test_cancelled_read_loses_nothing(pair: Pair) -> None:
    """A read that was cancelled leaves what had arrived for the next one."""
    ours = await pair.dialed.open_uni()
    ours.write(b"12345")
    theirs = await pair.accepted.accept_uni()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await theirs.readexactly(10)
    ours.write(b"67890")
    assert await theirs.readexactly(10) == b"1234567890"


async def test_reset_reaches_the_reader(pair: Pair) -> None:
    """A reset sender raises StreamResetError with its code at the reader."""
    ours = await pair.dialed.open_uni()
    ours.write(b"begun")
    theirs = await pair.accepted.accept_uni()
    ours.reset(7)
    with pytest.raises(StreamResetError) as caught:
        await theirs.read()
    assert caught.value.code == 7
    with pytest.raises(LocalError):
        ours.write(b"more")


async def test_stop_reaches_the_writer(pair: Pair) -> None:
    """A reader that stops raises StreamStoppedError with its code at the writer."""
    ours = await pair.dialed.open_uni()
    ours.write(b"begun")
    theirs = await pair.accepted.accept_uni()
    theirs.stop(9)

    async def write_on() -> None:
        while True:
            ours.write(bytes(100_000))
            await ours.drain()
            await asyncio.sleep(0)

    with pytest.raises(StreamStoppedError) as caught:
        await write_on()
    assert caught.value.code == 9


async def test_thousands_of_short_streams(pair: Pair) -> None:
    """Far more streams than the peer allows at once pass one after the other, and are forgotten afterwards."""
    count = 2000

    async def answer() -> None:
        for _ in range(count):
            stream = await pair.accepted.accept_bi()
            stream.write(await stream.read())
            stream.finish()

    async def ask(number: int) -> bytes:
        stream = await pair.dialed.open_bi()
        stream.write(b"%d" % number)
        stream.finish()
        return await stream.read()

    task = asyncio.create_task(answer())
    answers = await asyncio.gather(*(ask(number) for number in range(count)))
    await task
    assert answers == [b"%d" % number for number in range(count)]
    await pair.dialed.flush()
    await pair.accepted.flush()
    assert not pair.dialed._send
    assert not pair.dialed._recv


async def test_code_written_for_asyncio_streams_works(pair: Pair) -> None:
    """A line protocol written against StreamReader and StreamWriter runs over a stream unchanged."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.writelines([line.upper()])
            await writer.drain()
        assert writer.get_extra_info("peername") == str(pair.client.node_id)
        assert writer.can_write_eof()
        writer.write_eof()
        writer.close()
        await writer.wait_closed()

    ours = await pair.dialed.open_bi()
    ours.write(b"one\ntwo\n")
    ours.write_eof()
    theirs = await pair.accepted.accept_bi()
    await asyncio.gather(shout(theirs, theirs), _ignore())  # type: ignore[arg-type]
    assert await ours.read() == b"ONE\nTWO\n"


async def _ignore() -> None:
    return None


async def test_connection_close_ends_every_stream(pair: Pair) -> None:
    """Readers, writers and those who wait for streams all hear of the close, with its code and reason."""
    ours = await pair.dialed.open_bi()
    ours.write(b"x")
    theirs = await pair.accepted.accept_bi()
    reading = asyncio.create_task(theirs.read())
    accepting = asyncio.create_task(pair.accepted.accept_bi())
    await asyncio.sleep(0)
    await pair.dialed.close(5, "enough")
    for task in (reading, accepting):
        with pytest.raises(ConnectionClosedError) as caught:
            await task
        assert (caught.value.code, caught.value.reason, caught.value.by_peer) == (5, "enough", True)
    with pytest.raises(ConnectionClosedError):
        ours.write(b"more")


async def test_wrong_arguments_raise_at_the_call_and_harm_nothing(pair: Pair) -> None:
    """A number, text or list where bytes are wanted, or a code out of range, is refused; the connection goes on."""
    stream = await pair.dialed.open_bi()
    for data in (5, "x", [1, 2], None):
        with pytest.raises(TypeError):
            stream.write(data)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            pair.dialed.send_datagram(data)  # type: ignore[arg-type]
    for call in (stream.reset, stream.stop):
        with pytest.raises(ValueError, match="error code"):
            call(-1)
        with pytest.raises(ValueError, match="error code"):
            call(2**62)
        with pytest.raises(TypeError):
            call("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="error code"):
        await pair.dialed.close(-1)
    with pytest.raises(TypeError):
        await pair.dialed.close(0, b"x")  # type: ignore[arg-type]
    stream.write(bytearray(b"a"))
    stream.write(memoryview(b"b"))
    stream.finish()
    assert await (await pair.accepted.accept_bi()).read() == b"ab"
    pair.dialed.send_datagram(bytearray(b"c"))
    assert await pair.accepted.read_datagram() == b"c"
