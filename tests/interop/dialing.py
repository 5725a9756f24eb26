"""An endpoint of ours that dials, for tests of callees that have no QUIC: the dial itself comes to nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tom_connect import Endpoint, EndpointConfig, NetworkError, NodeId, SecretKey
from tom_dht_mainline.config import DhtConfig

#: Seconds for each step, on a machine that is busy with other things.
PATIENCE = 30.0


@contextlib.asynccontextmanager
async def dialing(
    bootstrap: Sequence[str], node_id: bytes, key: SecretKey | None = None, **dht: Any
) -> AsyncIterator[Endpoint]:
    """Dial a node by its id alone, through the DHT alone, for as long as this lasts."""
    config = EndpointConfig(
        alpns=("meet/1",),
        bind=("127.0.0.1:0",),
        secret_key=key,
        allow_local=True,
        persist=False,
        dht_only=True,
        plugins=("dht",),
        plugin_configs={"dht": DhtConfig(bootstrap=tuple(bootstrap), ipv6=False, **dht)},
    )
    async with Endpoint.bind(config) as endpoint:
        dial = asyncio.create_task(endpoint.connect(NodeId(node_id), "meet/1", timeout=PATIENCE))
        try:
            yield endpoint
        finally:
            dial.cancel()
            with contextlib.suppress(asyncio.CancelledError, NetworkError):
                await dial
