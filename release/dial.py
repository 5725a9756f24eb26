"""Run in a fresh environment, as a file: two nodes find each other in a DHT and at a Pkarr relay of their own."""

from __future__ import annotations

import asyncio

from tom_connect import Endpoint, EndpointConfig
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.testing import Testnet
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.server import PkarrRelay, PkarrServerConfig

ALPN = "release/1"


async def meet(plugin: str, options: object) -> None:
    """Dial by NodeId, with one plugin that finds nodes."""
    config = EndpointConfig(
        alpns=(ALPN,),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=(plugin,),
        plugin_configs={plugin: options},
    )
    async with asyncio.timeout(60), Endpoint.bind(config) as a, Endpoint.bind(config) as b:
        await a.watch_published().other_than(())
        dialing = asyncio.create_task(b.connect(a.node_id, ALPN, timeout=60))
        await (await anext(a.accept())).accept()
        assert (await dialing).remote_node_id == a.node_id
        assert [name for name, count in b.discovery_counts().items() if count.first] == [plugin]


async def main() -> None:
    """Have two nodes meet twice."""
    serving = PkarrServerConfig(listen=("127.0.0.1:0",), dht="off")
    async with Testnet(8) as net, PkarrRelay(serving) as relay:
        await meet("dht", DhtConfig(bootstrap=net.bootstrap, host="127.0.0.1", ipv6=False))
        await meet("pkarr", PkarrConfig(relays=(relay.url,), timeout=20.0))
    print("dialed by dht and pkarr")


if __name__ == "__main__":
    asyncio.run(main())
