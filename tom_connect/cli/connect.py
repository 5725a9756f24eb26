"""`tom-connect connect`: a pipe to a node."""

from __future__ import annotations

import click

from tom_connect.cli.options import Invocation, tom_command


@tom_command("connect", data_on_stdout="unless-json")
@click.argument("node")
async def command(run: Invocation, node: str) -> None:
    """Connect to NODE, which runs `listen`, and pipe standard input and output.

    NODE is a node id or a ticket. What is typed or piped in goes there, what comes back is written to standard output;
    messages go to standard error. Ends when both directions have ended. With --json standard output holds events, and
    what comes back is in `data` events, in base64.
    """
    from tom_connect.cli.node import PIPE_ALPN, Clock, Dialer
    from tom_connect.cli.pipe import open_pipe, pipe
    from tom_connect.cli.stdio import Stdin, Stdout
    from tom_connect.endpoint import Endpoint
    from tom_connect.tickets import parse_target

    target = parse_target(node)
    async with Endpoint.bind(run.endpoint_config(identity="fresh")) as endpoint:
        clock = Clock()
        dialer = Dialer(run, endpoint, clock)
        connection = await dialer.dial(target, PIPE_ALPN)
        async with dialer.following(connection):
            stream = await open_pipe(connection)
            sent, received = await pipe(run, connection, stream, Stdin(), Stdout())
        run.output.event(
            "summary", f"{sent} bytes sent, {received} received", sent=sent, received=received, at=clock.at
        )
