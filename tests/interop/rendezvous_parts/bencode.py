"""Bencode (BEP 3): integers, byte strings, lists, dictionaries with byte string keys."""

from typing import TypeAlias

Value: TypeAlias = int | bytes | list["Value"] | dict[bytes, "Value"]

_DEEPEST = 8


def encode(value: Value) -> bytes:
    """The one encoding of `value`; keys are sorted."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"


def decode(data: bytes) -> Value:
    """The value that `data` holds; ValueError for anything else than exactly one."""
    try:
        value, end = _read(data, 0, 0)
    except IndexError:
        raise ValueError("bencode ends too early") from None
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the value")
    return value


def _read(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    kind = data[at : at + 1]
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind.isdigit():
        colon = data.index(b":", at)
        end = colon + 1 + int(data[at:colon])
        if end > len(data):
            raise ValueError("a string is longer than the packet")
        return data[colon + 1 : end], end
    if kind not in (b"l", b"d"):
        raise ValueError(f"no value begins with {kind!r}")
    at += 1
    items: list[Value] = []
    while data[at : at + 1] != b"e":
        if at >= len(data):
            raise ValueError("bencode ends too early")
        item, at = _read(data, at, depth + 1)
        items.append(item)
    if kind == b"l":
        return items, at + 1
    entries: dict[bytes, Value] = {}
    for key, item in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, bytes):
            raise ValueError("a key is no byte string")
        entries[key] = item
    return entries, at + 1
