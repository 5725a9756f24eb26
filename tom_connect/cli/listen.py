"""`tom-connect listen`: wait for connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from tom_connect.cli.options import Invocation, tom_command

if TYPE_CHECKING:
    from tom_connect.cli.node import Clock
    from tom_connect.cli.stdio import Stdin, Stdout
    from tom_connect.connection import Connection
    from tom_connect.incoming import Incoming

MAX_ECHOED = 256
"""Connections that are echoed at the same time; more are refused."""


@tom_command("listen", data_on_stdout="unless-json")
@click.option("--echo", is_flag=True, help="Send back what comes, to any number of nodes; standard input is not read.")
@click.option("--keep-open", "-k", is_flag=True, help="Wait for the next connection when one has ended.")
@click.option("--from", "senders", multiple=True, metavar="NODE_ID", help="Take connections of this node; repeatable.")
async def command(run: Invocation, echo: bool, keep_open: bool, senders: tuple[str, ...]) -> None:
    """Wait for connections and pipe them to standard input and output.

    The first node that runs `connect` is piped, further ones are refused meanwhile; when it has ended, so does this
    command, unless --keep-open. Pings are answered at any time. Messages go to standard error. With --json standard
    output holds events, and what is received is in `data` events, in base64. For --from the other side needs a name
    that stays: `connect --secret-key-file PATH`.
    """
    from tom_connect.cli.node import PING_ALPN, PIPE_ALPN, Clock, only_from, serve, told
    from tom_connect.cli.stdio import Stdin, Stdout
    from tom_connect.endpoint import Endpoint
    from tom_connect.keys import NodeId

    allowed = frozenset(map(NodeId.parse, senders))
    async with Endpoint.bind(run.endpoint_config(alpns=(PIPE_ALPN, PING_ALPN))) as endpoint:
        clock = Clock()
        async with told(run, endpoint, clock, doing="Listening", command="connect"):
            if echo:
                await serve(endpoint, only_from(allowed, _Echo(run, clock).handle))
                return
            piping = _Piping(run, clock, Stdin(), Stdout(), keep_open=keep_open)
            serving = asyncio.create_task(serve(endpoint, only_from(allowed, piping.handle)), name="serving")
            try:
                ended = asyncio.ensure_future(piping.ended)
                await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    serving.result()
                ended.result()
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


def _say_connected(run: Invocation, clock: Clock, connection: Connection) -> None:
    from tom_connect.cli.node import active_path

    path = active_path(connection)
    run.output.event(
        "connected",
        f"Connected: {connection.remote_node_id}" + (f", {path.kind} path {path.addr}" if path is not None else ""),
        node_id=connection.remote_node_id,
        at=clock.at,
        path=path.kind if path is not None else None,
        addr=path.addr if path is not None else None,
    )


class _Piping:
    """Pipes one connection at a time; `ended` has the outcome of the first, unless it is kept open."""

    def __init__(self, run: Invocation, clock: Clock, stdin: Stdin, stdout: Stdout, *, keep_open: bool) -> None:
        self._run = run
        self._clock = clock
        self._stdin = stdin
        self._stdout = stdout
        self._keep_open = keep_open
        self._is_busy = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handle(self, incoming: Incoming) -> None:
        from tom_connect.exceptions import TomError

        if self._is_busy or self.ended.done():
            incoming.refuse("busy with another connection")
            return
        self._is_busy = True
        try:
            await self._pipe(incoming)
        except TomError as exc:
            if self._keep_open:
                self._run.output.event("failed", f"The connection failed: {exc}", message=str(exc), at=self._clock.at)
            else:
                self.ended.set_exception(exc)
        else:
            if not self._keep_open:
                self.ended.set_result(None)
        finally:
            self._is_busy = False

    async def _pipe(self, incoming: Incoming) -> None:
        from tom_connect.cli.pipe import accept_pipe, pipe

        connection = await incoming.accept()
        async with connection:
            _say_connected(self._run, self._clock, connection)
            stream = await accept_pipe(connection)
            sent, received = await pipe(self._run, connection, stream, self._stdin, self._stdout)
        self._run.output.event(
            "summary",
            f"{sent} bytes sent, {received} received",
            sent=sent,
            received=received,
            at=self._clock.at,
        )


class _Echo:
    """Sends back what comes over every connection."""

    def __init__(self, run: Invocation, clock: Clock) -> None:
        self._run = run
        self._clock = clock
        self._count = 0

    async def handle(self, incoming: Incoming) -> None:
        from tom_connect.cli.pipe import accept_pipe
        from tom_connect.exceptions import TomError

        if self._count >= MAX_ECHOED:
            incoming.refuse("too many connections")
            return
        self._count += 1
        received = 0
        try:
            connection = await incoming.accept()
            async with connection:
                _say_connected(self._run, self._clock, connection)
                async with await accept_pipe(connection) as stream:
                    async for data in stream:
                        received += len(data)
                        stream.write(data)
                        await stream.drain()
        except TomError:
            pass  # connections end when the other side likes
        finally:
            self._count -= 1
        self._run.output.event(
            "closed",
            f"Gone: {incoming.remote_node_id}, {received} bytes echoed",
            node_id=incoming.remote_node_id,
            received=received,
            at=self._clock.at,
        )
