"""The name of a packet, read without the arithmetic that a NodeId costs: what a relay holds has passed that already."""

from __future__ import annotations

import re

_Z32 = re.compile(r"[ybndrfg8ejkmcpqxot1uwisza345h769]{51}[yo]")  # 256 bits leave four of the last letter's unused
_TO_DIGITS = str.maketrans("ybndrfg8ejkmcpqxot1uwisza345h769", "0123456789abcdefghijklmnopqrstuv")


def key_bytes(z32: str) -> bytes | None:
    """The 32 bytes that 52 z-base-32 letters stand for, whether they are a key or not; None for any other text."""
    if not _Z32.fullmatch(z32):
        return None
    return (int(z32.translate(_TO_DIGITS), 32) >> 4).to_bytes(32)
