"""Run as a file, with all plugins installed: the servers that the matrix dials by, until standard input ends.

Prints one line of JSON: `dht` (HOST:PORT of nodes), `pkarr`, `relay` and `signaling` (URLs).
"""

from __future__ import annotations

import asyncio
import json
import sys

from tom_dht_mainline.testing import Testnet
from tom_pkarr.server import PkarrRelay, PkarrServerConfig
from tom_relay.server import RelayServer, RelayServerConfig
from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig

HERE = ("127.0.0.1:0",)


async def main() -> None:
    async with (
        Testnet(8) as net,
        PkarrRelay(PkarrServerConfig(listen=HERE, dht="off")) as pkarr,
        RelayServer(RelayServerConfig.dev(listen=HERE)) as relay,
        SignalingServer(SignalingServerConfig.dev(listen=HERE)) as signaling,
    ):
        told = {"dht": net.bootstrap, "pkarr": [pkarr.url], "relay": [str(relay.url)], "signaling": [signaling.url]}
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
