"""Bencode (BEP 3): strict, bounded, and as quick as pure Python goes."""

from __future__ import annotations

from typing import Any

from .errors import BencodeError

Bencodable = Any
"""bytes, int, list of Bencodable, or dict with bytes keys and Bencodable values."""


class Raw(bytes):
    """Bytes that are bencoded already, put into a message as they are."""

    __slots__ = ()


MAX_DEPTH = 16
"""KRPC needs 3; BEP 44 values are free-form but at most 1000 bytes."""
MAX_ITEMS = 2048
"""Values in one message: a reply with 100 peers and 25 nodes stays far below."""


def decode(data: bytes, *, sorted_keys: bool = True) -> Any:
    """The value of a complete bencoded message.

    Integers are canonical (no leading zeros, no -0, at most 20 digits), keys unique and, unless `sorted_keys` is off,
    in order; at most 16 levels and 2048 values. Raises `BencodeError` for all else.
    """
    if len(data) == 0:
        raise BencodeError("empty")
    try:
        value, end, _ = _decode(data, 0, MAX_DEPTH, MAX_ITEMS, sorted_keys)
    except (IndexError, ValueError) as exc:
        if isinstance(exc, BencodeError):
            raise
        raise BencodeError("truncated or malformed") from None
    if end != len(data):
        raise BencodeError("trailing bytes")
    return value


def _decode(data: bytes, pos: int, depth: int, left: int, ordered: bool) -> tuple[Any, int, int]:
    """Value at pos, where it ends, and how many more values may follow; IndexError or ValueError if malformed."""
    byte = data[pos]
    if 0x30 <= byte <= 0x39:
        value, end = _string(data, pos)
        return value, end, left
    if byte == 0x69:
        number, end = _integer(data, pos)
        return number, end, left
    if depth == 0:
        raise BencodeError("nested too deeply")
    pos += 1
    if byte == 0x64:
        mapping: dict[bytes, Any] = {}
        previous = b""
        while data[pos] != 0x65:
            left -= 1
            if left < 0:
                raise BencodeError("too many values")
            key, pos = _string(data, pos)
            if mapping and (key in mapping or (ordered and key <= previous)):
                raise BencodeError("keys repeated or out of order")
            previous = key
            byte = data[pos]
            if 0x30 <= byte <= 0x39:
                mapping[key], pos = _string(data, pos)
            else:
                mapping[key], pos, left = _decode(data, pos, depth - 1, left, ordered)
        return mapping, pos + 1, left
    if byte == 0x6C:
        items: list[Any] = []
        while data[pos] != 0x65:
            left -= 1
            if left < 0:
                raise BencodeError("too many values")
            value, pos, left = _decode(data, pos, depth - 1, left, ordered)
            items.append(value)
        return items, pos + 1, left
    raise BencodeError("unknown type")


def _string(data: bytes, pos: int) -> tuple[bytes, int]:
    colon = data.index(b":", pos + 1, pos + 8)
    digits = data[pos:colon]
    if not digits.isdigit() or (digits[0] == 0x30 and len(digits) > 1):
        raise BencodeError("bad string length")
    start = colon + 1
    end = start + int(digits)
    if end > len(data):
        raise BencodeError("string runs past the end")
    return data[start:end], end


def _integer(data: bytes, pos: int) -> tuple[int, int]:
    end = data.index(b"e", pos + 1, pos + 23)
    digits = data[pos + 1 : end]
    unsigned = digits[1:] if digits[:1] == b"-" else digits
    if not unsigned.isdigit() or (unsigned[0] == 0x30 and len(digits) > 1):
        raise BencodeError("bad integer")
    return int(digits), end + 1


def encode(value: Bencodable) -> bytes:
    """The canonical form of bytes, ints, lists and dicts with bytes keys; raises `BencodeError` for all else."""
    out: list[bytes] = []
    _encode(value, out.append, MAX_DEPTH)
    return b"".join(out)


def _encode(value: Any, write: Any, depth: int) -> None:
    kind = type(value)
    if kind is bytes:
        write(b"%d:" % len(value))
        write(value)
    elif kind is int:
        write(b"i%de" % value)
    elif kind is Raw:
        write(value)
    elif depth == 0:
        raise BencodeError("nested too deeply")
    elif kind is dict:
        write(b"d")
        try:
            keys = sorted(value)
        except TypeError:
            raise BencodeError("dict keys must be bytes") from None
        for key in keys:
            if type(key) is not bytes:
                raise BencodeError("dict keys must be bytes")
            item = value[key]
            if type(item) is bytes:
                write(b"%d:%b%d:%b" % (len(key), key, len(item), item))
            else:
                write(b"%d:%b" % (len(key), key))
                _encode(item, write, depth - 1)
        write(b"e")
    elif kind is list or kind is tuple:
        write(b"l")
        for item in value:
            _encode(item, write, depth - 1)
        write(b"e")
    else:
        raise BencodeError(f"{kind.__name__} can't be bencoded")
