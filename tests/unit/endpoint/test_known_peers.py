"""The records by which peers were reached, kept by an endpoint and used by the next one in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import DiscoveryError, Endpoint, NodeId, SecretKey
from tom_connect.abc import Discovery, FoundAddr, PluginContext
from tom_connect.discovery import known
from tom_connect.hookspecs import hookimpl
from tom_connect.record import SignedRecord, sign_record


class Names(Discovery):
    """Knows one node's record."""

    name = "names"

    def __init__(self) -> None:
        self.record: SignedRecord | None = None

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        return self

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        if self.record is not None and self.record.node_id == node_id:
            yield FoundAddr(self.record.addr, self.name, self.record.timestamp_us, self.record)


@pytest.mark.parametrize("end", ["closed", "crashed"])
async def test_a_peer_that_was_reached_is_dialed_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """No source knows it any more; its last record does, also where the first endpoint was never closed."""
    monkeypatch.setattr(known, "SAVE_AFTER", 0.05)
    names, key = Names(), SecretKey.generate()
    keeping = {"persist": True, "data_dir": tmp_path}
    async with Endpoint.bind(local_config(secret_key=key)) as listener:
        names.record = sign_record(key, listener.node_addr(), int(time.time() * 1e6))
        first = await Endpoint.bind(local_config(extra_plugins=(("names", names),), **keeping))
        async with asyncio.timeout(30):
            accepting = asyncio.create_task(accept_one(listener))
            connection = await first.connect(listener.node_id, ALPN)
            await accepting
            await connection.close()
            if end == "closed":
                await first.close()
            while not (tmp_path / known.FILE).exists():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            async with Endpoint.bind(local_config(**keeping)) as again:
                accepting = asyncio.create_task(accept_one(listener))
                await (await again.connect(listener.node_id, ALPN)).close()
                await accepting
            async with Endpoint.bind(local_config()) as other:
                with pytest.raises(DiscoveryError):
                    await other.connect(listener.node_id, ALPN)
        await first.close()
