"""tom-campaign runs from its wheel with its dependencies alone, and goes by one uninstall."""

from __future__ import annotations

import json
from pathlib import Path

from tests.plugin_matrix.environments import environment

SCENARIO = """
name = "tiny"
[[group]]
name = "node"
network = "local"
count = 2
[[phase]]
kind = "connect"
"""


def test_campaign_comes_and_goes(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """Its command, template and scenarios are in the wheel; uninstalled, it leaves nothing behind."""
    env = environment(tmp_path, wheels, "tom-dht-mainline", "tom-relay")
    before = {words: env.run(*words).stdout for words in (("--help",), ("plugins",), ("config",))}
    env.install(wheels["tom-campaign"])
    row = env.plugins()["tom-campaign"]
    assert (row["name"], row["state"], row["hooks"]) == ("campaign", "loaded", ["tom_cli_commands"])

    (env.home / "tiny.toml").write_text(SCENARIO)
    done = env.run("campaign", "run", "tiny.toml", "--report", "tiny.html", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == [
        "campaign_started",
        *["phase_result"] * 2,
        "campaign_summary",
        "report",
    ]
    assert (env.home / "tiny.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    told = env.run("campaign", "run", "nowhere")
    assert told.returncode == 2 and "shipped: v7-dht" in told.stderr

    env.uninstall("tom-campaign")
    assert {words: env.run(*words).stdout for words in before} == before
