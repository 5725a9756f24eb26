"""`resolve` and `plugins --stats` as processes that know nothing but a NodeId and a DHT node."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tests.e2e.commands import LOOPBACK, Command, run
from tom_connect.addr import NodeAddr
from tom_connect.keys import NodeId
from tom_connect.tickets import encode_ticket

pytestmark = pytest.mark.timeout(120)
NOBODY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
KEPT = ("--bind", "127.0.0.1:0", "--allow-local")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_resolve_tells_who_says_what(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """The DHT's answer, its age, what became of the source and the merged result; and the look-up is counted."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK, *bootstrap) as listener:
        online = listener.wait_for("online")
        listener.wait_for("published")
        done = run(tmp_path, "resolve", online["node_id"], "--json", *KEPT, *bootstrap)
        said = run(tmp_path, "resolve", online["node_id"], *KEPT, *bootstrap)
    assert done.returncode == 0, done.stderr
    by_name = {event["event"]: event for event in events(done.stdout)}
    assert (by_name["found"]["source"], by_name["found"]["signed"]) == ("dht", True)
    assert 0 <= by_name["found"]["age"] < 600
    assert by_name["found"]["direct_addrs"] == online["direct_addrs"]
    assert (by_name["source"]["source"], by_name["source"]["failure"]) == ("dht", None)
    assert 0 <= by_name["source"]["began"] <= by_name["source"]["first"] <= by_name["source"]["ended"]
    assert (by_name["resolved"]["newest"], by_name["resolved"]["node_id"]) == ("dht", online["node_id"])
    assert said.returncode == 0, said.stderr
    for words in ("dht, after", "signed", "s ago", "Together:", "tom1"):
        assert words in said.stdout
    counted = run(tmp_path, "plugins", "--stats", "--json")
    assert [(e["source"], e["asked"], e["first"]) for e in events(counted.stdout)] == [("dht", 2, 2)]
    assert "dht" in run(tmp_path, "plugins", "--stats").stdout
    assert 'tom_connect_discovery_first_total{source="dht"} 2' in run(tmp_path, "plugins", "--metrics").stdout


def test_a_ticket_is_a_source_of_its_own(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """What a ticket says stands beside what the DHT says of the node, unsigned, and also where nobody else is asked."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK, *bootstrap) as listener:
        online = listener.wait_for("online")
        listener.wait_for("published")
        elsewhere = encode_ticket(NodeAddr(NodeId.parse(online["node_id"]), (), ["198.51.100.7:4433"]))
        both = run(tmp_path, "resolve", elsewhere, "--json", *KEPT, *bootstrap)
    assert both.returncode == 0, both.stderr
    told = {event["source"]: event for event in events(both.stdout) if event["event"] == "found"}
    assert (told["ticket"]["direct_addrs"], told["ticket"]["signed"]) == (["198.51.100.7:4433"], False)
    assert told["dht"]["direct_addrs"] == online["direct_addrs"]
    resolved = events(both.stdout)[-1]
    assert (resolved["event"], resolved["newest"]) == ("resolved", "dht")
    assert resolved["direct_addrs"] == [*online["direct_addrs"], "198.51.100.7:4433"]
    alone = run(tmp_path, "resolve", elsewhere, *KEPT, env={"TOM_CONNECT_DISABLE_PLUGINS": "*"})
    assert alone.returncode == 0, alone.stderr
    assert "  ticket: 1 address found" in alone.stdout
    assert elsewhere in alone.stdout


def test_a_node_that_nobody_knows_is_a_failure(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """Each source is named with what it said, and the exit code is 1."""
    done = run(tmp_path, "resolve", NOBODY, *LOOPBACK, *bootstrap)
    assert done.returncode == 1
    assert "dht: nothing found" in done.stdout
    assert "no source knows" in done.stderr


def test_where_nobody_can_be_asked_that_is_told(tmp_path: pathlib.Path) -> None:
    """That is another failure than a node that nobody knows, and has another remedy."""
    done = run(tmp_path, "resolve", NOBODY, "--bootstrap", "none", *LOOPBACK)
    assert done.returncode == 1
    assert "no source could be asked" in done.stderr and "is the network up?" in done.stderr


@pytest.mark.parametrize(("node", "says"), [("nonsense", "node id"), ("", "node id"), ("tom1aaaa", "ticket")])
def test_what_is_no_node_id_is_wrong_usage(tmp_path: pathlib.Path, node: str, says: str) -> None:
    """One clear line and exit code 2."""
    done = run(tmp_path, "resolve", node, *LOOPBACK)
    assert done.returncode == 2
    assert says in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1


def test_without_look_ups_there_are_no_statistics(tmp_path: pathlib.Path) -> None:
    """A fresh user is told that nothing was counted yet."""
    assert "No look-ups" in run(tmp_path, "plugins", "--stats").stdout
