"""The hooks by which tom-connect gets the relay server: its options and its command. Light: nothing is served here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry
from tom_relay.server import SECTION

if TYPE_CHECKING:
    from tom_relay.server.config import RelayServerConfig

TOM_CONNECT_API = (1, 1)


def _options() -> type[RelayServerConfig]:
    from tom_relay.server.config import RelayServerConfig

    return RelayServerConfig


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `relay_server.*`."""
    registry.register_for_commands(SECTION, _options)


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect relay`."""
    from tom_relay.server.cli import relay  # only the command line needs it

    cli.add(relay)
