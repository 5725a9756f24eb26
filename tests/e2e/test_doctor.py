"""`tom-connect doctor` as a process, on a machine where there is nothing to find."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.e2e.commands import LOOPBACK, run

NOTHING = {"TOM_CONNECT_PLUGINS": "relay"}


def test_doctor_prints_one_object(tmp_path: pathlib.Path) -> None:
    """With --json there is one line, with the kind of NAT, the findings and the report."""
    done = run(tmp_path, "doctor", "--wait", "0.5", "--json", *LOOPBACK, env=NOTHING)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert said["event"] == "doctor"
    assert said["nat"] == {"ipv4": "absent", "ipv6": "absent"}
    assert said["report"]["relays"] == []
    assert {finding["level"] for finding in said["findings"]} == {"note", "fails"}
    assert "relay" in {plugin["name"] for plugin in said["plugins"]}


def test_doctor_says_what_is_deprecated(tmp_path: pathlib.Path) -> None:
    """Signaling in its third phase stands among what is good to know; before that nothing is said of it."""
    pytest.importorskip("tom_signaling_legacy", reason="needs tom-signaling-legacy")
    env = {"TOM_CONNECT_PLUGINS": "signaling*"}
    for phase, told in (("2", False), ("3", True)):
        done = run(tmp_path, "doctor", "--wait", "0", "--signaling-phase", phase, *LOOPBACK, env=env)
        assert done.returncode == 0, done.stderr
        assert ("Plugin signaling: legacy signaling is deprecated" in done.stdout.partition("What does not")[0]) is told


def test_doctor_speaks_to_people(tmp_path: pathlib.Path) -> None:
    """A relay that does not answer is named, with what to look at; nothing but words is printed."""
    done = run(tmp_path, "doctor", "--wait", "2", "--relay", "http://127.0.0.1:9/", *LOOPBACK, env=NOTHING)
    assert done.returncode == 0, done.stderr
    assert "What does not work:" in done.stdout
    assert "http://127.0.0.1:9/" in done.stdout
    assert "Is its URL right" in done.stdout
    assert "{" not in done.stdout.partition("Plugin")[0]
    assert "Traceback" not in done.stderr
