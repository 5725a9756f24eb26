"""`tom-connect signaling`: run a signaling server."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Mapping
from typing import Any

import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.serving.commands import ServerOptions
from tom_signaling_legacy.client.config import SECTION as CLIENT_SECTION
from tom_signaling_legacy.server import SECTION
from tom_signaling_legacy.server.config import PORT_VARIABLE, SignalingServerConfig, listen_by_port


@click.group("signaling")
def signaling() -> None:
    """Host a legacy signaling server, for clients that are not yet found without one."""


OPTIONS = ServerOptions(SECTION, SignalingServerConfig)


def configured(
    base: SignalingServerConfig, given: Mapping[str, Any], *, dev: bool, is_default: bool, port: str | None
) -> SignalingServerConfig:
    """`base` (from file and environment) with what the command line gave; raises ConfigError naming the option.

    `is_default`: whether neither file nor environment says where to listen; then `port`, the environment variable PORT,
    does, and `dev` before it.
    """
    fields: dict[str, Any] = {}
    if is_default and dev:
        fields["listen"] = SignalingServerConfig.dev().listen
    elif is_default and port:
        fields["listen"] = listen_by_port(port)
    return OPTIONS.configured(base, given, **fields)


@tom_command("serve")
@click.option("--dev", is_flag=True, help="For development: 127.0.0.1:3001.")
@OPTIONS.add
async def serve(run: Invocation, dev: bool, **given: Any) -> None:
    """Run a signaling server until interrupted.

    It tells nodes of each other and passes their signals on, as ToM's first server did, over WebSocket at any path;
    GET /health answers {"ok":true}. Nobody is authenticated. Every option can also stand in the table
    [signaling_server] of the configuration file, or in TOM_CONNECT_SIGNALING_SERVER_*; PORT names the port alone.
    """
    from tom_signaling_legacy.server.server import SignalingServer

    port, is_default = os.environ.get(PORT_VARIABLE), OPTIONS.is_default(run, "listen")
    config = configured(OPTIONS.base(run), given, dev=dev, is_default=is_default, port=port)
    deprecation = getattr(run.config.plugin_configs.get(CLIENT_SECTION), "deprecation", None)
    if deprecation is not None:
        run.output.note(f"Warning: {deprecation}")
        warnings.warn(deprecation, DeprecationWarning, stacklevel=1)
    async with SignalingServer(config) as server:
        addrs = [str(addr) for addr in server.addrs]
        run.output.event("serving", f"Signaling server {server.url} on {', '.join(addrs)}", url=server.url, addrs=addrs)
        await asyncio.Event().wait()


signaling.add_command(serve)
