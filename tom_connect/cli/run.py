"""How a command ends: exit codes, one line for each error, and Ctrl-C within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import click

from tom_connect.cli.output import Output, OutputClosedError, discard_stdout, one_line
from tom_connect.exceptions import InvalidInputError, KeyFileError, TomError

T = TypeVar("T")

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_NAMES_OF_TYPES = {"a valid float range": "a number", "a valid integer range": "a whole number"}
"""What click calls the values that it expects, and what people call them."""
CLOSE_LIMIT = 0.9
"""Seconds from Ctrl-C to the end of the process, whatever hangs: people expect one second."""


class CommandInterrupted(BaseException):
    """A signal ended the command. Not a KeyboardInterrupt, for which click prints an empty line."""


def run_async(body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in an event loop of its own.

    SIGINT, SIGTERM and SIGHUP cancel it, so that its `async with` blocks close what they opened; CommandInterrupted is
    raised then. What is not closed CLOSE_LIMIT seconds later, or at a second signal, ends with the process.
    """
    # With a factory, the caller's current event loop stays what it is.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        interrupted = threading.Event()
        task: asyncio.Task[T] | None = None

        def on_signal(_signum: int, _frame: object) -> None:
            if interrupted.is_set():
                os._exit(EXIT_INTERRUPTED)
            interrupted.set()
            overdue = threading.Timer(CLOSE_LIMIT, os._exit, (EXIT_INTERRUPTED,))
            overdue.daemon = True  # it must not itself keep the process alive
            overdue.start()
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

        async def supervised() -> T:
            nonlocal task
            task = asyncio.current_task()
            if interrupted.is_set():
                raise asyncio.CancelledError
            return await body()

        with _handled_signals(on_signal):
            try:
                result = runner.run(supervised())
            except BaseException as exc:
                if interrupted.is_set() and not isinstance(exc, OutputClosedError):
                    raise CommandInterrupted from exc
                raise
            if interrupted.is_set():
                raise CommandInterrupted
            return result


@contextlib.contextmanager
def _handled_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM, also where a shell started us in the background with SIGINT ignored, and SIGHUP.

    SIGHUP, which a terminal sends when it is closed, stays ignored where it is: so `nohup` wants it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)


def finish(run: Callable[[], Any], output: Callable[[], Output], *, is_debug: Callable[[], bool]) -> int:
    """Call `run` and return the exit code; report what it raises in one line, never as a traceback unless debugging."""
    try:
        try:
            run()
            return EXIT_DONE
        except BaseException as exc:  # every way out of the program is decided here
            if is_debug() and not isinstance(
                exc, (CommandInterrupted, KeyboardInterrupt, SystemExit, OutputClosedError)
            ):
                traceback.print_exception(exc, file=sys.stderr)
            return _report(cause_of(exc), output)
    except (OutputClosedError, OSError):  # nobody reads, or nothing can be written
        return EXIT_FAILED
    finally:
        discard_stdout()


def _report(exc: BaseException, output: Callable[[], Output]) -> int:
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    if isinstance(exc, click.exceptions.Exit):
        return exc.exit_code
    if isinstance(exc, (CommandInterrupted, KeyboardInterrupt, click.Abort, asyncio.CancelledError)):
        return EXIT_INTERRUPTED
    if isinstance(exc, OutputClosedError):
        raise exc
    if isinstance(exc, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.2 and later: it carries the help
        click.echo(exc.format_message(), err=True)  # type: ignore[attr-defined]
        return EXIT_USAGE
    if isinstance(exc, click.ClickException):
        output().error(type(exc).__name__, usage_message(exc), EXIT_USAGE)
        return EXIT_USAGE
    if isinstance(exc, TomError):
        code = EXIT_USAGE if isinstance(exc, (InvalidInputError, KeyFileError)) else EXIT_FAILED
        output().error(type(exc).__name__, str(exc) or type(exc).__name__, code)
        return code
    if isinstance(exc, OSError):
        what = exc.strerror or str(exc) or type(exc).__name__
        output().error(type(exc).__name__, f"{exc.filename}: {what}" if exc.filename else what, EXIT_FAILED)
        return EXIT_FAILED
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    hint = "this is a bug; --log-level debug shows where"
    output().error(type(exc).__name__, f"internal error: {one_line(text)} ({hint})", EXIT_FAILED)
    return EXIT_FAILED


def usage_message(exc: click.ClickException) -> str:
    """What click found wrong, and where help is, in one line."""
    message = one_line(exc.format_message()).rstrip(".")
    for theirs, ours in _NAMES_OF_TYPES.items():
        message = message.replace(theirs, ours)
    context = getattr(exc, "ctx", None)
    if context is None:
        return message
    return f"{message}{' See' if message.endswith('?') else '; see'} {context.command_path} --help"


def cause_of(exc: BaseException) -> BaseException:
    """Of a group of errors that happened together, the one to tell: ours before others, the first before later ones."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    leaves = [cause_of(inner) for inner in exc.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, (TomError, OutputClosedError))), leaves[0])


class _Formatter(logging.Formatter):
    """One line for each record; tracebacks only when debugging."""

    def __init__(self, *, debug: bool) -> None:
        super().__init__("%(asctime)s %(name)s: %(message)s" if debug else "%(message)s")
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:
        if self._debug:
            return super().format(record)
        what = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            what += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        return f"tom-connect: {record.levelname.lower()}: {one_line(what)}"


@contextlib.contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Show log records of `level` ("debug", "info", "warning", "error") and above on standard error meanwhile."""
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(debug=number <= logging.DEBUG))
    root, own = logging.getLogger(), logging.getLogger("tom_connect")
    before = own.level
    root.addHandler(handler)
    own.setLevel(number)
    try:
        yield
    finally:
        root.removeHandler(handler)
        own.setLevel(before)
