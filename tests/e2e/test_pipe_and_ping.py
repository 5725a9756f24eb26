"""`listen`, `connect` and `ping` as processes that know nothing but a NodeId and a DHT node."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess

import pytest

from tests.e2e.commands import LOOPBACK, Command, run

pytestmark = pytest.mark.timeout(120)
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and terminals")


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ping_tells_how_it_went(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """`listen` says online and published, `ping` resolved, connected, pong and summary, with the fields promised."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK, *bootstrap) as listener:
        online = listener.wait_for("online")
        assert len(online["direct_addrs"]) == 1
        assert online["relay_urls"] == []
        published = listener.wait_for("published")
        assert published["by"] == "dht"
        assert published["nodes"] >= 1
        done = run(
            tmp_path, "ping", online["node_id"], "--count", "3", "--interval", "0.05", "--json", *LOOPBACK, *bootstrap
        )
    assert done.returncode == 0, done.stderr
    by_name = {str(event["event"]): event for event in events(done.stdout)}
    assert list(by_name) == ["resolved", "connected", "pong", "summary"]
    assert by_name["resolved"]["source"] == "dht"
    assert 0 < float(str(by_name["resolved"]["at"])) < float(str(by_name["connected"]["at"]))
    assert (by_name["connected"]["path"], by_name["connected"]["addr"]) == ("direct", online["direct_addrs"][0])
    assert by_name["pong"]["seq"] == 3
    assert 0 < float(str(by_name["pong"]["rtt_ms"])) < 5000
    assert by_name["pong"]["path"] == "direct"
    assert (by_name["summary"]["sent"], by_name["summary"]["received"], by_name["summary"]["loss"]) == (3, 3, 0)


def test_people_get_sentences(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """The same without --json: each step in words, with the node id to copy."""
    with Command(tmp_path / "bob", "listen", *LOOPBACK, *bootstrap) as listener:
        said = listener.wait_for_text("Published by dht", errors=True)
        node_id = next(word for word in said.split() if len(word) == 64)
        assert f"tom-connect connect {node_id}" in said
        done = run(tmp_path, "ping", node_id, "--count", "1", *LOOPBACK, *bootstrap)
    assert done.returncode == 0, done.stderr
    for words in ("Found by dht", "Connected after", "Answer 1 after", "1 sent, 1 answered"):
        assert words in done.stdout


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_pipe_carries_bytes_both_ways(tmp_path: pathlib.Path, bootstrap: tuple[str, ...], size: int) -> None:
    """What goes in at one side comes out at the other, to its end; then both commands end."""
    forth, back = os.urandom(size), os.urandom(size // 2)
    (tmp_path / "back").write_bytes(back)
    (tmp_path / "forth").write_bytes(forth)
    with (
        (tmp_path / "back").open("rb") as bobs,
        (tmp_path / "forth").open("rb") as alices,
        Command(tmp_path / "bob", "listen", *LOOPBACK, *bootstrap, stdin=bobs.fileno()) as listener,
    ):
        node_id = node_id_of(listener)
        with Command(tmp_path / "a", "connect", node_id, *LOOPBACK, *bootstrap, stdin=alices.fileno()) as caller:
            assert (caller.exit_code(), listener.exit_code()) == (0, 0), bytes(caller.errors + listener.errors)
            assert bytes(caller.output) == back
            assert bytes(listener.output) == forth
            assert f"{size} bytes sent, {size // 2} received" in caller.errors.decode()


def node_id_of(listener: Command) -> str:
    """The NodeId that a command shows, once the DHT knows it."""
    said = listener.wait_for_text("Published by dht", errors=True)
    return next(word for word in said.split() if len(word) == 64)


def test_a_pipe_works_while_both_sides_are_open(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """A line goes over as soon as it is typed, whoever types first."""
    with Command(tmp_path / "bob", "listen", *LOOPBACK, *bootstrap, stdin=subprocess.PIPE) as listener:
        node_id = node_id_of(listener)
        with Command(tmp_path / "a", "connect", node_id, *LOOPBACK, *bootstrap, stdin=subprocess.PIPE) as caller:
            caller.wait_for_text("Connected after", errors=True)
            listener.write(b"who is it?\n")
            caller.wait_for_text("who is it?\n")
            caller.write(b"me\n")
            listener.wait_for_text("me\n")
            second = run(tmp_path, "connect", node_id, *LOOPBACK, *bootstrap)
            assert second.returncode == 1
            assert "busy" in second.stderr
            caller.end_input()
            listener.end_input()
            assert (caller.exit_code(), listener.exit_code()) == (0, 0)


def test_json_keeps_standard_output_for_events(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """Bytes that come over become `data` events; path and bytes are told at both sides."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK, *bootstrap) as listener:
        online = listener.wait_for("online")
        listener.wait_for("published")
        done = run(tmp_path, "connect", online["node_id"], "--json", *LOOPBACK, *bootstrap, stdin=b"hello")
        assert done.returncode == 0, done.stderr
        assert [event["event"] for event in events(done.stdout)] == ["resolved", "connected", "summary"]
        connected = listener.wait_for("connected")
        assert connected["path"] == "direct"
        data = listener.wait_for("data")
        assert base64.b64decode(data["data"]) == b"hello"
        summary = listener.wait_for("summary")
        assert (summary["sent"], summary["received"]) == (0, 5)
        assert listener.exit_code() == 0


def test_an_echo_serves_one_after_the_other(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """--echo sends back what comes, and goes on."""
    with Command(tmp_path / "bob", "listen", "--echo", "--json", *LOOPBACK, *bootstrap) as listener:
        node_id = listener.wait_for("online")["node_id"]
        listener.wait_for("published")
        for text in ("one", "two"):
            done = run(tmp_path, "connect", node_id, *LOOPBACK, *bootstrap, stdin=text.encode())
            assert (done.returncode, done.stdout) == (0, text), done.stderr
            assert listener.wait_for("closed")["received"] == 3


def test_keep_open_waits_for_the_next(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """With --keep-open a listener takes one connection after the other, and only from whom --from names."""
    key = run(tmp_path, "id", "--secret-key-file", "known.key").stdout.strip()
    with Command(tmp_path / "bob", "listen", "--keep-open", "--from", key, "--json", *LOOPBACK, *bootstrap) as listener:
        node_id = listener.wait_for("online")["node_id"]
        listener.wait_for("published")
        stranger = run(tmp_path, "connect", node_id, *LOOPBACK, *bootstrap)
        assert stranger.returncode == 1
        assert "from others only" in stranger.stderr
        for text in ("one", "two"):
            done = run(
                tmp_path, "connect", node_id, "--secret-key-file", "known.key", *LOOPBACK, *bootstrap,
                stdin=text.encode(),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert base64.b64decode(listener.wait_for("data")["data"]) == text.encode()


@posix
@pytest.mark.parametrize("command", ["listen", "receive", "ping", "connect", "send"])
def test_ctrl_c_ends_a_command_within_a_second(
    tmp_path: pathlib.Path, bootstrap: tuple[str, ...], command: str
) -> None:
    """While it waits, and while it looks for a node that is not there: exit code 130, no traceback."""
    nobody = "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29"
    (tmp_path / "file").write_bytes(b"x")
    dials = {"send": [str(tmp_path / "file"), nobody], "ping": [nobody], "connect": [nobody]}
    arguments = dials.get(command, ["--yes"] if command == "receive" else [])
    with Command(
        tmp_path / "home", command, *arguments, *LOOPBACK, *bootstrap, "--connect-timeout", "60", stdin=subprocess.PIPE
    ) as process:
        expected = nobody if command in dials else "tom-connect"
        process.wait_for_text(expected, errors=command != "receive")
        code, seconds = process.interrupt()
    assert code == 130
    assert seconds < 1.5
    assert b"Traceback" not in process.errors


@posix
def test_a_ping_that_is_interrupted_still_sums_up(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """As people know it from other pings."""
    with Command(tmp_path / "bob", "listen", "--json", *LOOPBACK, *bootstrap) as listener:
        node_id = listener.wait_for("online")["node_id"]
        listener.wait_for("published")
        with Command(tmp_path / "a", "ping", node_id, "--count", "0", "--json", *LOOPBACK, *bootstrap) as ping:
            ping.wait_for("pong")
            code, seconds = ping.interrupt()
            assert (code, seconds < 1.5) == (130, True)
            assert ping.wait_for("summary")["received"] >= 1


@posix
def test_a_listener_that_dies_is_told(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """Ctrl-C at one side ends the other with an error of its own, not with silence."""
    with Command(tmp_path / "bob", "listen", *LOOPBACK, *bootstrap, stdin=subprocess.PIPE) as listener:
        node_id = node_id_of(listener)
        with Command(tmp_path / "a", "connect", node_id, *LOOPBACK, *bootstrap, stdin=subprocess.PIPE) as caller:
            caller.wait_for_text("Connected after", errors=True)
            listener.wait_for_text("Connected:", errors=True)
            assert listener.interrupt()[0] == 130
            assert caller.exit_code() == 1
            assert "connection closed by the peer" in caller.errors.decode()
