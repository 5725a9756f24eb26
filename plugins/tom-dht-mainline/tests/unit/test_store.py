"""What is kept between runs, and what becomes of it when it is damaged, shared or can't be written."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.keys import SecretKey
from tom_dht_mainline import Family, StateStore
from tom_dht_mainline.core import FamilySnapshot, Snapshot

LOGGER = logging.getLogger("test.store")
BOOTSTRAP = ("a.example:1", "b.example:2")
KEY = SecretKey(bytes(range(32))).node_id
SNAPSHOT = Snapshot({Family.IPV4: FamilySnapshot(bytes(20), ("192.0.2.1", 1), ((b"n" * 20, "192.0.2.2", 6881),))})
EMPTY = Snapshot({Family.IPV4: FamilySnapshot(bytes(20))})


def _opened(directory: pathlib.Path, bootstrap: tuple[str, ...] = BOOTSTRAP) -> StateStore:
    store = StateStore(directory, bootstrap, LOGGER)
    store.open()
    return store


def _table(directory: pathlib.Path) -> pathlib.Path:
    (path,) = directory.glob("table-*.json")
    return path


def test_a_table_survives(tmp_path: pathlib.Path) -> None:
    """What was saved is loaded, by a store of the same bootstrap nodes in any order."""
    store = _opened(tmp_path / "new" / "dir")
    assert store.load() is None
    store.save(SNAPSHOT)
    store.close()
    assert _opened(tmp_path / "new" / "dir", BOOTSTRAP[::-1]).load() == SNAPSHOT


def test_other_bootstrap_nodes_mean_another_dht(tmp_path: pathlib.Path) -> None:
    """A private DHT does not get to know the nodes of the public one."""
    store = _opened(tmp_path)
    store.save(SNAPSHOT)
    assert _opened(tmp_path, ("127.0.0.1:1",)).load() is None


def test_old_tables_go(tmp_path: pathlib.Path) -> None:
    """Tests and labs leave no more than a few tables behind."""
    for port in range(1, 9):
        store = _opened(tmp_path, (f"127.0.0.1:{port}",))
        store.save(SNAPSHOT)
        os.utime(store._table, (port, port))
        store.close()
    assert len(list(tmp_path.glob("table-*.json"))) == 4
    assert len(list(tmp_path.iterdir())) == 8


def test_an_empty_table_does_not_replace_a_full_one(tmp_path: pathlib.Path) -> None:
    """A run without network keeps what an earlier one learned."""
    store = _opened(tmp_path)
    store.save(SNAPSHOT)
    store.save(EMPTY)
    assert store.load() == SNAPSHOT


def test_a_second_process_gets_the_nodes_but_not_the_id(tmp_path: pathlib.Path) -> None:
    """Two nodes of one id on one host would displace each other; the second may save once the first is gone."""
    first = _opened(tmp_path)
    first.save(SNAPSHOT)
    second = _opened(tmp_path)
    loaded = second.load()
    assert loaded is not None
    assert loaded.families[Family.IPV4].nodes == SNAPSHOT.families[Family.IPV4].nodes
    assert loaded.families[Family.IPV4].node_id != SNAPSHOT.families[Family.IPV4].node_id
    _table(tmp_path).unlink()
    second.save(SNAPSHOT)
    assert list(tmp_path.glob("table-*.json")) == []
    first.close()
    second.save(SNAPSHOT)
    assert _table(tmp_path).exists()
    second.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"ipv4": 1}', b'{"ipv4": {"node_id": "zz"}}', b"\xff\xfe", b"[" * 100000,
     b'{"ipv4": {"node_id": "00", "external": null, "nodes": []}}', b'{"ipv9": {}}', b" " * (2 << 20)],
)  # fmt: skip
def test_a_damaged_table_is_replaced(tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in the file, the node starts; what is no table is reported, and the next save mends it."""
    store = _opened(tmp_path)
    store.save(SNAPSHOT)
    path = _table(tmp_path)
    path.write_bytes(content)
    loaded = store.load()
    assert loaded is None or loaded.families == {}
    if content != b"{}":
        assert str(path) in caplog.text
    store.save(SNAPSHOT)
    assert store.load() == SNAPSHOT


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    ).map(lambda data: json.dumps(data).encode())
)
def test_any_state_files_are_survived(content: bytes) -> None:
    """Whatever stands in either file, it is read or counts as none, and the next save mends it."""
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        store = _opened(directory)
        store.save(SNAPSHOT)
        _table(directory).write_bytes(content)
        (directory / "published.json").write_bytes(content)
        store.load()
        assert 0 <= store.last_published(KEY) < 2**63
        store.save(SNAPSHOT)
        assert store.load() == SNAPSHOT
        store.note_published(KEY, 2**63 - 1)
        assert store.last_published(KEY) == 2**63 - 1
        store.close()


def test_timestamps_rise_across_restarts(tmp_path: pathlib.Path) -> None:
    """The highest number published is kept by key and salt; a lower one changes nothing."""
    store = _opened(tmp_path)
    assert store.last_published(KEY) == 0
    store.note_published(KEY, 5)
    store.note_published(KEY, 3)
    store.note_published(KEY, 9, b"salt")
    store.close()
    store = _opened(tmp_path, ("other.example:1",))
    assert store.last_published(KEY) == 5
    assert store.last_published(KEY, b"salt") == 9
    assert store.last_published(SecretKey.generate().node_id) == 0


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": "b"}', b'{"a": true}', b'{"a": -1}', b'{"a": 1e300}'])
def test_damaged_timestamps_are_replaced(
    tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file counts as none, is reported, and the next number is kept again."""
    store = _opened(tmp_path)
    (tmp_path / "published.json").write_bytes(content)
    assert store.last_published(KEY) == 0
    assert "published.json" in caplog.text
    store.note_published(KEY, 7)
    assert store.last_published(KEY) == 7


def test_the_timestamps_are_bounded(tmp_path: pathlib.Path) -> None:
    """Many keys leave a file of bounded size, in which the newest stay."""
    store = _opened(tmp_path)
    for number in range(300):
        store.note_published(KEY, 1, b"%d" % number)
    assert len(json.loads((tmp_path / "published.json").read_bytes())) == 256
    assert store.last_published(KEY, b"299") == 1
    assert store.last_published(KEY, b"0") == 0


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_directory_that_cannot_be_written_is_reported(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only directory costs the memory of the node and nothing else."""
    tmp_path.chmod(0o500)
    store = _opened(tmp_path)
    store.save(SNAPSHOT)
    store.note_published(KEY, 1)
    assert "can't be kept" in caplog.text
    tmp_path.chmod(0o700)


def test_a_path_that_is_no_directory_is_reported(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the directory can't be made, every method still returns."""
    (tmp_path / "file").write_text("x")
    store = _opened(tmp_path / "file" / "dir")
    store.save(SNAPSHOT)
    store.note_published(KEY, 1)
    assert store.load() is None
    assert store.last_published(KEY) == 0
    store.close()
    assert "can't be kept" in caplog.text


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk or, on Windows, a reader of the file: the old table stays, no temporary file does."""
    store = _opened(tmp_path)
    store.save(SNAPSHOT)

    def refuse(*args: object) -> None:
        raise PermissionError(13, "in use")

    monkeypatch.setattr(os, "replace", refuse)
    store.save(Snapshot({Family.IPV4: FamilySnapshot(b"x" * 20, None, ((b"m" * 20, "192.0.2.9", 1),))}))
    assert store.load() == SNAPSHOT
    assert list(tmp_path.glob("*.tmp")) == []
    assert "can't be written" in caplog.text
