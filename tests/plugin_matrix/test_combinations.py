"""Combinations of plugins, each in an environment of its own: every route that they offer leads to a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.plugin_matrix.environments import UV, Environment, environment, found_pythons
from tests.plugin_matrix.plugins import ALL, COMBINATIONS, CORE, EXAMPLES, PLUGINS, name

SMOKE = Path(__file__).with_name("smoke.py")
PYTHONS = found_pythons()
OLDEST, NEWEST = PYTHONS[0], PYTHONS[-1]


def smoke(env: Environment, servers: dict[str, Any], packages: tuple[str, ...]) -> None:
    """Dial by every route, and make sure of what each of them showed."""
    absent = [PLUGINS[package].module for package in ALL if package not in packages]
    done = env.script(SMOKE, json.dumps({"servers": servers, "absent": absent}))
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["imported"], told["there"]) == ([], [])
    entries = {entry for package in packages for entry in (PLUGINS | EXAMPLES)[package].entries}
    ways = [way for way in ("dht", "pkarr", "signaling") if way in entries]
    if "relay" in entries:
        ways += ["relay", *(f"relay {way}" for way in ways)]
    assert list(told["routes"]) == [*ways, "address"]
    for route, result in told["routes"].items():
        words = set() if route == "address" else set(route.split())
        assert (result["answer"], result["node"]) == ("ekoms", True)
        assert result["paths"] == ["relay" if "relay" in words else "direct"], (route, result)
        assert result["found"] == sorted(words - {"relay"}), (route, result)
        used = words or entries
        assert result["plugins"] == {n: "loaded" if n in used else "blocked" for n in entries}, (route, result)
    assert ("portmap" in told["routes"]["address"]["diagnostics"]) == ("tom-portmap" in packages)


@pytest.mark.parametrize("packages", COMBINATIONS, ids=name)
def test_every_route_leads_to_a_node(
    tmp_path: Path, wheels: dict[str, Path], servers: dict[str, Any], packages: tuple[str, ...]
) -> None:
    """Two nodes meet by a full address, by each discovery, over the relay, and by both together; no absent plugin
    is imported, and none is installed."""
    env = environment(tmp_path, wheels, *packages)
    assert env.packages("tom-") == {"tom-connect", *packages}
    smoke(env, servers, packages)


@pytest.mark.parametrize("python", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_all_on_the_oldest_and_the_newest_python(
    tmp_path: Path, wheels: dict[str, Path], servers: dict[str, Any], python: Path
) -> None:
    """All plugins, with the oldest and the newest Python of this machine that the packages allow."""
    env = environment(tmp_path, wheels, *ALL, python=python)
    smoke(env, servers, ALL)


@pytest.mark.skipif(UV is None, reason="needs uv: pip resolves to no lowest versions")
def test_all_with_the_lowest_versions(tmp_path: Path, wheels: dict[str, Path], servers: dict[str, Any]) -> None:
    """All plugins, with the oldest version of each dependency that they promise to work with."""
    direct = {requirement for project in (CORE, *PLUGINS.values()) for requirement in project.requirements}
    env = Environment(tmp_path / "venv", OLDEST)
    # cryptography is named since the newest pyopenssl, which aioquic brings, would raise it.
    env.install(*wheels.values(), *sorted(direct), "cryptography==43.0.*", lowest=True)
    assert env.version("aiohttp").startswith("3.11.")
    smoke(env, servers, ALL)


@pytest.mark.parametrize("package", EXAMPLES)
def test_plugins_that_others_write(
    tmp_path: Path, wheels: dict[str, Path], examples: dict[str, Path], servers: dict[str, Any], package: str
) -> None:
    """Each package among the examples is found by its entry points beside the core alone, and harms no dial."""
    env = environment(tmp_path, {**wheels, **examples}, package)
    rows = env.plugin_rows()
    assert {row["name"]: (row["package"], row["state"]) for row in rows} == dict.fromkeys(
        EXAMPLES[package].entries, (package, "loaded")
    )
    smoke(env, servers, (package,))


def test_blocked_plugins_are_not_imported(tmp_path: Path, wheels: dict[str, Path], servers: dict[str, Any]) -> None:
    """With all plugins installed and blocked, a full address is dialed as by the core alone, and none was imported."""
    env = environment(tmp_path, wheels, *ALL)
    modules = [project.module for project in PLUGINS.values()]
    program = f"""
import asyncio, sys
from tom_connect import Endpoint, EndpointConfig

async def main():
    config = EndpointConfig(alpns=("a",), bind=("127.0.0.1:0",), allow_local=True, persist=False)
    async with Endpoint.bind(config) as a, Endpoint.bind(config) as b:
        dialing = asyncio.create_task(b.connect(a.node_addr(), "a"))
        await (await anext(a.accept())).accept()
        await dialing
        print({{str(info.state) for info in b.plugins}}, [m for m in sys.modules if m.split(".")[0] in {modules}])

asyncio.run(main())
"""
    done = env.script("-c", program, TOM_CONNECT_DISABLE_PLUGINS="*")
    assert (done.stdout, done.stderr) == ("{'blocked'} []\n", "")
