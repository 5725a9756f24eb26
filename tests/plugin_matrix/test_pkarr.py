"""tom-pkarr without another plugin, installed from wheels: nodes meet through it, and its relay needs no DHT."""

from __future__ import annotations

import json
from pathlib import Path

from tests.plugin_matrix.environments import environment

MEET = """
import asyncio
from tom_connect import Endpoint, EndpointConfig
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.server import PkarrRelay, PkarrServerConfig

async def main():
    serving = PkarrServerConfig(listen=("127.0.0.1:0",), dht="auto")
    async with PkarrRelay(serving) as relay, asyncio.timeout(30):
        print(relay.dht_missing)
        config = EndpointConfig(alpns=("smoke/1",), bind=("127.0.0.1:0",), allow_local=True, persist=False,
                                plugin_configs={"pkarr": PkarrConfig(relays=(relay.url,), timeout=20.0)})
        async with Endpoint.bind(config) as a, Endpoint.bind(config) as b:
            await a.watch_published().other_than(())
            dialing = asyncio.create_task(b.connect(a.node_id, "smoke/1"))
            await (await anext(a.accept())).accept()
            print((await dialing).remote_node_id == a.node_id, sorted((i.name, str(i.state)) for i in b.plugins))

asyncio.run(main())
"""


def test_pkarr_alone(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """Its three plugins load, two nodes meet by NodeId alone, and uninstalled it leaves nothing behind."""
    alone = environment(tmp_path, wheels, "tom-pkarr")
    rows = [json.loads(line) for line in alone.run("plugins", "--json").stdout.splitlines()]
    assert {(row["name"], row["state"]) for row in rows} == {
        ("dns", "loaded"),
        ("pkarr", "loaded"),
        ("pkarr-server", "loaded"),
    }
    assert "\n  pkarr " in alone.run("--help").stdout
    assert "--pkarr-relays" in alone.run("id", "--help").stdout
    done = alone.script("-c", MEET)
    assert done.stderr == ""
    assert done.stdout == (
        "tom-dht-mainline is not installed\nTrue [('dns', 'loaded'), ('pkarr', 'loaded'), ('pkarr-server', 'loaded')]\n"
    )
    alone.uninstall("tom-pkarr")
    assert alone.plugins() == {}
    assert alone.run("pkarr", "serve").returncode == 2
