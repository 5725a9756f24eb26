"""The child that looks nodes up by an endpoint, times inside: `python -m benchmarks.resolve.asking_process OPTIONS`."""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys
import time
from typing import Any

from tests.interop.peers.lines import serve
from tom_connect.config import EndpointConfig
from tom_connect.endpoint import Endpoint
from tom_connect.keys import NodeId
from tom_dht_mainline.config import DhtConfig
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.dns.config import DnsConfig
from tom_signaling_legacy.client.config import SignalingConfig

CLASSES: dict[str, Any] = {"dht": DhtConfig, "pkarr": PkarrConfig, "dns": DnsConfig, "signaling": SignalingConfig}
PATIENCE = 20.0
"""Seconds for one look-up."""


def config_of(options: dict[str, Any]) -> EndpointConfig:
    """The configuration of an endpoint that uses these sources; "file" is the path of a file of nodes."""
    file = options.pop("file", None)
    return EndpointConfig(
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        watch_network=False,
        nodes_file=None if file is None else pathlib.Path(file),
        plugins=tuple(options) or ("none",),
        plugin_configs={section: CLASSES[section](**given) for section, given in options.items()},
    )


async def main(options: dict[str, Any]) -> None:
    """Look "first" up as soon as the endpoint is bound, say how long it took, then answer until stdin ends."""
    first = options.pop("first")
    async with Endpoint.bind(config_of(options)) as endpoint:

        async def look_up(key: str, place: str) -> dict[str, Any]:
            """Look a node up until its right address is known, as a dial does that then connects."""
            start = time.perf_counter()
            async with asyncio.timeout(PATIENCE), endpoint.look_up(NodeId.parse(key)) as lookup:
                async for found in lookup:
                    if place in map(str, found.addr.direct_addrs):
                        return {"ms": (time.perf_counter() - start) * 1000}
            raise RuntimeError("; ".join(map(str, lookup.outcomes)))

        await serve({"look_up": look_up}, **await look_up(*first))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
