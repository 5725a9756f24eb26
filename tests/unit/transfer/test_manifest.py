"""Names and lists of files: what may be stored, and hostile lists."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.exceptions import TomError
from tom_connect.transfer.errors import TransferError, TransferProtocolError, UnsafeNameError
from tom_connect.transfer.manifest import (
    MAX_ENTRIES,
    MAX_SIZE,
    Entry,
    Manifest,
    check_path,
    decode_entries,
    encode_entries,
)


@pytest.mark.parametrize(
    "path",
    ["a", "a b.txt", "Ünïcödé/文件", "…", "a..b", "..a", ".hidden", "-rf", "con.d/x", "a" * 240, "/".join("ab" * 30)],
)
def test_ordinary_names_are_allowed(path: str) -> None:
    """Blanks, dots, any script, hidden files, long names."""
    check_path(path, windows=False)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", ".", "../x", "a/../b", "a/..", "a//b", "a/", "./a", "a\\b", "..\\x", "C:\\x", "a\0b",
     "a\nb", "a\x1b[31mb", "a\x7f", "a\x85b", "\ud800", "a" * 241, "é" * 121, "/".join("a" * 65), "a/" * 600 + "a",
     "x.tom-part", "a/X.TOM-PART", "x.tom-part/a"],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_deceive_are_refused(path: str) -> None:
    """Absolute, upward, empty, with control characters or backslashes, too long, too deep, or a partial file's."""
    with pytest.raises(UnsafeNameError) as caught:
        check_path(path, windows=False)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "path",
    ["c:", "c:x", "a:stream", "NUL", "nul.txt", "a/CON", "com1", "LPT9.log", "COM¹", "conin$", "a.", "a ", "a./b",
     "a?b", "a*", 'a"b', "a<b", "a|b"],
)  # fmt: skip
def test_what_means_something_to_windows_is_refused_there(path: str) -> None:
    """Drives, streams, devices, trailing dots: refused on Windows, ordinary names elsewhere."""
    with pytest.raises(UnsafeNameError):
        check_path(path, windows=True)
    check_path(path, windows=False)


entries = st.lists(
    st.builds(
        Entry, st.text(st.characters(exclude_categories=["Cs"]), max_size=50), st.integers(0, MAX_SIZE), st.booleans()
    )
)


@given(entries)
def test_entries_read_back(listed: list[Entry]) -> None:
    """Any list of entries is written and read again, good or bad."""
    assert list(decode_entries(encode_entries(listed))) == listed


@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    """What is read gives the same bytes again."""
    try:
        assert encode_entries(decode_entries(data)) == data
    except TransferProtocolError:
        pass


def test_prefixes_and_changed_bytes_raise_nothing_but_a_protocol_error() -> None:
    """A prefix is a shorter list at an entry's end, and refused elsewhere."""
    whole = encode_entries([Entry("dir", 0, True), Entry("dir/ä", 5), Entry("dir/b", 6)])
    ends = {0, len(encode_entries([Entry("dir")])), len(encode_entries([Entry("dir"), Entry("dir/ä")])), len(whole)}
    for size in range(len(whole) + 1):
        if size in ends:
            decode_entries(whole[:size])
        else:
            with pytest.raises(TransferProtocolError):
                decode_entries(whole[:size])
    rng = random.Random(6)
    for _ in range(2000):
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] = rng.randrange(256)
        try:
            Manifest(tuple(decode_entries(bytes(broken))))
        except TransferError:
            pass


def test_a_manifest_is_one_tree() -> None:
    """A file alone, or a folder and what is in it; counts and sizes are those of its files."""
    single = Manifest((Entry("f", 7),))
    assert (single.name, single.is_folder, single.file_count, single.total_size) == ("f", False, 1, 7)
    tree = Manifest((Entry("d", 0, True), Entry("d/e", 0, True), Entry("d/e/f", 3), Entry("d/g", 4)))
    assert (tree.name, tree.is_folder, tree.file_count, tree.total_size) == ("d", True, 2, 7)


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [Entry("a"), Entry("b")],
        [Entry("a/b")],
        [Entry("a"), Entry("a/b")],
        [Entry("a", 0, True), Entry("b/c")],
        [Entry("a", 0, True), Entry("a/b/c"), Entry("a/b", 0, True)],
        [Entry("a", 0, True), Entry("a/b"), Entry("a/b")],
        [Entry("a", 0, True), Entry("a/b"), Entry("a/b/c")],
        [Entry("a", 0, True), Entry("a/../b")],
        [Entry("a", 5, True)],
        [Entry("a", MAX_SIZE + 1)],
        [Entry("a", -1)],
        [Entry("a", 0, True), Entry("a/b", MAX_SIZE), Entry("a/c", MAX_SIZE)],
        [Entry("a", 0, True), *(Entry(f"a/{n}") for n in range(MAX_ENTRIES))],
    ],
    ids=range(14),
)
def test_what_is_not_one_tree_is_refused(listed: list[Entry]) -> None:
    """Two roots, missing or late folders, duplicates, files used as folders, impossible sizes, too many entries."""
    with pytest.raises(TransferError):
        Manifest(tuple(listed))


def test_transfer_errors_are_tom_errors() -> None:
    """One `except TomError` catches them all."""
    assert issubclass(TransferError, TomError)
