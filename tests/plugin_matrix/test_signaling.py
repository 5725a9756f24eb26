"""tom-signaling-legacy comes, and goes by one uninstall, which changes nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.plugin_matrix.environments import environment
from tests.plugin_matrix.programs import DIAL

MEET = """
import asyncio
from tom_connect import Endpoint, EndpointConfig
from tom_signaling_legacy.client.config import SignalingConfig
from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig

async def main():
    async with SignalingServer(SignalingServerConfig.dev(listen=("127.0.0.1:0",))) as server, asyncio.timeout(30):
        config = EndpointConfig(alpns=("smoke/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False,
                                plugin_configs={"signaling": SignalingConfig(urls=(server.url,), timeout=20.0)})
        async with Endpoint.bind(config) as a, Endpoint.bind(config) as b:
            await a.watch_published().other_than(())
            dialing = asyncio.create_task(b.connect(a.node_id, "smoke/1"))
            await (await anext(a.accept())).accept()
            print((await dialing).remote_node_id == a.node_id, sorted((i.name, str(i.state)) for i in b.plugins))

asyncio.run(main())
"""


def test_signaling_comes_and_goes(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """Nodes meet through it, and each use warns once; uninstalled, its table in a file is passed over."""
    env = environment(tmp_path, wheels)
    told = {words: env.run(*words).stdout for words in (("--help",), ("plugins",), ("config",), ("id", "--help"))}
    env.install(wheels["tom-signaling-legacy"])
    rows = {row["name"]: (row["state"], row["reason"]) for row in env.plugin_rows()}
    assert rows["signaling"][0] == "loaded" and "deprecated" in rows["signaling"][1]
    assert rows["signaling-server"] == ("loaded", "")
    assert "\n  signaling " in env.run("--help").stdout
    assert "--signaling-urls" in env.run("id", "--help").stdout
    done = env.script("-c", MEET)
    assert done.stdout == "True [('signaling', 'loaded'), ('signaling-server', 'loaded')]\n"
    told_of = sorted(line.rpartition(" (")[2][:11] for line in done.stderr.splitlines())
    assert done.stderr.count("legacy signaling is deprecated") == len(told_of) == 3, done.stderr
    assert told_of[1:] == ["we register"] * 2, done.stderr

    config = env.home / "c.toml"
    config.write_text('[signaling]\nurls = ["ws://127.0.0.1:3001"]\nphase = 1\n')
    assert {row["reason"] for row in env.plugin_rows("--config", config)} == {""}

    env.uninstall("tom-signaling-legacy")
    assert {words: env.run(*words).stdout for words in told} == told
    done = env.run("plugins", "--config", config)
    assert (done.returncode, done.stdout) == (0, told["plugins",])
    assert "table [signaling] belongs to no plugin in use and is ignored" in done.stderr
    assert env.run("signaling", "serve").returncode == 2
    assert env.script("-c", DIAL).stdout == "ekoms []\n"
