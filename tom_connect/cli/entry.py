"""The entry point `tom-connect`: small, so that Ctrl-C is silent from the first moment, while all else is imported."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process."""
    # Nothing is open before a command runs, and that has a handler of its own. Where a shell has SIGINT ignored for a
    # background job, it stays ignored until then.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(EXIT_INTERRUPTED))
    from tom_connect.cli.main import main as run

    run()
