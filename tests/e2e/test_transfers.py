"""`send` and `receive` as processes: success, resumption, refusal and every way to fail."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.e2e.commands import LOOPBACK, PATIENCE, Command, run

pytestmark = pytest.mark.timeout(180)
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and terminals")
MIB = 1024 * 1024


@pytest.fixture
def shared(bootstrap: tuple[str, ...]) -> tuple[str, ...]:
    return (*LOOPBACK, *bootstrap)


def make(path: pathlib.Path, size: int) -> str:
    """A file of random bytes, the same again after a MiB; returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(min(size, MIB))
    data = block * (size // max(len(block), 1))
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def receiver(home: pathlib.Path, shared: tuple[str, ...], *args: str, **popen: object) -> Command:
    consent = [] if "--from" in args else ["--yes"]
    return Command(home, "receive", "--json", *consent, *args, *shared, **popen)  # type: ignore[arg-type]


def ready(command: Command) -> str:
    """The NodeId of a receiver, once the DHT knows where it is."""
    node_id = command.wait_for("online")["node_id"]
    command.wait_for("published")
    assert isinstance(node_id, str)
    return node_id


def sha(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_sent_by_node_id_alone(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """Both sides tell the same SHA-256 and sizes, and end with 0."""
    digest = make(tmp_path / "film.mkv", 5 * MIB)
    with receiver(tmp_path / "bob", shared) as bob:
        with Command(tmp_path / "a", "send", str(tmp_path / "film.mkv"), ready(bob), "--json", *shared) as alice:
            assert alice.wait_for("resolved")["source"] == "dht"
            assert alice.wait_for("connected")["path"] == "direct"
            sent = alice.wait_for("sent")
            assert alice.exit_code() == 0
        offer, received = bob.wait_for("offer"), bob.wait_for("received")
        assert bob.exit_code() == 0
    assert (offer["name"], offer["files"], offer["size"]) == ("film.mkv", 1, 5 * MIB)
    assert sent["sha256"] == received["sha256"] == digest
    assert (sent["moved"], sent["had"]) == (received["moved"], received["had"]) == (5 * MIB, 0)
    assert sent["seconds"] > 0
    assert 0 < sent["bytes_per_second"] < 5e9
    assert sha(tmp_path / "bob" / "film.mkv") == digest


def test_people_are_told_what_happens(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """The same in words: the command for the other side, the rate, and that all is verified."""
    make(tmp_path / "film.mkv", MIB)
    with Command(tmp_path / "bob", "receive", "--yes", "--into", "inbox", *shared) as bob:
        said = bob.wait_for_text("Published by dht")
        node_id = next(word for word in said.split() if len(word) == 64)
        assert f"tom-connect send PATH {node_id}" in said
        done = run(tmp_path, "send", "film.mkv", node_id, *shared)
        assert bob.exit_code() == 0
    assert done.returncode == 0, done.stderr
    assert "Sent film.mkv (1.0 MB)" in done.stdout
    assert "verified by the other side" in done.stdout
    said = bob.output.decode()
    assert f"Received film.mkv (1.0 MB) as {pathlib.Path('inbox', 'film.mkv')}" in said
    assert "every SHA-256 verified" in said


def test_a_folder_is_sent(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """With all that is in it; links are named and left out."""
    for n in range(30):
        make(tmp_path / "photos" / f"{n % 3}" / f"{n}.jpg", n * 1000)
    (tmp_path / "photos" / "empty").mkdir()
    if os.name == "posix":
        (tmp_path / "photos" / "link").symlink_to("/etc/passwd")
    with receiver(tmp_path / "bob", shared, "--into", "inbox") as bob:
        done = run(tmp_path, "send", "photos", ready(bob), *shared)
        assert done.returncode == 0, done.stderr
        received = bob.wait_for("received")
        assert bob.exit_code() == 0
    assert (received["files"], received["sha256"]) == (30, None)
    copy = tmp_path / "bob" / "inbox" / "photos"
    expected = {p.relative_to(tmp_path / "photos") for p in (tmp_path / "photos").rglob("*") if not p.is_symlink()}
    assert {p.relative_to(copy) for p in copy.rglob("*")} == expected
    assert all(sha(copy / name) == sha(tmp_path / "photos" / name) for name in expected if (copy / name).is_file())
    assert os.name != "posix" or "link" in done.stdout


@posix
@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_a_transfer_that_is_killed_resumes(tmp_path: pathlib.Path, shared: tuple[str, ...], victim: str) -> None:
    """SIGKILL in the middle: the other side fails and says why; the second time only the rest goes over."""
    digest = make(tmp_path / "big", 300 * MIB)
    partial = tmp_path / "bob" / "big.tom-part"
    with receiver(tmp_path / "bob", shared, "--idle-timeout", "4", "--keep-alive", "1") as bob:
        node_id = ready(bob)
        with Command(
            tmp_path / "a", "send", str(tmp_path / "big"), node_id, "--json", *shared, "--idle-timeout", "4",
            "--keep-alive", "1",
        ) as alice:  # fmt: skip
            assert bob.wait_for("progress")["total"] == 300 * MIB
            bob.wait_for("progress")
            {"sender": alice, "receiver": bob}[victim].process.kill()
            survivor = bob if victim == "sender" else alice
            assert survivor.exit_code() == 1
            assert survivor.rest()[-1]["error"] == "TransferInterruptedError"
    assert 0 < partial.stat().st_size < 300 * MIB
    with receiver(tmp_path / "bob", shared) as bob:
        done = run(tmp_path, "send", "big", ready(bob), *shared)
        assert done.returncode == 0, done.stderr
        received = bob.wait_for("received")
        assert bob.exit_code() == 0
    assert received["had"] > 0
    assert received["had"] + received["moved"] == 300 * MIB
    assert sha(tmp_path / "bob" / "big") == digest
    assert not partial.exists()


@posix
@pytest.mark.parametrize("options", [[], ["--keep-open"]])
def test_a_sender_that_was_killed_sends_again(
    tmp_path: pathlib.Path, shared: tuple[str, ...], options: list[str]
) -> None:
    """Long before the receiver's idle time-out the new one takes the place of the silent one, and resumes."""
    digest = make(tmp_path / "big", 300 * MIB)
    with receiver(tmp_path / "bob", shared, *options) as bob:
        node_id = ready(bob)
        with Command(tmp_path / "a", "send", str(tmp_path / "big"), node_id, "--json", *shared) as alice:
            bob.wait_for("progress")
            bob.wait_for("progress")
            alice.process.kill()
            alice.process.wait()
        began = time.monotonic()
        done = run(tmp_path, "send", "big", node_id, "--json", *shared)
        assert done.returncode == 0, done.stderr + done.stdout
        assert time.monotonic() - began < 30
        assert bob.wait_for("failed")["error"] == "TransferInterruptedError"
        received = bob.wait_for("received")
    assert received["had"] > 0
    assert received["had"] + received["moved"] == 300 * MIB
    assert sha(tmp_path / "bob" / "big") == digest


def test_a_transfer_that_goes_on_gives_way_to_none(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """A second sender is told that the receiver is busy, and the first one ends well."""
    make(tmp_path / "big", 600 * MIB)
    make(tmp_path / "note.txt", 1000)
    with receiver(tmp_path / "bob", shared) as bob:
        node_id = ready(bob)
        with Command(tmp_path / "a", "send", str(tmp_path / "big"), node_id, "--json", *shared) as alice:
            bob.wait_for("progress")
            second = run(tmp_path, "send", "note.txt", node_id, *shared)
            assert second.returncode == 1
            assert "busy with another transfer" in second.stderr
            assert alice.exit_code() == 0
        assert bob.wait_for("received")["name"] == "big"


@posix
def test_ctrl_c_in_the_middle_is_told_to_the_other_side(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """Within a second at one side; the other hears at once, not after a time-out."""
    make(tmp_path / "big", 300 * MIB)
    with receiver(tmp_path / "bob", shared) as bob:
        with Command(tmp_path / "a", "send", str(tmp_path / "big"), ready(bob), "--json", *shared) as alice:
            alice.wait_for("progress")
            alice.wait_for("progress")
            code, seconds = alice.interrupt()
            assert (code, seconds < 1.5) == (130, True)
        assert bob.process.wait(10) == 1
        assert bob.rest()[-1]["error"] == "TransferInterruptedError"
    assert (tmp_path / "bob" / "big.tom-part").stat().st_size > 0


@posix
def test_a_full_disk_is_told_to_both_and_resumes(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """A receiver that may write 3 MiB into a file: both sides name the reason; without the limit it goes on."""
    import resource

    digest = make(tmp_path / "big", 8 * MIB)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, 3 * MIB))

    with receiver(tmp_path / "bob", shared, preexec_fn=limit) as bob:
        done = run(tmp_path, "send", "big", ready(bob), *shared)
        assert bob.exit_code() == 1
        assert bob.rest()[-1]["error"] == "DiskFullError"
    assert done.returncode == 1
    assert "no room left to store big.tom-part: " in done.stderr
    assert str(tmp_path) not in done.stderr
    assert os.strerror(errno.EFBIG) in done.stderr
    assert (tmp_path / "bob" / "big.tom-part").stat().st_size == 3 * MIB
    with receiver(tmp_path / "bob", shared) as bob:
        assert run(tmp_path, "send", "big", ready(bob), *shared).returncode == 0
        assert bob.wait_for("received")["had"] == 3 * MIB
    assert sha(tmp_path / "bob" / "big") == digest


def test_nothing_is_overwritten_unless_told(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """A taken name gets a number; the same content is not sent again; --overwrite replaces."""
    make(tmp_path / "note.txt", 1000)
    inbox = tmp_path / "bob"
    mine = make(inbox / "note.txt", 500)
    for extra, place, moved in (([], "note (1).txt", 1000), (["--overwrite"], "note.txt", 1000), ([], "note.txt", 0)):
        with receiver(inbox, shared, *extra) as bob:
            assert run(tmp_path, "send", "note.txt", ready(bob), *shared).returncode == 0
            received = bob.wait_for("received")
        assert (pathlib.Path(received["place"]).name, received["moved"]) == (place, moved)
        if not extra and moved:
            assert sha(inbox / "note.txt") == mine
    assert sorted(p.name for p in inbox.glob("note*")) == ["note (1).txt", "note.txt"]


def test_only_who_is_named_may_send(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """--from refuses strangers, and the receiver goes on waiting."""
    make(tmp_path / "note.txt", 1000)
    friend = run(tmp_path, "id", "--secret-key-file", "friend.key").stdout.strip()
    with receiver(tmp_path / "bob", shared, "--from", friend) as bob:
        node_id = ready(bob)
        stranger = run(tmp_path, "send", "note.txt", node_id, *shared)
        assert stranger.returncode == 1
        assert "from others only" in stranger.stderr
        done = run(tmp_path, "send", "note.txt", node_id, "--secret-key-file", "friend.key", *shared)
        assert done.returncode == 0, done.stderr
        assert bob.wait_for("received")["node_id"] == friend


def test_a_stranger_does_not_end_a_receiver(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """Whoever speaks nonsense, or nothing, is reported, and the next may send."""
    make(tmp_path / "note.txt", 1000)
    code = """
import asyncio, sys
from tom_connect import Endpoint, EndpointConfig
async def main():
    config = EndpointConfig(bind=("127.0.0.1:0",), allow_local=True, plugins=())
    async with Endpoint.bind(config) as endpoint:
        connection = await endpoint.connect(sys.argv[1], "tom-transfer/1")
        stream = await connection.open_bi()
        stream.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
        await stream.read()
asyncio.run(main())
"""
    with receiver(tmp_path / "bob", shared) as bob:
        online = bob.wait_for("online")
        bob.wait_for("published")
        subprocess.run([sys.executable, "-c", code, online["ticket"]], check=True, timeout=PATIENCE, cwd=tmp_path)
        assert bob.wait_for("failed")["error"] == "TransferProtocolError"
        assert run(tmp_path, "send", "note.txt", online["node_id"], *shared).returncode == 0
        bob.wait_for("received")
        assert bob.exit_code() == 0


def test_keep_open_takes_one_after_the_other(tmp_path: pathlib.Path, shared: tuple[str, ...]) -> None:
    """Until it is ended."""
    with receiver(tmp_path / "bob", shared, "--keep-open") as bob:
        node_id = ready(bob)
        for name in ("one", "two"):
            make(tmp_path / name, 100)
            assert run(tmp_path, "send", name, node_id, *shared).returncode == 0
            assert bob.wait_for("received")["name"] == name
        assert bob.process.poll() is None


@posix
@pytest.mark.parametrize(("answer", "taken"), [(b"y\n", True), (b"yes\n", True), (b"n\n", False), (b"\n", False)])
def test_a_person_is_asked(tmp_path: pathlib.Path, shared: tuple[str, ...], answer: bytes, taken: bool) -> None:
    """On a terminal nothing is taken without a yes; a no is told to the sender, and the receiver goes on waiting."""
    make(tmp_path / "note.txt", 1000)
    ours, theirs = os.openpty()
    try:
        with Command(tmp_path / "bob", "receive", *shared, stdin=theirs) as bob:
            said = bob.wait_for_text("Published by dht")
            node_id = next(word for word in said.split() if len(word) == 64)
            with Command(tmp_path / "a", "send", str(tmp_path / "note.txt"), node_id, *shared) as alice:
                question = bob.wait_for_text("[y/N]", errors=True)
                assert "Take note.txt (1.0 kB) from" in question
                os.write(ours, answer)
                assert alice.exit_code() == (0 if taken else 1)
                if taken:
                    assert bob.exit_code() == 0
                else:
                    assert "declined" in alice.errors.decode()
                    bob.wait_for_text("Nothing received from")
                    assert bob.process.poll() is None
    finally:
        os.close(ours)
        os.close(theirs)
    assert (tmp_path / "bob" / "note.txt").exists() is taken


@pytest.mark.parametrize("missing", ["gone.txt", "folder/gone.txt"])
def test_what_is_not_there_can_not_be_sent(tmp_path: pathlib.Path, missing: str) -> None:
    """One line, before anything is dialed."""
    done = run(tmp_path, "send", missing, "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "gone.txt: No such file" in done.stderr
