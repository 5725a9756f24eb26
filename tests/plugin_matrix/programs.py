"""Programs that are run in an environment to see that what is installed works together."""

from __future__ import annotations

DIAL = """
import asyncio
from tom_connect import Endpoint, EndpointConfig

async def main():
    config = EndpointConfig(alpns=("smoke/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False)
    async with Endpoint.bind(config) as a, Endpoint.bind(config) as b:
        async def serve():
            async for incoming in a.accept():
                stream = await (await incoming.accept()).accept_bi()
                stream.write((await stream.read())[::-1])
                stream.finish()
                return
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(serve())
            connection = await b.connect(a.node_addr(), "smoke/1")
            stream = await connection.open_bi()
            stream.write(b"smoke")
            stream.finish()
            print((await stream.read()).decode(), sorted((i.name, str(i.state)) for i in b.plugins))

asyncio.run(main())
"""

MEET = """
async def meet(a, b, where):
    async def serve():
        async for incoming in a.accept():
            stream = await (await incoming.accept()).accept_bi()
            stream.write((await stream.read())[::-1])
            stream.finish()
            return
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(serve())
        connection = await b.connect(where, "smoke/1", timeout=30)
        stream = await connection.open_bi()
        stream.write(b"smoke")
        stream.finish()
        kinds = sorted({path.kind for path in connection.paths()})
        print((await stream.read()).decode(), kinds, sorted((i.name, str(i.state)) for i in b.plugins))
"""

RELAYED = (
    """
import asyncio
from tom_connect import Endpoint, EndpointConfig, NodeAddr
from tom_relay.server import RelayServer, RelayServerConfig

async def main():
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay:
        config = EndpointConfig(alpns=("smoke/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False,
                                relay=(relay.url,), direct=False)
        async with Endpoint.bind(config) as a, Endpoint.bind(config) as b:
            async with asyncio.timeout(60):
                async for addr in a.watch_addr():
                    if addr.relay_urls:
                        break
            await meet(a, b, NodeAddr(a.node_id, addr.relay_urls))
        assert relay.hub.counters.relayed.packets > 0
"""
    + MEET
    + "asyncio.run(main())"
)
"""Two nodes that take no direct packets meet at a relay."""

FOUND_AND_RELAYED = (
    """
import asyncio
from tom_connect import Endpoint, EndpointConfig
from tom_dht_mainline.config import DhtConfig
from tom_relay.server import RelayServer, RelayServerConfig

def config(*bootstrap, **options):
    dht = DhtConfig(bootstrap=bootstrap, server="on")
    return EndpointConfig(alpns=("smoke/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False,
                          plugin_configs={"dht": dht}, **options)

async def main():
    async with (
        RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay,
        Endpoint.bind(config("none")) as node,
    ):
        known = [str(addr) for addr in node.node_addr().direct_addrs]
        relayed = config(*known, relay=(relay.url,), direct=False)
        async with Endpoint.bind(relayed) as a, Endpoint.bind(relayed) as b:
            async with asyncio.timeout(60):
                async for addr in a.watch_addr():
                    if addr.relay_urls:
                        break
                await a.watch_published().other_than(())
            await meet(a, b, a.node_id)
"""
    + MEET
    + "asyncio.run(main())"
)
"""A node finds another in a DHT of their own, where that has told its relay, and meets it there."""
