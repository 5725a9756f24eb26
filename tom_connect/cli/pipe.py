"""What `listen` and `connect` do with a stream: standard input into it, what comes out of it to standard output.

The protocol `tom-pipe/1`: the dialing side opens one bidirectional stream and writes one zero byte, so that the other
side learns of it; after that byte each direction is the bytes that were piped in, to its end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib

from tom_connect.cli.options import Invocation
from tom_connect.cli.stdio import Stdin, Stdout
from tom_connect.connection import Connection
from tom_connect.exceptions import ProtocolError, StreamStoppedError
from tom_connect.streams import BiStream

GREETING = b"\0"
GREETING_LIMIT = 15.0
"""Seconds that a node which has connected may take to open its stream: it does so at once."""


async def open_pipe(connection: Connection) -> BiStream:
    """The stream of the dialing side."""
    stream = await connection.open_bi()
    stream.write(GREETING)
    return stream


async def accept_pipe(connection: Connection) -> BiStream:
    """The stream of the listening side; raises ProtocolError if the other side opens none or another."""
    try:
        async with asyncio.timeout(GREETING_LIMIT):
            stream = await connection.accept_bi()
            greeting = await stream.read(len(GREETING))
    except TimeoutError:
        raise ProtocolError(f"the node opened no stream within {GREETING_LIMIT:g} s") from None
    if greeting != GREETING:
        raise ProtocolError("the node does not speak the protocol of pipes")
    return stream


async def pipe(
    run: Invocation, connection: Connection, stream: BiStream, stdin: Stdin, stdout: Stdout
) -> tuple[int, int]:
    """Pipe until both directions have ended; returns the bytes sent and received.

    When the other side has ended its direction, and has closed the connection or a person types at our side, that is
    the end too: nobody reads on. With `--json` standard output belongs to events, so received bytes become `data`
    events, in base64.
    """
    sent = received = 0

    async def forth() -> None:
        nonlocal sent
        # The other side may stop to read, and still send.
        with contextlib.suppress(StreamStoppedError):
            while data := await stdin.read():
                stream.write(data)
                await stream.drain()
                sent += len(data)
        stream.finish()

    async def back() -> None:
        nonlocal received
        async for data in stream:
            received += len(data)
            if run.output.json:
                run.output.event("data", data=base64.b64encode(data).decode())
            else:
                await stdout.write(data)

    sending = asyncio.create_task(forth(), name="standard input")
    receiving = asyncio.create_task(back(), name="standard output")
    closed = asyncio.create_task(connection.closed(), name="the end of the connection")
    tasks = (sending, receiving, closed)
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        await receiving
        if not stdin.is_terminal:
            await asyncio.wait((sending, closed), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        stream.finish()
        return sent, received
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
