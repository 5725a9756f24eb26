"""Campaigns in labs of network namespaces: real NATs, changes of the network, and nothing left behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tom_campaign.networks.lab import lab_problem
from tom_campaign.recordfile import Recorded, read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(lab_problem() is not None, reason=f"a network lab needs {lab_problem()}"),
]
TIMEOUT = 500.0
"""Seconds for a campaign on a machine that is busy with other tests."""
NAMESPACES = pathlib.Path("/run/netns")
FAILOVER = """
name = "failover"
[relay]
count = 2
[[group]]
name = "home"
network = "natlab"
nat = "moderate"
count = 2
wire = { delay_ms = 5 }
[pairs]
choose = "sample"
count = 1
[[phase]]
kind = "connect"
direct_wait = 30
[[phase]]
name = "moved"
kind = "failover"
event = "move"
duration = 8
[[phase]]
name = "relay-dead"
kind = "failover"
event = "kill_relay"
duration = 4
[[phase]]
name = "blocked"
kind = "failover"
event = "block_udp"
duration = 8
timeout = 30
"""


def environ(folder: pathlib.Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TOM_CONNECT_")}
    (folder / "none.toml").touch()
    return kept | {"HOME": str(folder), "TOM_CONNECT_CONFIG": str(folder / "none.toml")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tom_connect", "campaign", "run", *arguments]


def run(folder: pathlib.Path, scenario: str, name: str) -> tuple[subprocess.CompletedProcess[str], Recorded]:
    done = subprocess.run(
        command(scenario), cwd=folder, env=environ(folder), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    return done, read_records(folder / f"{name}.jsonl")


def labs_of(pid: int) -> list[str]:
    """Namespaces of the labs that descendants of a process hold: their names tell the process that made them."""
    mine = _descendants(pid)
    return [entry.name for entry in NAMESPACES.glob("natlab-*") if int(entry.name.split("-")[1].split(".")[0]) in mine]


def _descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_v7_measures_the_success_rate_of_the_dht(tmp_path: pathlib.Path) -> None:
    """40 nodes behind all kinds of NATs are published, each finds each, and pairs of all kinds connect and talk.

    All that there is are the nodes and a DHT: what has no direct path goes through a volunteer. As a rule nothing is
    lost; the few losses that are allowed are for machines that are busy with other things.
    """
    done, found = run(tmp_path, "v7-dht", "v7-dht")
    assert done.returncode == 0, done.stdout + done.stderr
    (started,), summary = found.started, found.summary
    assert summary is not None and summary.verdict in ("PASS", "WARN") and not summary.dead_nodes, done.stdout
    assert sum(bool(info.published) for info in started.nodes.values()) == len(started.nodes) == 40
    assert {info.nat for info in started.nodes.values()} == {"none", "open", "moderate", "strict"}
    discovery, connect, ping = summary.phases
    assert all(phase.judged for phase in summary.phases)
    assert discovery.sent == 40 * 39 and discovery.received >= 0.995 * discovery.sent
    assert discovery.success_low is not None and discovery.success_high is not None
    assert 0.98 < discovery.success_low < discovery.received / discovery.sent <= discovery.success_high
    assert started.relays == 0  # no relay of the campaign's own
    # A volunteer knows its clients without asking anybody.
    assert summary.discovery_sources.keys() <= {"dht", "relay-clients"} and summary.discovery_sources["dht"] >= 1500
    assert connect.sent == connect.received == 16
    assert ping.sent == 16 * 20 and ping.received >= 0.99 * ping.sent
    dials = [result for result in found.results if result.kind == "connect"]
    assert len({(result.dialer_nat, result.target_nat) for result in dials}) == len(dials) == 16
    reached = {(r.dialer_nat, r.target_nat) for r in dials if r.path_kind == "direct"}
    # A target without a filter is reached by whoever knows its address.
    assert reached >= {(one, other) for one in ("none", "open", "moderate", "strict") for other in ("none", "open")}


def test_connections_survive_what_happens_to_the_network(tmp_path: pathlib.Path) -> None:
    """A pair behind home routers goes direct, and nothing is lost when one moves, a relay dies, or UDP is blocked."""
    (tmp_path / "failover.toml").write_text(FAILOVER)
    done, found = run(tmp_path, "failover.toml", "failover")
    assert done.returncode == 0, done.stdout + done.stderr
    connect, moved, relay_dead, blocked = found.results
    assert connect.path_kind == "direct" and connect.direct_s is not None
    assert [result.network_event for result in found.results] == [None, "move", "kill_relay", "block_udp"]
    assert (moved.lost, relay_dead.lost, blocked.lost) == (0, 0, 0)
    assert {span.path_kind for span in blocked.paths} >= {"direct", "relay"} and blocked.path_kind == "relay"
    assert blocked.longest_gap_ms is not None and blocked.longest_gap_ms > 150  # so long it was silent, at least


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_no_namespace_is_left(tmp_path: pathlib.Path, how: signal.Signals) -> None:
    """Whatever ends a campaign in the middle, its lab is gone soon after; Ctrl-C still writes the summary."""
    text = FAILOVER.replace("duration = 8", "duration = 500")
    (tmp_path / "failover.toml").write_text(text)
    process = subprocess.Popen(
        [*command("failover.toml"), "--json"],
        cwd=tmp_path,
        env=environ(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "phase_result":
                break
        mine = labs_of(process.pid)
        assert len(mine) == 7  # the internet, two relays, two homes with a router each
        process.send_signal(how)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    deadline = time.monotonic() + 60
    while left := [name for name in mine if (NAMESPACES / name).exists()]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)
    found = read_records(tmp_path / "failover.jsonl")
    if how is signal.SIGINT:
        assert code == 130 and found.summary is not None and found.summary.interrupted and found.summary.done == 1
    else:
        assert found.summary is None and len(found.results) == 1
