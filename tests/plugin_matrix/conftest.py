"""Fixtures: the wheels that environments are made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.plugin_matrix.environments import ROOT, build_wheel, make_package

PLUGINS = ("tom-dht-mainline", "tom-relay")

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


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of core and plugins, and of packages that others could have written, well or badly."""
    made = tmp_path_factory.mktemp("projects")
    sources = {
        "tom-third": ("third", GOOD.format(name="third", api="(1, 0)")),
        "tom-broken": ("broken", "import a_module_that_nobody_has\n"),
        "tom-old": ("old", GOOD.format(name="old", api="(0, 9)")),
        "tom-new": ("new", GOOD.format(name="new", api="(1, 99)")),
        "tom-silent": ("silent", GOOD.format(name="silent", api="None")),
        "tom-twin": ("third", GOOD.format(name="third", api="(1, 0)")),
        "tom-asynchronous": ("asynchronous", GOOD.format(name="asy", api="(1, 0)").replace("def tom", "async def tom")),
        "tom-failing": ("failing", GOOD.format(name="failing", api="(1, 0)").replace("isinstance(", "1 / 0 == (")),
    }
    projects = {package: make_package(made, package, *source) for package, source in sources.items()}
    projects |= {"tom-connect": ROOT, **{package: ROOT / "plugins" / package for package in PLUGINS}}
    with ThreadPoolExecutor(2) as pool:
        built = pool.map(lambda item: (item[0], build_wheel(item[1], made / "wheels" / item[0])), projects.items())
        return dict(built)
