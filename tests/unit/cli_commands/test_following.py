"""What the dialing commands print of a dial and of changes of path."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tests.unit.endpoint.wires import wires_to
from tom_connect import Endpoint, NodeAddr
from tom_connect.cli.node import Clock, Dialer
from tom_connect.cli.output import Output
from tom_connect.holepunch.events import PathSelected


class Invoked:
    """An invocation whose output is kept; beside it a dialer uses the configuration alone."""

    def __init__(self, *, as_json: bool) -> None:
        self.config = local_config(allow_local=False)
        self.out = io.StringIO()
        self.output = Output(json=as_json, stdout=self.out, stderr=self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_change_of_path_is_told(as_json: bool) -> None:
    """`resolved` and `connected` when dialing, `path` when the path in use is cut, with time, kind and address."""
    run = Invoked(as_json=as_json)
    async with (
        Endpoint.bind(local_config()) as server,
        Endpoint.bind(local_config(allow_local=False)) as client,
        wires_to(server.local_addrs[0], 2) as wires,
    ):
        accepting = asyncio.create_task(accept_one(server))
        dialer = Dialer(run, client, Clock())  # type: ignore[arg-type]
        connection = await dialer.dial(NodeAddr(server.node_id, (), [wire.addr for wire in wires]), ALPN)
        accepted = await accepting
        async with asyncio.timeout(20), dialer.following(connection):
            await asyncio.sleep(0)
            used = next(path.addr for path in connection.paths() if path.active)
            with connection.path_events() as events:  # after the dialer's own, which hears of each event first
                next(wire for wire in wires if wire.addr == used).cut = True
                stream = await connection.open_uni()
                stream.write(b"x")
                await (await accepted.accept_uni()).readexactly(1)
                now = await anext(e.path async for e in events if isinstance(e, PathSelected) and e.path != used)
            stream.finish()
    if not as_json:
        assert f"Now over direct path {now}" in run.out.getvalue()
        return
    resolved, connected, *changes = run.events
    assert (resolved["event"], resolved["source"]) == ("resolved", "caller")
    assert (connected["event"], connected["path"]) == ("connected", "direct")
    assert 0 <= resolved["at"] <= connected["at"]
    last = changes[-1]
    assert {change["event"] for change in changes} == {"path"}
    assert (last["path"], last["addr"]) == ("direct", str(now))
    assert last["at"] >= connected["at"]
    assert last["why"]
