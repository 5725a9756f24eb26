"""`tom-connect signaling`: run a signaling server."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.config import OptionSpec
from tom_connect.config.schema import section_options
from tom_connect.exceptions import ConfigError
from tom_signaling_legacy.client.config import SECTION as CLIENT_SECTION
from tom_signaling_legacy.server.config import PORT_VARIABLE, SECTION, SignalingServerConfig, listen_by_port

F = TypeVar("F", bound=Callable[..., Any])


@click.group("signaling")
def signaling() -> None:
    """Host a legacy signaling server, for clients that are not yet found without one."""


def _flag(spec: OptionSpec) -> str:
    return "--" + spec.field.replace("_", "-")


def _parameter(spec: OptionSpec) -> str:
    return f"signaling_{spec.field}"


def _server_options(function: F) -> F:
    """An option for each field of the configuration, in its order."""
    for spec in reversed(section_options(SECTION, SignalingServerConfig)):
        text = spec.help[:1].upper() + spec.help[1:] + ("; repeatable" if spec.many else "") + "."
        function = click.option(
            _flag(spec), _parameter(spec), default=None, multiple=spec.many, type=click.UNPROCESSED, help=text
        )(function)
    return function


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
    for spec in section_options(SECTION, SignalingServerConfig):
        value = given.get(_parameter(spec))
        if value is None or value == ():
            continue
        try:
            fields[spec.field] = spec.from_value(value)
        except ConfigError as exc:
            raise ConfigError(f"{_flag(spec)}: {exc}") from None
    return attrs.evolve(base, **fields)


@tom_command("serve")
@click.option("--dev", is_flag=True, help="For development: 127.0.0.1:3001.")
@_server_options
async def serve(run: Invocation, dev: bool, **given: Any) -> None:
    """Run a signaling server until interrupted.

    It tells nodes of each other and passes their signals on, as ToM's first server did, over WebSocket at any path;
    GET /health answers {"ok":true}. Nobody is authenticated. Every option can also stand in the table
    [signaling_server] of the configuration file, or in TOM_CONNECT_SIGNALING_SERVER_*; PORT names the port alone.
    """
    from tom_signaling_legacy.server.server import SignalingServer

    base = run.config.plugin_configs.get(SECTION)
    base = base if isinstance(base, SignalingServerConfig) else SignalingServerConfig()
    is_default = run.loaded.entry(f"{SECTION}.listen").origin == "default"
    config = configured(base, given, dev=dev, is_default=is_default, port=os.environ.get(PORT_VARIABLE))
    deprecation = getattr(run.config.plugin_configs.get(CLIENT_SECTION), "deprecation", None)
    if deprecation is not None:
        run.output.note(f"Warning: {deprecation}")
        warnings.warn(deprecation, DeprecationWarning, stacklevel=1)
    async with SignalingServer(config) as server:
        addrs = [str(addr) for addr in server.addrs]
        run.output.event("serving", f"Signaling server {server.url} on {', '.join(addrs)}", url=server.url, addrs=addrs)
        await asyncio.Event().wait()


signaling.add_command(serve)
