"""`tom-connect plugins`: what is installed, and why any of it is not in use."""

from __future__ import annotations

import attrs

from tom_connect.cli.options import Invocation, tom_command


@tom_command("plugins")
async def command(run: Invocation) -> None:
    """Show the installed plugins, and why any is not in use.

    A blocked plugin is not imported, so its hooks are not known. TOM_CONNECT_PLUGINS names the plugins that may be
    used, TOM_CONNECT_DISABLE_PLUGINS those that may not; both take names or patterns, separated by commas. What the
    first names and nobody has is shown as missing.
    """
    rows = [attrs.asdict(info, recurse=False) for info in (*run.host.infos, *run.host.missing)]
    columns = ("name", "package", "version", "hooks", "state", "reason")
    run.output.table("plugin", rows, columns, "No plugin is installed; 'pip install tom-connect[all]' brings them.")
