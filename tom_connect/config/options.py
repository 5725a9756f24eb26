"""How one option is described: metadata of an attrs field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HELP = "help"
CLI = "cli"
PROGRAM_ONLY = "program_only"


def option(
    help: str,  # noqa: A002 - the word that option parsers use
    *,
    cli: bool = True,
    program_only: bool = False,
) -> Mapping[str, Any]:
    """Describe an option: `bootstrap: tuple[str, ...] = attrs.field(default=(), metadata=option("first nodes"))`.

    `help` is one line without a full stop; `cli=False` keeps it off the command line; `program_only=True` keeps it
    out of files and environment too. `metadata={"help": "..."}` does as well.
    """
    return {HELP: help, CLI: cli and not program_only, PROGRAM_ONLY: program_only}
