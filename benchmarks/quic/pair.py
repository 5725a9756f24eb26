"""Two child processes of one contender, a server and a client that knows where it listens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import attrs

from benchmarks.quic.contender import CONTENDERS, Entry, Where, missing
from benchmarks.report import Options, Row
from tests.interop.peers.process import LineProcess, python_module


@attrs.frozen
class Pair:
    """A contender's two sides."""

    entry: Entry
    server: LineProcess
    client: LineProcess
    where: Where

    @property
    def row_name(self) -> str:
        """The name of its row."""
        return self.entry.title


@contextlib.asynccontextmanager
async def pair(entry: Entry) -> AsyncIterator[Pair]:
    """Start both sides and end them."""
    with contextlib.ExitStack() as stack:
        server, client = (
            stack.enter_context(LineProcess.start(python_module("benchmarks.quic.process", entry.name)))
            for _ in range(2)
        )
        reply = await server.call("listen")
        yield Pair(entry, server, client, reply["where"])


def choose(options: Options, entries: Sequence[Entry] = CONTENDERS) -> tuple[list[Entry], list[Row]]:
    """Return the contenders that can run, and a row for each, with the reason on those that can't."""
    chosen = [entry for entry in entries if entry.name not in options.without]
    rows = [Row(entry.title, absent=missing(entry)) for entry in chosen]
    return [entry for entry in chosen if missing(entry) is None], rows
