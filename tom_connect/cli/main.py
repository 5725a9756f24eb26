"""The group of all commands; each is imported only when it is run."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from tom_connect.cli.options import Surroundings, shared_options
from tom_connect.cli.output import Output
from tom_connect.cli.run import finish

COMMANDS = {
    "demo": "See two nodes find each other by NodeId alone, connect, and transfer a verified file.",
    "id": "Show our NodeId; make the secret key on first use.",
    "listen": "Wait for connections and pipe them to standard input and output.",
    "connect": "Connect to a node and pipe standard input and output.",
    "ping": "Measure the round trip to a node.",
    "resolve": "Show where a node is, and which source says so.",
    "send": "Send a file or folder to a node.",
    "receive": "Receive files and folders.",
    "doctor": "Examine the network: what works, what doesn't, and what to do.",
    "config": "Show the configuration in effect, and where each value comes from.",
    "plugins": "Show the installed plugins, and why any is not in use.",
}
"""The core's own commands: module `tom_connect.cli.NAME` holds the click command `command`."""

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."


class TomGroup(click.Group):
    """Finds commands in the table above and among those of plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The core's commands, then those of plugins by name."""
        return [*COMMANDS, *sorted(self._of_plugins(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command of the core, or take one of a plugin; only the latter loads plugins."""
        if cmd_name in COMMANDS:
            command = importlib.import_module(f"tom_connect.cli.{cmd_name}").command
            assert isinstance(command, click.Command)
            return command
        return self._of_plugins(ctx).get(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say where the options that all commands share belong."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            name = exc.option_name
            if not any(name in (*option.opts, *option.secondary_opts) for option in shared_options()):
                raise
            message = f"No such option before the command: {name}; put it after: tom-connect COMMAND {name}"
            raise click.NoSuchOption(name, message=message, ctx=exc.ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what is near to a command that does not exist."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            ctx.fail(f"No such command {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands without importing those of the core."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        added = self._of_plugins(ctx)
        if added:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, added[name].get_short_help_str(80)) for name in sorted(added)])

    def _of_plugins(self, ctx: click.Context) -> dict[str, click.Command]:
        added = ctx.ensure_object(Surroundings).host().commands(reserved=COMMANDS)
        return {name: command for name, (_plugin, command) in added.items()}


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        import importlib_metadata

        try:
            version = importlib_metadata.version("tom-connect")
        except importlib_metadata.PackageNotFoundError:
            version = "(version unknown: run from its source without being installed)"
        click.echo(f"tom-connect {version}")
        ctx.exit()


@click.group(
    cls=TomGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Dial a node by its key: found through the Mainline DHT, connected by QUIC."""


def run(args: Sequence[str], surroundings: Surroundings | None = None) -> int:
    """Run a command line, without the program's name; returns the exit code and never raises."""
    surroundings = surroundings or Surroundings()
    surroundings.data_on_stdout = False
    before_dashes = list(args)[: list(args).index("--")] if "--" in args else list(args)

    def invoke() -> Any:
        if not args:
            raise click.UsageError("No command given; see tom-connect --help")
        return cli.main(list(args), prog_name="tom-connect", standalone_mode=False, obj=surroundings)

    with _quiet_logging():
        return finish(
            invoke,
            lambda: Output(json="--json" in before_dashes, data_on_stdout=surroundings.data_on_stdout),
            is_debug=lambda: _says_debug(before_dashes),
        )


def _says_debug(args: Sequence[str]) -> bool:
    said = " ".join(args).replace("--log-level=", "--log-level ")
    return "--log-level debug" in said.lower() or os.environ.get("TOM_CONNECT_LOG_LEVEL", "").lower() == "debug"


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    """Print no log record before a command has said which ones are wanted."""
    handler = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def main() -> NoReturn:
    """The entry point `tom-connect`."""
    # A program without a console, or started with a closed descriptor, has None here.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows question marks, not an error
    sys.exit(run(sys.argv[1:]))
