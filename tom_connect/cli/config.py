"""`tom-connect config`: what is in effect, and why."""

from __future__ import annotations

from tom_connect.cli.options import Invocation, tom_command


@tom_command("config")
async def command(run: Invocation) -> None:
    """Show the configuration in effect, and where each value comes from.

    Options override environment variables, these override the configuration file, and that the defaults.
    """
    rows = [
        {"name": entry.name, "value": entry.value, "origin": entry.origin, "variable": entry.env, "option": entry.flag}
        for entry in run.loaded.entries
    ]
    run.output.table("option", rows, ("name", "value", "origin", "variable", "option"), "There are no options.")
