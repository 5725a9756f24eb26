"""Files kept between runs: replaced whole, private, bounded, and set aside where they are damaged."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from tom_connect.statefile import StateFile

LOGGER = logging.getLogger("test.statefile")


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "new" / "state.json", LOGGER, max_size=100)


def test_what_was_written_is_read(file: StateFile) -> None:
    """A file that is not there is nothing; once written it is read back, and replaced by the next."""
    assert file.read() is None
    for value in ({"a": [1, "ü"]}, {"b": None}):
        assert file.write(value)
        assert file.read() == value
    assert [path.name for path in file.path.parent.iterdir()] == ["state.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_nobody_else_reads_it(file: StateFile) -> None:
    """File and folder are the owner's alone, whatever the umask says."""
    before = os.umask(0)
    try:
        file.write({"a": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 99, b'{"a": "' + b"x" * 100 + b'"}'])
def test_a_damaged_file_is_set_aside(file: StateFile, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What is no JSON object, or too large, counts as nothing, and lies beside with a message for who wants to look."""
    file.write({"a": 1})
    file.path.write_bytes(content)
    assert file.read() is None
    aside = file.path.with_name("state.json.damaged")
    assert aside.read_bytes() == content
    assert not file.path.exists()
    assert aside.name in caplog.text
    assert file.write({"a": 2})
    assert file.read() == {"a": 2}


def test_what_is_too_large_is_not_written(file: StateFile, caplog: pytest.LogCaptureFixture) -> None:
    """The old content stays, and a message says why."""
    file.write({"a": 1})
    assert not file.write({"a": "x" * 100})
    assert json.loads(file.path.read_bytes()) == {"a": 1}
    assert "can't be written" in caplog.text


def test_what_cannot_be_written_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a file stands in the folder's place, writing fails with a message, reading with another."""
    (tmp_path / "file").write_text("x")
    file = StateFile(tmp_path / "file" / "state.json", LOGGER)
    assert not file.write({"a": 1})
    assert file.read() is None
    assert "can't be written" in caplog.text and "can't be read" in caplog.text
