"""Mistakes of users: one clear line, exit code 2, no traceback; nodes that can't be reached: what was tried, and 1."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.e2e.commands import LOOPBACK, Command, run
from tom_connect import NodeAddr, SecretKey, encode_ticket

pytestmark = pytest.mark.timeout(120)
NOBODY = SecretKey(bytes(31) + b"\x01").node_id
TICKET = encode_ticket(NodeAddr(NOBODY, (), ["127.0.0.1:9"]))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["ping"], "Missing argument 'NODE'"),
        (["ping", "nonsense"], "not a valid node id"),
        (["ping", str(NOBODY)[:-1]], "expected 64 hex digits or 52 base32 letters"),
        (["ping", str(NOBODY)[:9] + "x" + str(NOBODY)[10:]], "'x', character 10, is no hex digit"),
        (["ping", "02" + "00" * 31], "not on the curve"),
        (["ping", "00" * 32], "low order"),
        (["connect", TICKET[:-1]], "ticket is damaged"),
        (["connect", "tom2" + TICKET[4:]], "version 2"),
        (["connect", TICKET[:9] + "!" + TICKET[10:]], "'!', character 10"),
        (["ping", str(NOBODY), "--count", "-1"], "--count"),
        (["ping", str(NOBODY), "--count", "many"], "--count"),
        (["ping", str(NOBODY), "--interval", "-1"], "--interval"),
        (["ping", str(NOBODY), "--interval", "nan"], "--interval"),
        (["ping", str(NOBODY), "--interval", "inf"], "--interval"),
        (["ping", str(NOBODY), "--connect-timeout", "nan"], "--connect-timeout"),
        (["ping", str(NOBODY), "--idle-timeout", "5", "--keep-alive", "6"], "--keep-alive: 6.0 is not allowed"),
        (["send", "file"], "Missing argument 'NODE'"),
        (["send", "file", "nonsense"], "not a valid node id"),
        (["receive"], "say --from NODE_ID, or --yes"),
        (["receive", "--from", "nonsense"], "not a valid node id"),
        (["receive", "--yes", "--into", "file/folder"], "can't write in"),
        (["receive", "--into", "file"], "is a file"),
        (["listen", "--from", "nonsense"], "not a valid node id"),
        (["listen", "--bind", "127.0.0.1"], "bind"),
        (["listen", "--bind", "127.0.0.1:99999"], "bind"),
        (["listen", "--bind", "localhost:0"], "bind"),
        (["listen", "--bootstrap", "127.0.0.1:notaport"], "bootstrap"),
        (["listen", "--secret-key-file", "bad.key"], "64 hex digits"),
        (["listen", "--config", "bad.toml"], "bad.toml"),
        (["listen", "--config", "gone.toml"], "gone.toml"),
        (["demo", "--size", "0"], "--size"),
        (["lisen"], "did you mean listen?"),
        (["--connect-timeout", "5", "ping"], "put it after: tom-connect COMMAND --connect-timeout"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_named_in_one_line(tmp_path: pathlib.Path, args: list[str], says: str) -> None:
    """With exit code 2; for machines the same as an `error` event."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "bad.toml").write_text("bind = [\n")
    (tmp_path / "bad.key").write_text("not a key")
    (tmp_path / "bad.key").chmod(0o600)
    done = run(tmp_path, *args)
    assert done.returncode == 2, done
    assert says in done.stderr
    assert done.stderr.startswith("tom-connect: error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    machine = run(tmp_path, *args, "--json")
    assert machine.returncode == 2
    error = json.loads(machine.stdout)
    assert (error["event"], error["exit_code"]) == ("error", 2)
    assert says in error["message"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_a_key_that_others_can_read_is_refused_with_the_fix(tmp_path: pathlib.Path) -> None:
    """Also by commands that only dial."""
    (tmp_path / "my.key").write_text("11" * 32)
    (tmp_path / "my.key").chmod(0o644)
    for command in (["listen"], ["ping", str(NOBODY)], ["id"]):
        done = run(tmp_path, *command, "--secret-key-file", "my.key")
        assert done.returncode == 2
        assert "chmod 600 my.key" in done.stderr


@pytest.mark.parametrize("command", [["ping"], ["connect"], ["send", "file"]])
def test_a_node_that_does_not_answer_is_told_with_what_was_tried(tmp_path: pathlib.Path, command: list[str]) -> None:
    """Its address, that nothing answered there, and after how long."""
    (tmp_path / "file").write_bytes(b"x")
    done = run(
        tmp_path, *command, TICKET, *LOOPBACK, "--connect-timeout", "1.5", env={"TOM_CONNECT_DISABLE_PLUGINS": "*"}
    )
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    for part in (NOBODY.short(), "127.0.0.1:9", "1.5 s"):
        assert part in error
    assert "Traceback" not in done.stderr


def test_a_node_that_nobody_knows_is_told_with_who_was_asked(
    tmp_path: pathlib.Path, bootstrap: tuple[str, ...]
) -> None:
    """The DHT, its outcome, and how long it took."""
    done = run(tmp_path, "ping", str(NOBODY), *LOOPBACK, *bootstrap)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert "dht: " in error
    assert "no source knows where it is" in error


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["listen", "--relay", "ftp://x"], "no plugin carries packets through ftp://x/"),
        (["ping", str(NOBODY), "--relay", "ftp://x"], "no plugin carries packets through ftp://x/"),
        (["listen", "--public-relays", "zz"], "public_relays: 'zz' is not allowed"),
        (["listen", "--no-direct"], "say --relay URL"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_relay_that_can_not_be_used_is_refused(tmp_path: pathlib.Path, args: list[str], says: str) -> None:
    """At once, with exit code 2; and --no-direct wants one."""
    pytest.importorskip("tom_relay", reason="needs the relay plugin")
    done = run(tmp_path, *args, *LOOPBACK, "--bootstrap", "127.0.0.1:9")
    assert done.returncode == 2, done
    assert says in done.stderr.splitlines()[-1]


def test_a_group_without_a_command_shows_its_help(tmp_path: pathlib.Path) -> None:
    """In lines, with exit code 2."""
    pytest.importorskip("tom_dht_mainline", reason="needs the DHT plugin")
    done = run(tmp_path, "dht")
    assert done.returncode == 2
    assert "Usage: tom-connect dht" in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("\n") > 5
    assert "error:" not in done.stderr


def test_without_any_plugin_it_says_what_to_do(tmp_path: pathlib.Path) -> None:
    """A NodeId alone can't be dialed; a ticket could."""
    done = run(tmp_path, "ping", str(NOBODY), *LOOPBACK, env={"TOM_CONNECT_DISABLE_PLUGINS": "*"})
    assert done.returncode == 1
    assert "pip install 'tom-connect[dht]'" in done.stderr


def test_another_protocol_is_told(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """Sending to a node that listens for pipes: it does not speak that protocol."""
    (tmp_path / "file").write_bytes(b"x")
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK, *bootstrap) as bob:
        node_id = bob.wait_for("online")["node_id"]
        bob.wait_for("published")
        done = run(tmp_path, "send", "file", node_id, "--json", *LOOPBACK, *bootstrap)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["error"] == "AlpnError"


def test_another_key_is_told(tmp_path: pathlib.Path) -> None:
    """A ticket with somebody else's name on an address: whoever answers there is not who was dialed."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK) as bob:
        address = bob.wait_for("online")["direct_addrs"][0]
        ticket = encode_ticket(NodeAddr(NOBODY, (), [address]))
        done = run(
            tmp_path, "ping", ticket, "--json", *LOOPBACK, "--connect-timeout", "3",
            env={"TOM_CONNECT_DISABLE_PLUGINS": "*"},
        )  # fmt: skip
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["error"] == "PeerIdentityError"


def test_we_can_not_dial_ourselves(tmp_path: pathlib.Path) -> None:
    """A frequent mistake of those who try both sides with one key."""
    key = run(tmp_path, "id", "--secret-key-file", "k").stdout.strip()
    done = run(tmp_path, "ping", key, "--secret-key-file", "k", *LOOPBACK)
    assert done.returncode == 2
    assert "ourselves" in done.stderr


def test_a_port_that_is_taken_is_told(tmp_path: pathlib.Path) -> None:
    """With the address."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK) as bob:
        address = bob.wait_for("online")["direct_addrs"][0]
        host, port = address.split(":")
        done = run(tmp_path, "listen", "--bind", address, "--allow-local", "--no-persist")
    assert done.returncode == 1
    assert f"port {port} of {host} is in use" in done.stderr
