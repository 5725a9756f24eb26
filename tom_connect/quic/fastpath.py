"""Which of the speed overrides may run with the installed aioquic.

Each override stands in for the bodies of a few of aioquic's functions. If one of those differs from the source that
the override was written against, it switches itself off and aioquic's own code runs: slower, never wrong.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import linecache
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import attrs

from tom_connect.quic.names import BUILDER, CONNECTION, PACKET, RECOVERY, lookup

REVIEWED_VERSION = "1.7.2"
"""Trusted where no source is there to compare, as in a frozen application."""

STREAM = "aioquic.quic.stream"
CRYPTO = "aioquic.quic.crypto"
CIPHERS = "aioquic._crypto"
RANGES = "aioquic.quic.rangeset"

_CIPHERS = (
    (CIPHERS, "AEAD.__init__"),
    (CIPHERS, "AEAD._nonce"),
    (CIPHERS, "HeaderProtection.__init__"),
    (CIPHERS, "HeaderProtection._mask"),
)

FUNCTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "send": (
        (CONNECTION, "QuicConnection._write_application"),
        (CONNECTION, "QuicConnection._write_stream_frame"),
        (CONNECTION, "QuicConnection._flush_builder"),
        (BUILDER, "QuicPacketBuilder.__init__"),
        (BUILDER, "QuicPacketBuilder.start_packet"),
        (BUILDER, "QuicPacketBuilder._end_packet"),
        (BUILDER, "QuicPacketBuilder.flush"),
        (STREAM, "QuicStreamSender.__init__"),
        (STREAM, "QuicStreamSender.get_frame"),
        (STREAM, "QuicStreamSender.on_data_delivery"),
        (RECOVERY, "QuicPacketRecovery.on_packet_sent"),
        (RECOVERY, "QuicPacketPacer.next_send_time"),
        (RECOVERY, "QuicPacketPacer.update_after_send"),
        (CRYPTO, "CryptoContext.encrypt_packet"),
        (CIPHERS, "AEAD.encrypt"),
        (CIPHERS, "HeaderProtection.apply"),
        *_CIPHERS,
    ),
    "receive": (
        (CONNECTION, "QuicConnection.receive_datagram"),
        (CONNECTION, "QuicConnection._payload_received"),
        (CONNECTION, "QuicConnection._handle_stream_frame"),
        (STREAM, "QuicStreamReceiver.__init__"),
        (STREAM, "QuicStreamReceiver.handle_frame"),
        (RECOVERY, "QuicPacketNumberWindow.add"),
        (RECOVERY, "QuicPacketNumberWindow.__contains__"),
        (PACKET, "decode_packet_number"),
        (CRYPTO, "CryptoContext.decrypt_packet"),
        (CRYPTO, "CryptoPair.decrypt_packet"),
        (CIPHERS, "AEAD.decrypt"),
        (CIPHERS, "HeaderProtection.remove"),
        (RANGES, "RangeSet.add"),
        *_CIPHERS,
    ),
    "ack": (
        (RECOVERY, "QuicPacketRecovery.on_ack_received"),
        (STREAM, "QuicStreamSender.on_data_delivery"),
    ),
    "pacer": ((RECOVERY, "QuicPacketPacer.update_rate"),),
}
"""The functions of aioquic that each override stands in for or relies on in detail."""

DIGESTS: dict[str, str] = {
    "send": "17bfdcd66c03eb68",
    "receive": "1c89d294b9dfc710",
    "ack": "ea18b2ea7085bc96",
    "pacer": "7b6f570e497c225e",
}
"""The first 16 hex digits of SHA-256 over their sources, for all of an override's functions in order."""


@functools.lru_cache(maxsize=256)
def _source(function: Callable[..., Any]) -> str | None:
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    lines = linecache.getlines(code.co_filename)
    first = code.co_firstlineno - 1
    if not 0 <= first < len(lines):
        return None
    indent = len(lines[first]) - len(lines[first].lstrip())
    end = first + 1
    while end < len(lines):
        text = lines[end].lstrip()
        # A line no deeper than `def` ends the function, but for the one that closes its parameters.
        if text and len(lines[end]) - len(text) <= indent and not text.startswith(")"):
            break
        end += 1
    return "".join(lines[first:end]).rstrip()


def digest(functions: tuple[tuple[str, str], ...]) -> str | None:
    """The digest over the sources of these functions, or None where one is missing or has no source."""
    total = hashlib.sha256()
    for module, path in functions:
        source = _source(lookup(module, path))
        if source is None:
            return None
        total.update(source.encode())
    return total.hexdigest()[:16]


def usable(override: str) -> bool:
    """Whether the installed aioquic is the one that this override was written against."""
    functions = FUNCTIONS[override]
    if any(lookup(module, path) is None for module, path in functions):
        return False
    found = digest(functions)
    if found is None:
        try:
            return importlib.metadata.version("aioquic") == REVIEWED_VERSION
        except importlib.metadata.PackageNotFoundError:
            return False
    return found == DIGESTS.get(override)


@attrs.frozen
class FastPaths:
    """Which overrides run."""

    send: bool
    receive: bool
    ack: bool
    pacer: bool


def detect() -> FastPaths:
    """Compare the installed aioquic with the one that the overrides were written against."""
    return FastPaths(**{override: usable(override) for override in FUNCTIONS})


ACTIVE = detect()
"""What was found at import."""

REPORT = MappingProxyType(
    {name: "on" if on else "off: aioquic has changed" for name, on in attrs.asdict(ACTIVE).items()}
)
"""For diagnostics: each override with its state."""
