"""Two child processes of one contender, a server and a client that knows where it listens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

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

    async def upload(self, size: int) -> dict[str, float]:
        """Upload from client to server; return MB a second, and seconds of CPU time a GB on both sides together.

        The second figure is the steadier one on a machine that others use too.
        """
        before = await self._busy()
        reply = await self.client.call("upload", size=size, timeout=600)
        cpu = await self._busy() - before
        return {"mb_s": reply["bytes"] / reply["seconds"] / 1e6, "cpu_s_gb": cpu * 1e9 / reply["bytes"]}

    async def _busy(self) -> float:
        return sum([float((await side.call("busy"))["cpu"]) for side in (self.server, self.client)])


@contextlib.asynccontextmanager
async def pair(entry: Entry, **server_options: Any) -> AsyncIterator[Pair]:
    """Start both sides, the server with options that its contender knows, and end them."""
    with contextlib.ExitStack() as stack:
        server, client = (
            stack.enter_context(
                LineProcess.start(python_module("benchmarks.quic.process", entry.name, json.dumps(options)))
            )
            for options in (server_options, {})
        )
        reply = await server.call("listen")
        yield Pair(entry, server, client, reply["where"])


def choose(options: Options, entries: Sequence[Entry] = CONTENDERS) -> tuple[list[Entry], list[Row]]:
    """Return the contenders that can run, and a row for each, with the reason on those that can't."""
    chosen = [entry for entry in entries if entry.name not in options.without]
    rows = [Row(entry.title, absent=missing(entry)) for entry in chosen]
    return [entry for entry in chosen if missing(entry) is None], rows
