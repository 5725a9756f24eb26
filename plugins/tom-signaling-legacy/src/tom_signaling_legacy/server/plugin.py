"""The hooks by which tom-connect gets the signaling server: its options and its command. Light: it serves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry
from tom_signaling_legacy.server import SECTION

if TYPE_CHECKING:
    from tom_signaling_legacy.server.config import SignalingServerConfig

TOM_CONNECT_API = (1, 1)


def _options() -> type[SignalingServerConfig]:
    from tom_signaling_legacy.server.config import SignalingServerConfig

    return SignalingServerConfig


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `signaling_server.*`."""
    registry.register_for_commands(SECTION, _options)


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect signaling`."""
    from tom_signaling_legacy.server.cli import signaling  # only the command line needs it

    cli.add(signaling)
