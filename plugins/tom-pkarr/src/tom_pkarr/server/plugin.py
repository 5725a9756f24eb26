"""The hooks by which tom-connect gets the Pkarr relay: its options and its command. Light: nothing is served here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry
from tom_pkarr.server import SECTION

if TYPE_CHECKING:
    from tom_pkarr.server.config import PkarrServerConfig

TOM_CONNECT_API = (1, 1)


def _options() -> type[PkarrServerConfig]:
    from tom_pkarr.server.config import PkarrServerConfig

    return PkarrServerConfig


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `pkarr_server.*`."""
    registry.register_for_commands(SECTION, _options)


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect pkarr`."""
    from tom_pkarr.server.cli import pkarr  # only the command line needs it

    cli.add(pkarr)
