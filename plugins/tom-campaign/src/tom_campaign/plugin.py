"""The hook by which tom-connect gets `campaign`."""

from __future__ import annotations

from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect campaign`."""
    from tom_campaign.cli import campaign  # only the command line needs it

    cli.add(campaign)
