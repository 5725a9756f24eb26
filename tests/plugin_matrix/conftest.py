"""Fixtures: the wheels that environments are made of, and the servers that nodes in them use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.plugin_matrix.environments import build_wheel, environment, make_package
from tests.plugin_matrix.plugins import ALL, CORE, EXAMPLES, PLUGINS

GOOD = """
import attrs
import click
from tom_connect.abc import Discovery
from tom_connect.config import option
from tom_connect.hookspecs import hookimpl

TOM_CONNECT_API = {api}

@attrs.frozen
class Options:
    greeting: str = attrs.field(default="hello", metadata=option("what to say"))

class Nothing(Discovery):
    async def resolve(self, node_id):
        return
        yield

@hookimpl
def tom_register_config(registry):
    registry.register("{name}", Options)

@hookimpl
def tom_discovery(ctx):
    assert isinstance(ctx.config, Options)
    return Nothing()

@hookimpl
def tom_cli_commands(cli):
    cli.add(click.Command("{name}", callback=lambda: click.echo("command of {name}")))
"""


BAD = {
    "tom-third": ("third", GOOD.format(name="third", api="(1, 0)")),
    "tom-broken": ("broken", "import a_module_that_nobody_has\n"),
    "tom-old": ("old", GOOD.format(name="old", api="(0, 9)")),
    "tom-new": ("new", GOOD.format(name="new", api="(1, 99)")),
    "tom-silent": ("silent", GOOD.format(name="silent", api="None")),
    "tom-twin": ("third", GOOD.format(name="third", api="(1, 0)")),
    "tom-asynchronous": ("asynchronous", GOOD.format(name="asy", api="(1, 0)").replace("def tom", "async def tom")),
    "tom-failing": ("failing", GOOD.format(name="failing", api="(1, 0)").replace("isinstance(", "1 / 0 == (")),
}
"""Packages that others could have written, well or badly: the name of the plugin and its source."""


def built(projects: dict[str, Path], into: Path) -> dict[str, Path]:
    """The wheel of each project folder."""
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda item: (item[0], build_wheel(item[1], into / item[0])), projects.items())
        return dict(made)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of core and plugins: those in the folder that TOM_WHEELS names, as tox does, else built now."""
    projects = {project.package: project for project in (CORE, *PLUGINS.values())}
    if ready := os.environ.get("TOM_WHEELS"):
        found = {package: sorted(Path(ready).glob(f"{p.module}-*.whl")) for package, p in projects.items()}
        assert all(len(files) == 1 for files in found.values()), found
        return {package: files[0] for package, files in found.items()}
    return built({package: p.folder for package, p in projects.items()}, tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of the packages among the examples."""
    return built({name: p.folder for name, p in EXAMPLES.items()}, tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> dict[str, Path]:
    """All wheels: of core, plugins, and packages that others could have written, well or badly."""
    made = tmp_path_factory.mktemp("projects")
    return wheels | built({package: make_package(made, package, *source) for package, source in BAD.items()}, made)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """What nodes find and reach each other by, started once: a DHT, a Pkarr relay, a relay, a signaling server."""
    env = environment(tmp_path_factory.mktemp("servers"), wheels, *ALL)
    with env.start(Path(__file__).with_name("servers.py")) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(timeout=60)
