"""`tom-connect relay`: run a relay."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.serving.commands import ServerOptions
from tom_relay.server import SECTION
from tom_relay.server.config import RelayServerConfig

OPTIONS = ServerOptions(SECTION, RelayServerConfig)


def configured(
    base: RelayServerConfig, given: Mapping[str, Any], *, dev: bool, is_default: Callable[[str], bool]
) -> RelayServerConfig:
    """`base` (from file and environment) with what the command line gave; raises ConfigError naming the option.

    `dev`: bind to 127.0.0.1 alone and serve no UDP, where neither is configured; `is_default`: whether a field is not.
    """
    local = RelayServerConfig.dev()
    names = ("listen", "qad_listen", "stun_listen")
    fields = {name: getattr(local, name) for name in names if dev and is_default(name)}
    return OPTIONS.configured(base, given, **fields)


@tom_command("relay")
@click.option("--announce", is_flag=True, help="Also serve by QUIC as a node, and let nodes find us through the DHT.")
@click.option("--dev", is_flag=True, help="For development: plain HTTP on 127.0.0.1:3340, no UDP.")
@OPTIONS.add
async def relay(run: Invocation, dev: bool, announce: bool, **given: Any) -> None:
    """Run a relay until interrupted.

    Nodes that can't reach each other directly talk through it, iroh's too; it sees only encrypted datagrams. Every
    option can also stand in the table [relay_server] of the configuration file, or in TOM_CONNECT_RELAY_SERVER_*.

    With --announce the relay is a node as well (its key: --secret-key-file, its UDP port: --bind) that nodes without a
    relay find through the DHT and reach by QUIC, within the limits of [relay_for_others].
    """
    from tom_relay.server.server import RelayServer
    from tom_relay.volunteer.announced import keep_announced, limits_of

    limits = limits_of(run) if announce else None  # before anybody is served
    config = configured(OPTIONS.base(run), given, dev=dev, is_default=functools.partial(OPTIONS.is_default, run))
    async with RelayServer(config) as server:
        addrs = [str(addr) for addr in server.addrs]
        run.output.event(
            "serving", f"relay {server.url} on {', '.join(addrs)}", url=server.url, addrs=addrs, udp=server.udp_addrs
        )
        if not dev and config.tls_cert is None:
            run.output.note(
                f"Plain HTTP on {', '.join(addrs)}, open to all who reach it; give --tls-cert and --tls-key, "
                "put a TLS proxy before it, or use --dev for this machine alone"
            )
        if limits is None:
            await asyncio.Event().wait()
        else:
            await keep_announced(run, server, limits)
