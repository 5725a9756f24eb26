"""Standard input and output of commands: never in the way of the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import IO

import pytest

from tom_connect.cli.output import OutputClosedError
from tom_connect.cli.stdio import Stdin, Stdout

pytestmark = pytest.mark.timeout(30)


class Ends:
    """A pipe, and the stream object that stands for one of its ends."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.streams: list[IO[bytes]] = []

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            try:
                os.close(fd)
            except OSError:
                pass


@pytest.fixture
def pipe() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def as_stdin(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> Stdin:
    monkeypatch.setattr(sys, "stdin", os.fdopen(pipe.read_fd, "rb", closefd=False))
    return Stdin()


def as_stdout(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> Stdout:
    monkeypatch.setattr(sys, "stdout", os.fdopen(pipe.write_fd, "wb", closefd=False))
    return Stdout()


async def test_input_comes_as_it_is_typed(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces as they are written, b"" at the end and from then on; the loop runs on meanwhile."""
    stdin = as_stdin(pipe, monkeypatch)
    assert not stdin.is_terminal
    reading = asyncio.create_task(stdin.read())
    await asyncio.sleep(0.01)
    assert not reading.done()
    os.write(pipe.write_fd, b"one\n")
    assert await reading == b"one\n"
    os.write(pipe.write_fd, b"two")
    assert await stdin.read() == b"two"
    os.close(pipe.write_fd)
    assert (await stdin.read(), await stdin.read()) == (b"", b"")


async def test_a_cancelled_reader_loses_nothing(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after it was cancelled goes to the next one."""
    stdin = as_stdin(pipe, monkeypatch)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await stdin.read()
    os.write(pipe.write_fd, b"kept")
    assert await stdin.read() == b"kept"
    os.close(pipe.write_fd)
    assert await stdin.read() == b""


@pytest.mark.parametrize("stream", [None, "closed"])
async def test_no_standard_input_is_an_empty_one(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program started without one, or with it closed."""
    if stream == "closed":
        read_fd, write_fd = os.pipe()
        os.close(write_fd)
        file = os.fdopen(read_fd, "rb")
        file.close()
        monkeypatch.setattr(sys, "stdin", file)
    else:
        monkeypatch.setattr(sys, "stdin", None)
    stdin = Stdin()
    assert not stdin.is_terminal
    assert await stdin.read() == b""


async def test_output_that_blocks_does_not_block_the_loop(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds is written in the end, while the loop reads it."""
    stdout = as_stdout(pipe, monkeypatch)
    data = os.urandom(1_000_000)
    writing = asyncio.create_task(stdout.write(data))
    got = b""
    while len(got) < len(data):
        await asyncio.sleep(0)
        got += os.read(pipe.read_fd, 65536)
    await writing
    assert got == data


async def test_output_that_nobody_reads_is_told(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends without a word then."""
    stdout = as_stdout(pipe, monkeypatch)
    os.close(pipe.read_fd)
    with pytest.raises(OutputClosedError):
        await stdout.write(b"x")


async def test_no_standard_output_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program started without one."""
    monkeypatch.setattr(sys, "stdout", None)
    await Stdout().write(b"x")
