"""A plugin whose commands do what commands can do; also a program that runs `tom-connect` with it."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import sys
import time
from typing import Any

import attrs
import click

from tom_connect.cli.main import run
from tom_connect.cli.options import Invocation, Surroundings, tom_command
from tom_connect.config import option
from tom_connect.exceptions import DialError, KeyFileError
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry, InstalledPlugin, PluginCatalog

TOM_CONNECT_API = (1, 0)


@attrs.frozen
class Options:
    bootstrap: tuple[str, ...] = attrs.field(default=(), metadata=option("first nodes"))
    size: int = attrs.field(default=3, metadata=option("how much"))
    fast: bool = attrs.field(default=True, metadata=option("in a hurry"))
    hidden: str = attrs.field(default="x", metadata=option("not on the command line", cli=False))


def fail(kind: str) -> None:
    """Raise an error of this kind."""
    if kind == "dial":
        raise DialError("can't reach the node:\n  - dht: nothing found\n  - 192.0.2.1:5: no answer")
    if kind == "usage":
        raise click.UsageError("that can't be.")
    if kind == "keyfile":
        raise KeyFileError("others can read it")
    if kind == "os":
        raise FileNotFoundError(2, "No such file or directory", "x.txt")
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("second"), ExceptionGroup("inner", [DialError("first")])])
    if kind == "bug":
        raise ZeroDivisionError("division\nby zero")


@tom_command("act")
@click.argument("word")
@click.option("--fail", "kind", default="")
async def act(run: Invocation, word: str, kind: str) -> None:
    """Say a word and what the options are."""
    config = run.config.plugin_configs["test"]
    run.output.event(
        "said", f"word: {word}", word=word, size=config.size, bootstrap=config.bootstrap, bind=run.config.bind
    )
    run.output.note("a note")
    logging.getLogger("tom_connect.test").warning("careful\nnow")
    fail(kind)


@tom_command("hang", data_on_stdout=True)
@click.option("--how", default="")
async def hang(run: Invocation, how: str) -> None:
    """Never end by itself."""
    run.output.event("ready", "ready")
    try:
        if how == "thread":
            await asyncio.to_thread(time.sleep, 30)
        await asyncio.Event().wait()
    finally:
        if how == "stubborn":
            await asyncio.Event().wait()
        run.output.event("closed", "closed")
        if how == "error":
            raise ValueError("while closing")


@tom_command("talk")
async def talk(run: Invocation) -> None:
    """Talk for ever."""
    number = 0
    while True:
        run.output.event("number", str(number), number=number)
        number += 1
        await asyncio.sleep(0)


@click.command("plain")
def plain() -> None:
    """A click command that knows nothing of tom-connect, and breaks."""
    raise RuntimeError("plain trouble")


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `test.*`."""
    registry.register("test", Options)


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """The commands above."""
    for command in (act, hang, talk, plain):
        cli.add(command)


def surroundings(*more: InstalledPlugin, environ: dict[str, str] | None = None) -> Surroundings:
    """With this plugin installed, and others."""
    this: Any = sys.modules[__name__]
    installed = InstalledPlugin("test", "tom-test", "0.1", lambda: this)
    return Surroundings(environ=environ or {}, catalog=PluginCatalog(lambda: (installed, *more)))


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text("started")
    sys.exit(run(sys.argv[2:], surroundings()))
