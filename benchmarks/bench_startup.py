"""What it takes to import tom_connect, and to bind an endpoint with and without plugins, in a new process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers.process import REPOSITORY, LineProcess, python_module

BARE, PACKAGE = "python, nothing imported", "import tom_connect"
STARTS: Mapping[str, Sequence[str]] = {
    BARE: ("-c", "pass"),
    PACKAGE: ("-c", "import tom_connect"),
    "from tom_connect import SecretKey": ("-c", "from tom_connect import SecretKey"),
    "from tom_connect import Endpoint": ("-c", "from tom_connect import Endpoint"),
    "import aioquic.quic.connection": ("-c", "import aioquic.quic.connection"),
    "tom-connect --version": ("-m", "tom_connect", "--version"),
}
IMPORT_AIM, BIND_AIM = 100.0, 50.0
"""Milliseconds beyond the bare interpreter, and beyond an endpoint without plugins."""
NONE, ALL = "no plugin", "all plugins"


async def run_import(options: Options) -> Report:
    """Start processes that import something, by turns."""
    report = Report(
        "import",
        "a process from its start to its end",
        [Column("ms", "ms"), Column("beyond", "beyond the bare interpreter, ms", ratio=False)],
        [Row(name) for name in STARTS if name not in options.without],
        BARE,
        notes=[f"medians of {options.count(25)} starts each, by turns; bytecode is compiled and in the page cache"],
    )
    with tempfile.TemporaryDirectory() as folder:
        for warm in (True, *(False for _ in range(options.count(25)))):
            bare = 0.0
            for row in report.rows:
                start = time.perf_counter()
                _run(STARTS[row.name], folder)
                ms = (time.perf_counter() - start) * 1000
                bare = ms if row.name == BARE else bare
                if not warm:
                    row.add(ms=ms, beyond=ms - bare)
    text = f"{PACKAGE}, less than {IMPORT_AIM:.0f} ms beyond the bare interpreter"
    report.aim(text, report.value(PACKAGE, "beyond"), lambda a, b: a < b, IMPORT_AIM)
    return report


async def run_bind(options: Options) -> Report:
    """Start processes that bind an endpoint, with no plugin, with each alone, and with all, by turns."""
    names = sorted({entry.name for entry in importlib.metadata.entry_points(group="tom_connect")})
    sets = {NONE: "*", **{name: ",".join(n for n in names if n != name) for name in names}, ALL: ""}
    report = Report(
        "bind",
        "binding an endpoint in a process that has imported Endpoint",
        [
            Column("first", "first bind, ms"),
            Column("beyond", "beyond none, ms", ratio=False),
            Column("dialed", "until a first dial is connected, ms"),
            Column("again", "second bind, ms"),
        ],
        [Row(name) for name in sets if name not in options.without],
        NONE,
        notes=[
            f"medians of {options.count(15)} processes each, by turns; no plugin is configured beyond its defaults",
            "the first bind also looks for plugins and imports them; behind it, in threads, the DHT is loaded, and a",
            "second later what looks for volunteers; the dial, to loopback, begins as soon as the endpoint is bound",
        ],
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        LineProcess.start(python_module("benchmarks.startup.callee")) as callee,
    ):
        command = ("-m", "benchmarks.startup.bind_once", callee.ready["node_id"], callee.ready["place"])
        for warm in (True, *(False for _ in range(options.count(15)))):
            without = 0.0
            for row in report.rows:
                answer = _run(command, folder, TOM_CONNECT_DISABLE_PLUGINS=sets[row.name])
                taken: dict[str, Any] = json.loads(answer)
                without = taken["first"] if row.name == NONE else without
                if not warm:
                    row.add(**taken, beyond=taken["first"] - without)
    text = f"{ALL}, less than {BIND_AIM:.0f} ms beyond {NONE}"
    report.aim(text, report.value(ALL, "beyond"), lambda a, b: a < b, BIND_AIM)
    return report


def _run(arguments: Sequence[str], bytecode: str, **more: str) -> str:
    """Run Python, as on a machine where it has run before: compiled modules are kept in that folder."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


IMPORT = Bench("import", "importing tom_connect", run_import)
BIND = Bench("bind", "binding an endpoint, with and without plugins", run_bind)
