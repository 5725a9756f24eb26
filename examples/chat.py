"""A chat of two.

    python examples/chat.py [NODE_ID] [--bootstrap HOST:PORT] [--allow-local]

Without a node id it waits for one other to come. Each line typed goes to the other; the end of input ends the chat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator

from tom_connect import BiStream, Endpoint, EndpointConfig, TomError
from tom_dht_mainline import DEFAULT_BOOTSTRAP
from tom_dht_mainline.config import DhtConfig

ALPN = "chat/1"


async def typed_lines() -> AsyncIterator[bytes]:
    """Lines of standard input. A thread waits for them, since no event loop can on every system."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: the chat is over
            for line in sys.stdin.buffer:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, b"")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        yield line


async def chat(stream: BiStream) -> None:
    """Pass lines both ways until both sides have ended theirs."""

    async def say() -> None:
        async for line in typed_lines():
            stream.write(line)
            await stream.drain()
        stream.finish()

    async def hear() -> None:
        while line := await stream.readline():
            print(f"> {line.decode(errors='replace').rstrip()}", flush=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(say())
        group.create_task(hear())


async def main() -> None:
    """Dial or wait, then chat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", help="node id or ticket of the other")
    parser.add_argument("--bootstrap", action="append", help="first node of the DHT, HOST:PORT")
    parser.add_argument("--allow-local", action="store_true", help="publish and dial local addresses too")
    options = parser.parse_args()

    config = EndpointConfig(
        alpns=(ALPN,),
        allow_local=options.allow_local,
        plugin_configs={"dht": DhtConfig(bootstrap=options.bootstrap or DEFAULT_BOOTSTRAP)},
    )
    async with Endpoint.bind(config) as endpoint:
        if options.target:
            connection = await endpoint.connect(options.target, ALPN)
            stream = await connection.open_bi()
            stream.write(b"\n")  # the other learns of a stream by its first bytes
        else:
            print(f"waiting; my node id is {endpoint.node_id}", flush=True)
            connection = await (await anext(endpoint.accept())).accept()
            stream = await connection.accept_bi()
            await stream.readline()
        print(f"in a chat with {connection.remote_node_id}", flush=True)
        await chat(stream)
        if options.target:
            await connection.close()
        else:
            await connection.closed()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* KeyboardInterrupt:
        pass
    except* TomError as group:
        sys.exit("; ".join(map(str, group.exceptions)))
