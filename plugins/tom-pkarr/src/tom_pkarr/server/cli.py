"""`tom-connect pkarr`: run a Pkarr relay."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.serving.commands import ServerOptions
from tom_pkarr.server import SECTION
from tom_pkarr.server.config import PkarrServerConfig


@click.group("pkarr")
def pkarr() -> None:
    """Host a Pkarr relay: nodes publish their addresses to it, and others find them there."""


# `--bootstrap` is one of the options that all commands share.
OPTIONS = ServerOptions(SECTION, PkarrServerConfig, frozenset({"bootstrap"}))


def configured(
    base: PkarrServerConfig, given: Mapping[str, Any], *, dev: bool, is_default: Callable[[str], bool]
) -> PkarrServerConfig:
    """`base` (from file and environment) with what the command line gave; raises ConfigError naming the option.

    `dev`: bind to 127.0.0.1 alone and use no DHT, where neither is configured; `is_default`: whether a field is not.
    """
    local = PkarrServerConfig.dev()
    fields = {name: getattr(local, name) for name in ("listen", "dht") if dev and is_default(name)}
    return OPTIONS.configured(base, given, **fields)


@tom_command("serve")
@click.option("--dev", is_flag=True, help="For development: 127.0.0.1:6882, no DHT.")
@OPTIONS.add
async def serve(run: Invocation, dev: bool, **given: Any) -> None:
    """Run a Pkarr relay until interrupted.

    It keeps signed packets and gives them to whoever asks; with tom-dht-mainline installed it also looks in the
    Mainline DHT for what it misses and publishes there what it takes. Every option can also stand in the table
    [pkarr_server] of the configuration file, or in TOM_CONNECT_PKARR_SERVER_*.
    """
    from tom_pkarr.server.server import PkarrRelay

    config = configured(OPTIONS.base(run), given, dev=dev, is_default=functools.partial(OPTIONS.is_default, run))
    # The options of the DHT plugin, if there is one, name its first nodes.
    bootstrap = getattr(run.config.plugin_configs.get("dht"), "bootstrap", None)
    async with PkarrRelay(config, bootstrap=bootstrap) as relay:
        addrs = [str(addr) for addr in relay.addrs]
        dht = relay.dht is not None
        run.output.event(
            "serving",
            f"Pkarr relay {relay.url} on {', '.join(addrs)}, {'with' if dht else 'without'} the DHT behind it",
            url=relay.url,
            addrs=addrs,
            dht=dht,
        )
        if relay.dht_missing is not None:
            run.output.note(f"No DHT behind the relay: {relay.dht_missing}; --dht off says that none is wanted")
        if not dev:
            run.output.note(f"Plain HTTP on {', '.join(addrs)}; put a TLS proxy before it")
        await asyncio.Event().wait()


pkarr.add_command(serve)
