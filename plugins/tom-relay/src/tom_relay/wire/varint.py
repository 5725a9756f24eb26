"""Variable-length integers: QUIC's for frame types (RFC 9000 section 16), little-endian base 128 for lengths."""

from __future__ import annotations

from tom_relay.errors import WireError

MAX_QUIC = (1 << 62) - 1


def encode_quic(value: int) -> bytes:
    """The shortest QUIC form of `value`, 1, 2, 4 or 8 bytes; raises ValueError outside 0 to 2**62 - 1."""
    if not 0 <= value <= MAX_QUIC:
        raise ValueError(f"{value} does not fit into a QUIC varint")
    for prefix, size in enumerate((1, 2, 4, 8)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise AssertionError("unreachable")


def decode_quic(data: bytes, offset: int = 0) -> tuple[int, int]:
    """The value at `offset` and the offset after it; longer forms than needed are valid. Raises WireError."""
    if offset >= len(data):
        raise WireError("truncated", "the frame ends before its type")
    size = 1 << (data[offset] >> 6)
    end = offset + size
    if end > len(data):
        raise WireError("truncated", "the frame ends within its type")
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * size - 2)) - 1), end


def encode_leb128(value: int) -> bytes:
    """`value` in groups of 7 bits, lowest first, as the handshake frames write lengths."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_leb128(data: bytes, offset: int = 0) -> tuple[int, int]:
    """The value at `offset`, below 2**28, and the offset after it. Raises WireError."""
    value = 0
    for shift in (0, 7, 14, 21):
        if offset >= len(data):
            raise WireError("truncated", "the frame ends within a length")
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise WireError("malformed", "a length has more than 28 bits")
