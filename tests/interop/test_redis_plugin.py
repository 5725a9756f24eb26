"""A plugin that others could have written, as a wheel in a clean environment, with a real Redis server."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interop.peers.process import PeerMissing
from tests.interop.peers.redis import redis, redis_server
from tests.plugin_matrix.environments import ROOT, Environment, build_wheel, call
from tom_connect.keys import SecretKey

NOBODY = str(SecretKey(bytes(32)).node_id)
PROJECT = ROOT / "examples" / "tom-discovery-redis"

MEET = """
import asyncio
import sys

from tom_connect import DialError, Endpoint, EndpointConfig
from tom_discovery_redis import RedisConfig


async def main(url):
    config = EndpointConfig(
        alpns=("smoke/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False,
        plugin_configs={"redis": RedisConfig(url=url)},
    )
    async with asyncio.timeout(60), Endpoint.bind(config) as a, Endpoint.bind(config) as b:
        await a.watch_published().other_than(())
        dialing = asyncio.create_task(b.connect(a.node_id, "smoke/1"))
        await (await anext(a.accept())).accept()
        print((await dialing).remote_node_id == a.node_id, [(i.name, str(i.state)) for i in b.plugins])


asyncio.run(main(sys.argv[1]))
"""


def installed(folder: Path) -> Environment:
    """An environment with the core's wheel and the plugin's, and what the plugin's tests need."""
    with ThreadPoolExecutor(2) as pool:
        core, plugin = pool.map(build_wheel, (ROOT, PROJECT), (folder / "core", folder / "plugin"))
    environment = Environment(folder / "venv")
    environment.install(core, Path(f"{plugin}[test]"))
    return environment


@pytest.mark.timeout(300)
def test_a_third_partys_plugin(tmp_path: Path) -> None:
    """Found by its entry point, its own tests pass, its options are there, and nodes meet through Redis alone."""
    try:
        redis_server()
    except PeerMissing as missing:
        pytest.skip(str(missing))
    environment = installed(tmp_path)
    row = environment.plugins()["tom-discovery-redis"]
    assert (row["name"], row["version"], row["state"], row["reason"]) == ("redis", "0.1.0", "loaded", "")
    assert row["hooks"] == ["tom_discovery", "tom_publisher", "tom_register_config"]
    assert "--redis-url" in environment.run("ping", "--help").stdout

    project = tmp_path / "project"
    project.mkdir()
    shutil.copytree(PROJECT / "tests", project / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", project)
    done = call(environment.python, "-m", "pytest", "-q", "-ra", "tests", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^7 passed in", done.stdout, re.MULTILINE), done.stdout

    script = project / "meet.py"
    script.write_text(MEET)
    with redis() as url:
        done = call(environment.python, script, url, cwd=project)
        assert done.stdout == "True [('redis', 'loaded')]\n", done.stderr
        unknown = environment.run("resolve", NOBODY, TOM_CONNECT_REDIS_URL=url)
        assert "redis" in unknown.stdout + unknown.stderr
    away = environment.run("resolve", NOBODY, TOM_CONNECT_REDIS_URL=url)
    assert away.returncode != 0
    assert "can't be used" in away.stdout + away.stderr


def test_it_is_short() -> None:
    """What a third party has to write is fewer than 150 lines, comments and all."""
    sources = list((PROJECT / "src").rglob("*.py"))
    assert sources
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources) < 150
