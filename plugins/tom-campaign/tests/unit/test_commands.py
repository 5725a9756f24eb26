"""The commands as processes: a population on loopback, resumed, interrupted, with a death, and with responders."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import pytest

from tom_campaign.core.errors import ScenarioError
from tom_campaign.core.records import CampaignStarted
from tom_campaign.recordfile import Recorded, read_records
from tom_campaign.scenariofile import load_scenario
from tom_connect import SecretKey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TIMEOUT = 200.0
"""Seconds for a command on a busy machine; a quiet one needs a few."""
TINY = """
name = "tiny"
jobs = 2
[[group]]
name = "a"
network = "local"
count = 3
[[phase]]
kind = "connect"
[[phase]]
kind = "ping"
count = 10
interval = 0.02
"""
LONG = (
    TINY
    + """
[[phase]]
kind = "endurance"
duration = 600
every = 0.5
interval = 0.05
"""
)


@pytest.fixture
def environ(tmp_path: pathlib.Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TOM_CONNECT_")}
    (tmp_path / "none.toml").touch()
    homes = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    return kept | homes | {"TOM_CONNECT_CONFIG": str(tmp_path / "none.toml")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tom_connect", "campaign", *arguments]


def run(folder: pathlib.Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def children_of(pid: int) -> list[int]:
    """Processes that descend from one, on Linux."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                if parent == pid:
                    found += [int(entry.name), *children_of(int(entry.name))]
    return found


def gone(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return True
    return state == b"Z"


def wait_until(condition: Any, what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout:g} s"
        time.sleep(0.05)


@contextlib.contextmanager
def started(folder: pathlib.Path, environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs meanwhile, with lines of JSON as its output."""
    process = subprocess.Popen(
        command(*arguments, "--json"),
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def next_event(stream: IO[str] | None, name: str) -> dict[str, Any]:
    assert stream is not None
    for line in stream:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == name:
            return found
        assert found["event"] != "error", found
    raise AssertionError(f"ended without {name}")


def records(folder: pathlib.Path, name: str = "tiny") -> Recorded:
    return read_records(folder / f"{name}.jsonl")


def test_a_campaign_from_scenario_to_report(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """A run measures all pairs, writes its records, says its verdict, makes a report, and exits with 0."""
    (tmp_path / "tiny.toml").write_text(TINY)
    done = run(tmp_path, environ, "run", "tiny.toml", "--report", "tiny.html")
    assert done.returncode == 0, done.stderr
    assert "tiny: PASS (12 of 12 steps done)" in done.stdout
    found = records(tmp_path)
    assert found.summary is not None and found.summary.verdict == "PASS" and len(found.results) == 12
    assert {result.path_kind for result in found.results} == {"direct"}
    assert len({info.node_id for info in found.started[0].nodes.values()}) == 3
    page = (tmp_path / "tiny.html").read_text()
    assert "PASS" in page and "a-1" in page and not re.search(r"""(src|href)=|url\(|@import""", page)


def test_a_dht_of_its_own_finds_nodes(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """With [dht] nodes are dialed by NodeId alone, and the records say that the DHT knew where they are."""
    text = TINY.replace("jobs = 2", "jobs = 2\n[dht]\nnodes = 12") + "[[phase]]\nkind = 'discovery'\nfresh = true\n"
    (tmp_path / "tiny.toml").write_text(text)
    done = run(tmp_path, environ, "run", "tiny.toml", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events][:: len(events) - 1] == ["campaign_started", "campaign_summary"]
    found = records(tmp_path)
    assert found.started[0].find == "id" and all(info.published for info in found.started[0].nodes.values())
    lookups = [result for result in found.results if result.kind == "discovery"]
    assert len(lookups) == 6 and {result.discovery_source for result in lookups} == {"dht"}


def test_mistakes_are_told_before_anything_is_started(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """A scenario with a mistake, also one that only a plugin can tell, exits with 2, one line, and no file."""
    for mistake, reason in (
        ("count = 3\nconfig = { dht = { quorm = 3 } }\n[dht]", "tiny.toml, line 8: unknown option 'dht.quorm'"),
        ("count = 3\nconfig = { idle_timeout = -1 }", "tiny.toml, line 8: idle_timeout: -1.0 is not allowed"),
        ("count = 3\nconfig = { dht = 5 }\n[dht]", "tiny.toml, line 8: dht is a table of options"),
        ("count = 3\nconfig = { plugins = 5 }\n[dht]", "tiny.toml, line 8: plugins: 5 is not allowed"),
        ("count = 3\nconfig = { relay_client = {} }", "tiny.toml, line 8: [relay_client] belongs to no plugin in use"),
        ("count = three", "tiny.toml, line 7: not valid TOML"),
    ):
        (tmp_path / "tiny.toml").write_text(TINY.replace("count = 3", mistake))
        done = run(tmp_path, environ, "run", "tiny.toml")
        assert done.returncode == 2 and done.stdout == "", done.stderr
        assert len(done.stderr.splitlines()) == 1 and reason in done.stderr
        assert not (tmp_path / "tiny.jsonl").exists()
    done = run(tmp_path, environ, "run", "nowhere")
    assert done.returncode == 2 and "shipped: v7-dht" in done.stderr


def test_too_many_measurements_are_told_with_their_phase(tmp_path: pathlib.Path) -> None:
    """A scenario that would take for ever is refused with the line of the phase that is too much."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("count = 3", "count = 200") + '[[phase]]\nname = "c"\nkind = "connect"\nrepeat = 2\n')
    with pytest.raises(ScenarioError, match=r"tiny.toml, line 14: phase: more than 100,000 measurements"):
        load_scenario(str(path))


def test_a_report_that_can_not_be_written_is_told_first(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """A report into a folder that is not there, or over its scenario or records, is refused before anything is run."""
    (tmp_path / "tiny.toml").write_text(TINY)
    for report, reason in (
        ("no/tiny.html", "there is no folder no"),
        ("tiny.toml", "would overwrite what it is made from"),
        ("tiny.jsonl", "would overwrite what it is made from"),
    ):
        done = run(tmp_path, environ, "run", "tiny.toml", "--report", report)
        assert done.returncode == 2 and f"{report}: " in done.stderr and reason in done.stderr, done.stderr
        assert sorted(path.name for path in tmp_path.glob("tiny*")) == ["tiny.toml"]
    (tmp_path / "tiny.jsonl").touch()
    done = run(tmp_path, environ, "report", "tiny.jsonl")
    assert done.returncode == 2 and "error: tiny.jsonl: the file tells of no campaign" in done.stderr
    done = run(tmp_path, environ, "report", ".")
    assert done.returncode == 2 and "is a directory" in done.stderr
    done = run(tmp_path, environ, "run", "tiny")
    assert done.returncode == 2 and "did you mean tiny.toml?" in done.stderr


def test_a_plugin_that_is_not_there_is_a_mistake(tmp_path: pathlib.Path) -> None:
    """A scenario whose nodes want an unknown plugin is refused with its line, and not measured without it."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("count = 3", 'count = 3\nconfig = { plugins = ["dth"] }', 1))
    with pytest.raises(ScenarioError, match=r"tiny.toml, line \d+: there is no plugin 'dth'.*did you mean dht"):
        load_scenario(str(path))


def test_there_is_nothing_to_go_on_with(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """--resume with a file that is not there says how a campaign is begun."""
    (tmp_path / "tiny.toml").write_text(TINY)
    done = run(tmp_path, environ, "run", "tiny.toml", "--resume", "tiny.jsonl")
    assert done.returncode == 2 and "without --resume a campaign begins" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: it looks for processes in /proc")
def test_ctrl_c_writes_the_summary_and_leaves_nothing(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """Interrupted in the middle: exit 130, a summary, and no process left; a changed scenario does not go on."""
    (tmp_path / "tiny.toml").write_text(LONG)
    with started(tmp_path, environ, "run", "tiny.toml") as process:
        next_event(process.stdout, "endurance_rolling")
        mine = children_of(process.pid)
        assert len(mine) >= 4  # the launcher, and each node
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        wait_until(lambda: all(map(gone, mine)), "the end of all processes")
    before = records(tmp_path)
    assert before.summary is not None and before.summary.interrupted and before.elapsed_s == before.summary.elapsed_s
    assert before.summary.done == len(before.results) == 12
    assert before.rolling

    # Shortened, it would be another scenario, and is refused.
    (tmp_path / "tiny.toml").write_text(LONG.replace("duration = 600", "duration = 1"))
    done = run(tmp_path, environ, "run", "tiny.toml", "--resume", "tiny.jsonl")
    assert done.returncode == 2 and "another scenario, or it was changed" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: it looks for processes in /proc")
def test_a_killed_campaign_leaves_nothing_and_goes_on(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """Killed without a word its nodes end all the same, and --resume does what is missing and nothing twice."""
    text = TINY.replace("count = 10\ninterval = 0.02", "count = 100\ninterval = 0.02")
    (tmp_path / "tiny.toml").write_text(text)
    with started(tmp_path, environ, "run", "tiny.toml") as process:
        while next_event(process.stdout, "phase_result")["phase"] != "ping":
            pass
        mine = children_of(process.pid)
        process.kill()
        wait_until(lambda: all(map(gone, mine)), "the end of all processes")
    before = records(tmp_path)
    assert before.summary is None and 7 <= len(before.results) < 12
    done = run(tmp_path, environ, "run", "tiny.toml", "--resume", "tiny.jsonl", "--json")
    assert done.returncode == 0, done.stdout
    after = records(tmp_path)
    lines = (tmp_path / "tiny.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if '"step"' in line]
    assert len(steps) == len(set(steps)) == 12
    assert after.summary is not None and (after.summary.verdict, after.summary.done) == ("PASS", 12)
    assert isinstance(after.started[-1], CampaignStarted) and after.started[-1].resumed


def test_a_node_that_dies_is_a_result(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """A node is killed in the middle: its steps fail and say why, the others pass, and the campaign exits with 1."""
    text = TINY + '[[phase]]\nkind = "failover"\nevent = "kill_node"\nside = "target"\nduration = 3\ntimeout = 1\n'
    text += (
        'pairs = { choose = "sample", count = 1 }\n[[phase]]\nname = "after"\nkind = "ping"\ncount = 3\ntimeout = 2\n'
    )
    (tmp_path / "tiny.toml").write_text(text)
    done = run(tmp_path, environ, "run", "tiny.toml")
    assert done.returncode == 1 and "the campaign's verdict is FAIL" in done.stderr, done.stderr
    found = records(tmp_path)
    assert found.summary is not None and not found.summary.interrupted and found.summary.done == found.summary.steps
    (dead,) = found.summary.dead_nodes
    (failover,) = (result for result in found.results if result.kind == "failover")
    assert failover.target == dead and failover.verdict == "FAIL" and 0 < failover.received < failover.sent
    assert "has ended" in (failover.error or "")
    for result in found.results:
        if result.phase == "after":
            assert (result.verdict == "FAIL") == (dead in (result.dialer, result.target)), result


def test_responders_are_measured_from_elsewhere(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """Two responders that allow this controller's key are measured; one that does not allow it is told how to."""
    shown = subprocess.run(
        [sys.executable, "-m", "tom_connect", "id", "--json"], env=environ, capture_output=True, text=True, check=True
    )
    mine = json.loads(shown.stdout)["node_id"]
    here = ("--bind", "127.0.0.1:0", "--allow-local", "--no-persist")
    with contextlib.ExitStack() as stack:
        tickets = []
        for number, allowed in enumerate((mine, mine, str(SecretKey.generate().node_id))):
            key = str(tmp_path / f"key-{number}")
            process = stack.enter_context(
                started(tmp_path, environ, "respond", "--allow", allowed, "--secret-key-file", key, *here)
            )
            tickets.append(next_event(process.stdout, "responding")["ticket"])
        text = TINY.replace('network = "local"\ncount = 3', f'network = "remote"\nnodes = {json.dumps(tickets[:2])}')
        (tmp_path / "tiny.toml").write_text(text)
        done = run(tmp_path, environ, "run", "tiny.toml", *here)
        assert done.returncode == 0, done.stderr
        found = records(tmp_path)
        assert len(found.results) == 4 and all(result.received == result.sent for result in found.results)
        assert {info.nat for info in found.started[0].nodes.values()} == {"remote"}

        (tmp_path / "tiny.toml").write_text(text.replace(json.dumps(tickets[:2]), json.dumps(tickets[1:])))
        done = run(tmp_path, environ, "run", "tiny.toml", "--output", "other.jsonl", *here)
        assert done.returncode == 1 and f"respond --allow {mine}" in done.stderr, done.stderr


def test_no_file_is_overwritten(tmp_path: pathlib.Path, environ: dict[str, str]) -> None:
    """Records that are there already are kept, and the message says how to go on."""
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "tiny.jsonl").write_text("mine")
    done = run(tmp_path, environ, "run", "tiny.toml")
    assert done.returncode == 2 and "--resume tiny.jsonl" in done.stderr
    assert (tmp_path / "tiny.jsonl").read_text() == "mine"
