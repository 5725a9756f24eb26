"""`tom-connect relay`: run a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.config import OptionSpec
from tom_connect.config.schema import section_options
from tom_connect.exceptions import ConfigError
from tom_relay.server.config import SECTION, RelayServerConfig

F = TypeVar("F", bound=Callable[..., Any])


def _flag(spec: OptionSpec) -> str:
    return "--" + spec.field.replace("_", "-")


def _parameter(spec: OptionSpec) -> str:
    return f"relay_{spec.field}"


def _server_options(function: F) -> F:
    """An option for each field of the configuration, in its order."""
    for spec in reversed(section_options(SECTION, RelayServerConfig)):
        shown = spec.help + (f"; one of {', '.join(spec.type.words)}" if spec.type.words else "")
        text = shown[:1].upper() + shown[1:] + ("; repeatable" if spec.many else "") + "."
        function = click.option(
            _flag(spec), _parameter(spec), default=None, multiple=spec.many, type=click.UNPROCESSED, help=text
        )(function)
    return function


def configured(
    base: RelayServerConfig, given: Mapping[str, Any], *, dev: bool, is_default: Callable[[str], bool]
) -> RelayServerConfig:
    """`base` (from file and environment) with what the command line gave; raises ConfigError naming the option.

    `dev`: bind to 127.0.0.1 alone and serve no UDP, where neither is configured; `is_default`: whether a field is not.
    """
    fields: dict[str, Any] = {}
    if dev:
        local = RelayServerConfig.dev()
        fields = {name: getattr(local, name) for name in ("listen", "qad_listen", "stun_listen") if is_default(name)}
    for spec in section_options(SECTION, RelayServerConfig):
        value = given.get(_parameter(spec))
        if value is None or value == ():
            continue
        try:
            fields[spec.field] = spec.from_value(value)
        except ConfigError as exc:
            raise ConfigError(f"{_flag(spec)}: {exc}") from None
    return attrs.evolve(base, **fields)


@tom_command("relay")
@click.option("--announce", is_flag=True, help="Also serve by QUIC as a node, and let nodes find us through the DHT.")
@click.option("--dev", is_flag=True, help="For development: plain HTTP on 127.0.0.1:3340, no UDP.")
@_server_options
async def relay(run: Invocation, dev: bool, announce: bool, **given: Any) -> None:
    """Run a relay until interrupted.

    Nodes that can't reach each other directly talk through it, iroh's too; it sees only encrypted datagrams. Every
    option can also stand in the table [relay_server] of the configuration file, or in TOM_CONNECT_RELAY_SERVER_*.

    With --announce the relay is a node as well (its key: --secret-key-file, its UDP port: --bind) that nodes without a
    relay find through the DHT and reach by QUIC, within the limits of [relay_for_others].
    """
    from tom_relay.server.server import RelayServer

    base = run.config.plugin_configs.get(SECTION)
    base = base if isinstance(base, RelayServerConfig) else RelayServerConfig()

    def is_default(name: str) -> bool:
        return run.loaded.entry(f"{SECTION}.{name}").origin == "default"

    config = configured(base, given, dev=dev, is_default=is_default)
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
        if not announce:
            await asyncio.Event().wait()
        from tom_relay.volunteer.announced import keep_announced

        await keep_announced(run, server)
