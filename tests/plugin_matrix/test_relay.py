"""The relay plugin comes and goes, alone and beside the DHT's, and changes nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.plugin_matrix.environments import Environment, environment
from tests.plugin_matrix.programs import DIAL, FOUND_AND_RELAYED, RELAYED

VERSIONS = (
    "import importlib.metadata as m; print(*sorted(f'{d.name} {d.version}' for d in m.distributions()), sep='\\n')"
)


def told(env: Environment) -> dict[str, str]:
    """What the environment's command says to what is asked without the relay's own words, and how it is left."""
    asked = {"help": ("--help",), "plugins": ("plugins",), "config": ("config",), "id": ("id", "--help")}
    return {name: env.run(*words).stdout for name, words in asked.items()}


def core_files(env: Environment) -> dict[str, str]:
    """A digest of each file of the core."""
    done = env.script("-c", "import tom_connect; print(tom_connect.__path__[0])")
    folder = Path(done.stdout.strip())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def states(env: Environment, **variables: str) -> dict[str, str]:
    """The state of each plugin by its name."""
    return {row["name"]: row["state"] for row in env.plugin_rows(**variables)}


RELAY = {"relay": "loaded", "relay-server": "loaded", "relay-volunteer": "loaded"}


@pytest.mark.timeout(400)
def test_core_and_relay(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """With the relay its command, options and hooks are there and nodes meet at one; uninstalled, all is as before."""
    env = environment(tmp_path, wheels)
    before, files = told(env), core_files(env)
    versions = set(env.script("-c", VERSIONS).stdout.splitlines())

    env.install(wheels["tom-relay"])
    rows = {row["name"]: row for row in env.plugin_rows()}
    assert {name: (row["package"], row["state"], row["reason"]) for name, row in rows.items()} == {
        "relay": ("tom-relay", "loaded", ""),
        "relay-server": ("tom-relay", "loaded", ""),
        "relay-volunteer": ("tom-relay", "loaded", ""),
    }
    assert {"tom_relay_transport", "tom_register_config"} <= set(rows["relay"]["hooks"])
    assert "\n  relay " in env.run("--help").stdout
    assert "--relay-client-token" in env.run("id", "--help").stdout
    assert env.run("relay", "--help").returncode == 0
    done = env.script("-c", DIAL)
    assert (done.stdout, done.stderr) == (f"ekoms {sorted(RELAY.items())}\n", "")
    done = env.script("-c", RELAYED)
    assert (done.stdout, done.stderr) == (
        f"ekoms ['relay'] {sorted(RELAY.items())}\n",
        "",
    )

    assert states(env, TOM_CONNECT_DISABLE_PLUGINS="relay") == {**RELAY, "relay": "blocked"}
    assert env.run("relay", "--help", TOM_CONNECT_DISABLE_PLUGINS="relay-server").returncode == 2
    nowhere = env.run("id", "--relay-client-proxy", "nowhere")
    assert (nowhere.returncode, len(nowhere.stderr.splitlines())) == (2, 1)

    env.uninstall("tom-relay")
    assert told(env) == before
    assert core_files(env) == files
    # What the relay needed besides stays, as pip leaves it; what the core needs is what it was.
    assert versions <= set(env.script("-c", VERSIONS).stdout.splitlines())
    assert env.script("-c", DIAL).stdout == "ekoms []\n"
    assert env.run("relay", "--help").returncode == 2


@pytest.mark.timeout(400)
def test_core_relay_and_dht(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """Both together: a node is found in the DHT and met at its relay; each goes without the other noticing."""
    env = environment(tmp_path, wheels, "tom-dht-mainline")
    with_dht = told(env)
    env.install(wheels["tom-relay"])
    both = {"dht": "loaded", **RELAY}
    assert states(env) == both
    assert "\n  dht " in told(env)["help"] and "\n  relay " in told(env)["help"]
    done = env.script("-c", FOUND_AND_RELAYED)
    assert (done.stdout, done.stderr) == (f"ekoms ['relay'] {sorted(both.items())}\n", "")

    env.uninstall("tom-relay")
    assert told(env) == with_dht
    assert states(env) == {"dht": "loaded"}
    env.install(wheels["tom-relay"])
    env.uninstall("tom-dht-mainline")
    assert states(env) == RELAY
    assert env.script("-c", RELAYED).stdout == f"ekoms ['relay'] {sorted(RELAY.items())}\n"
