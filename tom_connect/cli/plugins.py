"""`tom-connect plugins`: what is installed, and why any of it is not in use."""

from __future__ import annotations

import attrs
import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.plugins import SERVED_API


@tom_command("plugins")
@click.option("--stats", is_flag=True, help="Show how many nodes each discovery source has found so far.")
@click.option("--metrics", is_flag=True, help="The same in the text format of Prometheus, for a textfile collector.")
async def command(run: Invocation, stats: bool, metrics: bool) -> None:
    """Show the installed plugins, and why any is not in use.

    A blocked plugin is not imported, so its API version and hooks are not known. TOM_CONNECT_PLUGINS names the plugins
    that may be used, TOM_CONNECT_DISABLE_PLUGINS those that may not; both take names or patterns, separated by commas.
    What the first names and nobody has is shown as missing.
    """
    if stats or metrics:
        _show_statistics(run, metrics=metrics)
        return
    deprecations = run.host.deprecations(run.config.plugin_configs)
    rows = [attrs.asdict(info, recurse=False) for info in (*run.host.infos, *run.host.missing)]
    for row in rows:
        row["reason"] = row["reason"] or deprecations.get(row["name"], "")
    columns = ("name", "package", "version", "api", "hooks", "state", "reason")
    run.output.table("plugin", rows, columns, "No plugin is installed; 'pip install tom-connect[all]' brings them.")
    if rows:
        run.output.note(f"This core serves plugin API {SERVED_API}.")


def _show_statistics(run: Invocation, *, metrics: bool) -> None:
    from tom_connect.discovery import metrics_text, read_statistics

    directory = run.config.data_path()
    counts = read_statistics(directory) if directory is not None else {}
    if metrics:
        click.echo(metrics_text(counts), nl=False)
        return
    rows = [{"source": name, **attrs.asdict(counts[name])} for name in sorted(counts)]
    columns = ("source", "asked", "found", "first", "nothing", "failed")
    run.output.table("source", rows, columns, "No look-ups have been counted yet.")
