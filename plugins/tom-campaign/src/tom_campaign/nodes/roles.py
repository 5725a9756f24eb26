"""What a child process of a campaign is: a node, a private DHT, or a relay. Each ends when its input does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO

import attrs

from tom_campaign.core.control import Ask, Bind, error_line, hello_line, ok_line, parsed_request
from tom_campaign.core.errors import ControlError
from tom_campaign.nodes.configuring import endpoint_config
from tom_campaign.nodes.serving import serve_requests
from tom_campaign.nodes.worker import Tell, Worker, bound_with
from tom_connect import Endpoint, TomError


@attrs.define(eq=False)
class Pipes:
    """A child's two ends: lines come from its parent, lines go there."""

    reading: BinaryIO
    writing: BinaryIO

    def write(self, line: bytes) -> None:
        """Send a line; a parent that is gone is noticed by the end of its lines."""
        with contextlib.suppress(OSError):
            self.writing.write(line)
            self.writing.flush()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send an object."""
        self.write(json.dumps(message).encode() + b"\n")

    async def lines(self) -> AsyncIterator[bytes]:
        """What the parent says, until it closes or is gone."""
        # A thread, since not every system has pipes that an event loop can wait for.
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        def read() -> None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # closed meanwhile, or the loop is
                for line in self.reading:
                    loop.call_soon_threadsafe(queue.put_nowait, line.rstrip(b"\n"))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, None)

        threading.Thread(target=read, name="reading requests", daemon=True).start()
        while (line := await queue.get()) is not None:
            yield line


async def node(pipes: Pipes, options: Mapping[str, Any]) -> None:
    """A node: the first request binds it, and then it measures."""
    lines = pipes.lines()
    async for line in lines:
        number, ask = parsed_request(line)
        if not isinstance(ask, Bind):
            pipes.write(error_line(number, "the first request is to bind"))
            continue
        try:
            endpoint = await Endpoint.bind(bound_with(endpoint_config(ask.config)))
        except TomError as exc:
            pipes.write(error_line(number, str(exc)))
            continue
        async with endpoint:
            await _serve(pipes, lines, number, endpoint)
        return


async def _serve(pipes: Pipes, lines: AsyncIterator[bytes], number: int, endpoint: Endpoint) -> None:
    failed = [f"{p.name}: {p.reason}" for p in endpoint.plugins if p.state in ("failed", "broken", "missing")]
    if failed:
        pipes.write(error_line(number, f"a plugin can't be used: {'; '.join(failed)}"))
        return
    worker = Worker(endpoint)
    pipes.write(hello_line(worker.hello()))
    pipes.write(ok_line(number, {}))

    async def handle(ask: Ask, tell: Tell) -> Mapping[str, Any]:
        return await worker.answer(ask, tell)

    serving = asyncio.create_task(worker.serve_data(), name="being measured")
    try:
        await serve_requests(lines, pipes.write, handle)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await worker.aclose()


async def dht(pipes: Pipes, options: Mapping[str, Any]) -> None:
    """A private DHT: `nodes` of them, on `addresses` in turn."""
    from tom_campaign.networks.dht import PrivateDht

    async with PrivateDht(options["addresses"], options["nodes"], seed=options["seed"]) as net:
        pipes.say({"ready": {"bootstrap": net.bootstrap}})
        async for _line in pipes.lines():
            pass


async def relay(pipes: Pipes, options: Mapping[str, Any]) -> None:
    """A relay at `listen`, with STUN at `stun_listen` if that is given."""
    from tom_relay.server import RelayServer, RelayServerConfig

    more = {"stun_listen": (options["stun_listen"],)} if options.get("stun_listen") else {}
    async with RelayServer(RelayServerConfig.dev(listen=(options["listen"],), **more)) as server:
        pipes.say({"ready": {"url": str(server.url)}})
        async for _line in pipes.lines():
            pass


ROLES = {"node": node, "dht": dht, "relay": relay}
"""What a child can be."""


def run_role(role: str, options: Mapping[str, Any], reading: BinaryIO, writing: BinaryIO) -> None:
    """Be a child until the input ends; a failure is told in the last line."""
    pipes = Pipes(reading, writing)
    try:
        asyncio.run(ROLES[role](pipes, options))
    except (TomError, OSError, TimeoutError) as exc:
        pipes.say({"failed": f"{type(exc).__name__}: {exc}"})
    except ControlError as exc:
        pipes.say({"failed": str(exc)})


def main() -> None:
    """`python -m tom_campaign.nodes.roles ROLE OPTIONS`: one child by itself, where processes can't be forked."""
    import sys

    role, options = sys.argv[1:]
    run_role(role, json.loads(options), sys.stdin.buffer, sys.stdout.buffer)
    sys.stdout.flush()
    os._exit(0)  # the thread that reads may wait for a line that never comes


if __name__ == "__main__":
    main()
