"""The secret-key file: made once, private, and refused with the fix in the message."""

from __future__ import annotations

import os
import pathlib
import shlex
import stat
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect import keyfile
from tom_connect.exceptions import KeyFileError
from tom_connect.keyfile import default_key_path, load_or_create_secret_key
from tom_connect.keys import SecretKey

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")


def put(path: pathlib.Path, text: str, mode: int = 0o600) -> pathlib.Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_is_made_on_first_use_and_kept(tmp_path: pathlib.Path) -> None:
    """Directories are made, the second call reads what the first wrote, and nothing else is left there."""
    path = tmp_path / "a" / "b" / "key"
    key = load_or_create_secret_key(path)
    assert load_or_create_secret_key(path) == key
    assert path.read_text() == key.seed().hex() + "\n"
    assert [p.name for p in path.parent.iterdir()] == ["key"]


@posix
def test_only_the_owner_can_read_it(tmp_path: pathlib.Path) -> None:
    """Mode 0600 in a directory of mode 0700, whatever the umask."""
    old = os.umask(0)
    try:
        load_or_create_secret_key(tmp_path / "new" / "key")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new" / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601, 0o777])
def test_a_file_that_others_can_reach_is_refused_with_the_fix(tmp_path: pathlib.Path, mode: int) -> None:
    """The message holds a command that, given to a shell, makes the file acceptable."""
    path = put(tmp_path / "my key", "11" * 32, mode)
    with pytest.raises(KeyFileError, match="chmod 600") as caught:
        load_or_create_secret_key(path)
    command = shlex.split(str(caught.value).rpartition(": ")[2])
    assert command == ["chmod", "600", str(path)]
    subprocess.run(command, check=True)
    assert load_or_create_secret_key(path) == SecretKey(b"\x11" * 32)


@pytest.mark.parametrize("text", ["11" * 32, "11" * 32 + "\n", "AB" * 32 + "\r\n", f"\n  {'ab' * 32} \n\n"])
def test_blanks_and_case_do_not_matter(tmp_path: pathlib.Path, text: str) -> None:
    """A file that an editor touched still reads."""
    expected = SecretKey(bytes.fromhex(text.strip()))
    assert load_or_create_secret_key(put(tmp_path / "key", text)) == expected


@pytest.mark.parametrize(
    "text", ["", "\n", "11" * 31, "11" * 33, "zz" * 32, "11" * 32 + " x", "-----BEGIN PRIVATE KEY-----", "1" * 9999]
)
def test_a_malformed_file_is_refused_and_kept(tmp_path: pathlib.Path, text: str) -> None:
    """It may be somebody's only copy of something: it is named, never overwritten, and its content is not shown."""
    path = put(tmp_path / "key", text)
    with pytest.raises(KeyFileError, match="64 hex digits") as caught:
        load_or_create_secret_key(path)
    assert str(path) in str(caught.value)
    assert "11" * 8 not in str(caught.value)
    assert path.read_text() == text


@given(st.binary(max_size=80) | st.from_regex(r"\s?[0-9a-fA-Fg]{62,66}\s?", fullmatch=True).map(str.encode))
def test_any_bytes_are_a_key_or_refused(data: bytes) -> None:
    """A file raises nothing but KeyFileError, and what is taken for a key is 64 hex digits."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "key"
        path.write_bytes(data)
        path.chmod(0o600)
        try:
            key = load_or_create_secret_key(path)
        except KeyFileError:
            return
    assert key.seed().hex() == data.strip().decode().lower()


def test_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    """With the path in the message."""
    with pytest.raises(KeyFileError) as caught:
        load_or_create_secret_key(tmp_path)
    assert str(tmp_path) in str(caught.value)


@posix
@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: pathlib.Path) -> None:
    """Opening it must not block."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_or_create_secret_key(tmp_path / "pipe")


def denied(*_args: object, **_more: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_an_unreadable_file_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is in the message."""
    # No mode stops root, as whom tests may run: so the call itself is replaced.
    path = put(tmp_path / "key", "11" * 32)
    monkeypatch.setattr(keyfile.os, "open", denied)
    with pytest.raises(KeyFileError, match=r"can't read .*Permission denied"):
        load_or_create_secret_key(path)


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says to name another place."""
    monkeypatch.setattr(keyfile.Path, "mkdir", denied)
    with pytest.raises(KeyFileError, match=r"can't make .*Permission denied; name another place"):
        load_or_create_secret_key(tmp_path / "a" / "key")


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    """`file/key` can neither be read nor made."""
    put(tmp_path / "file", "x")
    with pytest.raises(KeyFileError, match="file"):
        load_or_create_secret_key(tmp_path / "file" / "key")


@posix
def test_a_symbolic_link_is_followed(tmp_path: pathlib.Path) -> None:
    """The mode that counts is that of the file behind it."""
    target = put(tmp_path / "target", "22" * 32)
    (tmp_path / "key").symlink_to(target)
    assert load_or_create_secret_key(tmp_path / "key") == SecretKey(b"\x22" * 32)
    target.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create_secret_key(tmp_path / "key")


@posix
def test_a_symbolic_link_to_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    """No key is made where the link points; a loop is refused as well."""
    (tmp_path / "key").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyFileError, match=r"symbolic link to .*nowhere"):
        load_or_create_secret_key(tmp_path / "key")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key"]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(KeyFileError):
        load_or_create_secret_key(tmp_path / "loop")


@posix
def test_a_file_system_without_hard_links_serves(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file then gets its name in another way, still never that of another."""

    def no_links(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    key = load_or_create_secret_key(tmp_path / "key")
    assert load_or_create_secret_key(tmp_path / "key") == key
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_failed_write_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk gives an error and no half file."""

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile.os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        load_or_create_secret_key(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("round_", range(3))
def test_programs_that_start_at_once_agree(tmp_path: pathlib.Path, round_: int) -> None:
    """Eight processes released together print one node id, and one file is left."""
    code = (
        "import sys; from pathlib import Path; from tom_connect.keyfile import load_or_create_secret_key;"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(load_or_create_secret_key(Path(sys.argv[1])).node_id)"
    )
    path = tmp_path / f"sub{round_}" / "key"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    printed = {process.communicate(timeout=30)[0] for process in started}
    assert len(printed) == 1
    assert next(iter(printed)).strip() == str(load_or_create_secret_key(path).node_id)
    assert [p.name for p in path.parent.iterdir()] == ["key"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the XDG directories of Linux")
def test_the_default_place_is_the_configuration_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`$XDG_CONFIG_HOME/tom-connect/secret.key`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_path() == tmp_path / "tom-connect" / "secret.key"
    assert load_or_create_secret_key() == load_or_create_secret_key(default_key_path())
