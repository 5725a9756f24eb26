"""The small protocols of commands, with peers that keep to them and peers that don't."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from typing import Any

import pytest

from tests.unit.endpoint.pairs import Pair, make_pair
from tom_connect import Connection, NodeId, SecretKey
from tom_connect.cli import pipe as pipe_module
from tom_connect.cli.node import PING_ALPN, Clock, background, only_from, serve
from tom_connect.cli.options import Invocation
from tom_connect.cli.output import Output
from tom_connect.cli.ping import Tally, round_trip
from tom_connect.cli.pipe import accept_pipe, open_pipe, pipe
from tom_connect.exceptions import ConnectionClosedError, ProtocolError
from tom_connect.incoming import Incoming

pytestmark = pytest.mark.timeout(30)


class Invoked:
    """An invocation whose output is kept; commands use nothing else of it here."""

    def __init__(self, *, as_json: bool = True) -> None:
        self.out = io.StringIO()
        self.output = Output(json=as_json, stdout=self.out, stderr=self.out)

    @property
    def run(self) -> Invocation:
        return self  # type: ignore[return-value]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


class FakeStdin:
    """Standard input that says what it is told to, and then its end, or nothing more."""

    def __init__(self, *pieces: bytes, is_terminal: bool = False) -> None:
        self._pieces = list(pieces)
        self.is_terminal = is_terminal

    async def read(self) -> bytes:
        if not self._pieces:
            await asyncio.Event().wait()
        return self._pieces.pop(0)


class FakeStdout:
    """Standard output that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


async def test_pings_are_answered(pair: Pair) -> None:
    """Numbers come back; one stream after the other; the peer's end is ours."""

    async def answer() -> None:
        while True:
            async with await pair.accepted.accept_bi() as stream:
                while data := await stream.read(100):
                    stream.write(data)

    answering = asyncio.create_task(answer())
    stream = await pair.dialed.open_bi()
    for seq in range(1, 20):
        await round_trip(stream, seq)
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


@pytest.mark.parametrize(
    ("answers", "fails"),
    [((3,), False), ((1, 2, 3), False), ((4,), True), ((2**64 - 1,), True), ((), True), ((1,), True)],
)
async def test_answers_to_other_pings(pair: Pair, answers: tuple[int, ...], fails: bool) -> None:
    """Earlier ones are late and passed over; those of the future, or none, break the protocol."""
    stream = await pair.dialed.open_bi()
    asked = asyncio.create_task(round_trip(stream, 3))
    theirs = await pair.accepted.accept_bi()
    for number in answers:
        theirs.write(struct.pack(">Q", number))
    theirs.finish()
    if fails:
        with pytest.raises(ProtocolError):
            await asked
    else:
        await asked


def test_a_tally_of_nothing() -> None:
    """Nothing sent, or nothing answered, is summed up too."""
    invoked = Invoked()
    Tally().say(invoked.run, None)
    Tally(sent=2).say(invoked.run, "direct")
    Tally(sent=2, rtts=[1.0, 3.0]).say(invoked.run, "direct")
    assert [event["loss"] for event in invoked.events] == [0, 1, 0]
    assert [event["rtt_mean_ms"] for event in invoked.events] == [None, None, 2]


@pytest.mark.parametrize("first", [b"x", b"\x01\0", b""])
async def test_a_pipe_begins_with_its_greeting(pair: Pair, first: bytes) -> None:
    """Whoever opens another stream is refused."""
    stream = await pair.dialed.open_bi()
    stream.write(first)
    stream.finish()
    with pytest.raises(ProtocolError, match="does not speak"):
        await accept_pipe(pair.accepted)


async def test_who_opens_no_pipe_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger that connects and says nothing must not hold on to a listener."""
    monkeypatch.setattr(pipe_module, "GREETING_LIMIT", 0.05)
    with pytest.raises(ProtocolError, match="opened no stream"):
        await accept_pipe(pair.accepted)


async def piped(connection: Connection, stdin: FakeStdin, stdout: FakeStdout, *, dials: bool) -> tuple[int, int]:
    stream = await (open_pipe(connection) if dials else accept_pipe(connection))
    return await pipe(Invoked(as_json=False).run, connection, stream, stdin, stdout)  # type: ignore[arg-type]


async def test_a_pipe_ends_when_both_directions_have(pair: Pair) -> None:
    """Whoever ends first goes on to receive."""
    one, two = FakeStdout(), FakeStdout()
    outcomes = await asyncio.gather(
        piped(pair.dialed, FakeStdin(b"abc", b"d", b""), one, dials=True),
        piped(pair.accepted, FakeStdin(b""), two, dials=False),
    )
    assert outcomes == [(4, 0), (0, 4)]
    assert (one.data, two.data) == (b"", b"abcd")


async def test_a_person_at_a_terminal_is_not_waited_for(pair: Pair) -> None:
    """When the other side has ended, nobody reads what would be typed."""
    outcomes = await asyncio.gather(
        piped(pair.dialed, FakeStdin(b"abc", b""), FakeStdout(), dials=True),
        piped(pair.accepted, FakeStdin(is_terminal=True), FakeStdout(), dials=False),
    )
    assert outcomes == [(3, 0), (0, 3)]


async def test_a_side_that_reads_no_more_is_not_an_error(pair: Pair) -> None:
    """What it still sends arrives."""
    stdout = FakeStdout()
    piping = asyncio.create_task(piped(pair.dialed, FakeStdin(b"x" * 100, b"y", b""), stdout, dials=True))
    theirs = await accept_pipe(pair.accepted)
    theirs.stop(0)
    theirs.write(b"still here")
    theirs.finish()
    assert (await piping)[1] == 10
    assert stdout.data == b"still here"


async def test_a_closed_connection_ends_a_pipe(pair: Pair) -> None:
    """Once the other side has ended and closed, standard input that goes on is not waited for."""
    piping = asyncio.create_task(piped(pair.dialed, FakeStdin(b"abc"), FakeStdout(), dials=True))
    theirs = await accept_pipe(pair.accepted)
    assert await theirs.readexactly(3) == b"abc"
    theirs.finish()
    await pair.accepted.flush()
    await pair.accepted.close()
    assert await piping == (3, 0)


async def test_a_connection_that_ends_in_the_middle_is_an_error(pair: Pair) -> None:
    """Not taken for the end of what the other side had to say."""
    piping = asyncio.create_task(piped(pair.dialed, FakeStdin(b"abc"), FakeStdout(), dials=True))
    theirs = await accept_pipe(pair.accepted)
    theirs.write(b"and then")
    await pair.accepted.close(7, "gone")
    with pytest.raises(ConnectionClosedError, match="code 7: gone"):
        await piping


async def test_only_named_nodes_are_let_in() -> None:
    """Others are refused by name of the reason; pings are answered for all."""
    friend = SecretKey.generate()
    met: list[NodeId] = []

    async def handler(incoming: Incoming) -> None:
        met.append(incoming.remote_node_id)
        async with await incoming.accept() as connection:
            await connection.closed()

    async with make_pair(secret_key=None) as pair:
        pair.server.add_alpn("x/1")
        pair.server.add_alpn(PING_ALPN)
        serving = asyncio.create_task(serve(pair.server, only_from(frozenset({friend.node_id}), handler)))
        with pytest.raises(ConnectionClosedError, match="from others only"):
            await pair.client.connect(pair.server.node_addr(), "x/1")
        async with await pair.client.connect(pair.server.node_addr(), PING_ALPN) as connection:
            stream = await connection.open_bi()
            await round_trip(stream, 1)
            stream.finish()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert met == []


async def test_what_runs_meanwhile_ends_with_the_block() -> None:
    """An error of either is raised as it is; the other is cancelled."""
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fail(what: str) -> None:
        await asyncio.sleep(0)
        raise ProtocolError(what)

    async with background(forever()):
        await asyncio.sleep(0)
    with pytest.raises(ProtocolError, match="inside"):
        async with background(forever()):
            await fail("inside")
    with pytest.raises(ProtocolError, match="meanwhile"):
        async with background(forever(), fail("meanwhile")):
            await asyncio.Event().wait()
    assert len(ended) == 3


async def test_a_clock_counts_from_its_making() -> None:
    """The `at` of events."""
    assert 0 <= Clock().at < 1
