"""Packets that come before there is a connection: their headers, and the answers that need no state.

Nothing here raises for any input, and no answer is larger than what it answers (RFC 9000 section 8).
"""

from __future__ import annotations

import hashlib
import ipaddress
import os

import attrs
from aioquic._buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler

CID_LENGTH = 8  # bytes of every connection id that we choose
MIN_INITIAL = 1200  # bytes of the smallest datagram that may begin a connection (RFC 9000 section 14.1)
SUPPORTED_VERSIONS = [int(QuicProtocolVersion.VERSION_1)]
_GREASE_VERSION = 0x1A2A3A4A  # RFC 9000 section 15: a version that nobody has keeps peers tolerant
_LONG = 0x80
_DIGITS = range(0x30, 0x3A)


def safe_cid(cid: bytes) -> bytes:
    """The same id, or another first byte where it was an ASCII digit.

    A short header may begin with the byte `d`; followed by a digit it would look like KRPC on our shared socket.
    """
    while cid and cid[0] in _DIGITS:
        cid = os.urandom(1) + cid[1:]
    return cid


def new_cid() -> bytes:
    """A fresh connection id: 8 random bytes of which the first is no ASCII digit."""
    return safe_cid(os.urandom(CID_LENGTH))


def destination_cid(datagram: bytes) -> bytes | None:
    """The destination connection id of a datagram's first packet, by which it finds its connection; else None."""
    if not datagram:
        return None
    if not datagram[0] & _LONG:
        return bytes(datagram[1 : 1 + CID_LENGTH]) if len(datagram) > CID_LENGTH else None
    if len(datagram) < 6:
        return None
    length = datagram[5]
    return bytes(datagram[6 : 6 + length]) if length <= 20 and len(datagram) >= 6 + length else None


@attrs.frozen
class FirstPacket:
    """The header of a packet that belongs to no connection yet.

    `supported` is whether we speak its version; `is_initial`, whether it may begin a connection: an Initial in a
    datagram of at least 1200 bytes, with a destination id of at least 8.
    """

    version: int
    dcid: bytes
    scid: bytes
    token: bytes = attrs.field(repr=False)
    is_initial: bool
    supported: bool
    datagram_size: int


def parse_first_packet(datagram: bytes) -> FirstPacket | None:
    """Read a long header (RFC 8999 section 5.1, RFC 9000 section 17.2); None for all that deserves no answer.

    That is: short headers, Version Negotiation, Retry, malformed packets and those of unknown versions that are
    too small to begin a connection.
    """
    if len(datagram) < 7 or not datagram[0] & _LONG:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    if version == QuicProtocolVersion.NEGOTIATION:
        return None
    large = len(datagram) >= MIN_INITIAL
    try:
        if version not in SUPPORTED_VERSIONS:
            # Of other versions only the invariant part is known.
            end = 6 + datagram[5]
            dcid, scid = datagram[6:end], datagram[end + 1 : end + 1 + datagram[end]]
            if not large or len(dcid) != datagram[5] or len(scid) != datagram[end]:
                return None
            return FirstPacket(version, bytes(dcid), bytes(scid), b"", False, False, len(datagram))
        header = pull_quic_header(Buffer(data=bytes(datagram)), host_cid_length=CID_LENGTH)
    except (ValueError, IndexError):
        return None
    if header.packet_type in (QuicPacketType.RETRY, QuicPacketType.VERSION_NEGOTIATION):
        return None
    is_initial = header.packet_type is QuicPacketType.INITIAL and large and len(header.destination_cid) >= 8
    return FirstPacket(
        version, header.destination_cid, header.source_cid, header.token, is_initial, True, len(datagram)
    )


def version_negotiation(packet: FirstPacket) -> bytes:
    """The answer to a packet that is not `supported`: the versions that we speak (RFC 9000 section 6.1)."""
    return encode_quic_version_negotiation(
        source_cid=packet.dcid,
        destination_cid=packet.scid,
        supported_versions=[_GREASE_VERSION, *SUPPORTED_VERSIONS],
    )


def refusal(packet: FirstPacket, error_code: int = QuicErrorCode.CONNECTION_REFUSED) -> bytes | None:
    """An Initial that closes the connection before it exists, or None if `packet` can begin none.

    `error_code` is a transport error: CONNECTION_REFUSED, or INVALID_TOKEN (RFC 9000 section 8.1.3).
    """
    if not packet.is_initial:
        return None
    crypto = CryptoPair()
    crypto.setup_initial(cid=packet.dcid, is_client=False, version=packet.version)
    builder = QuicPacketBuilder(
        host_cid=packet.dcid,
        is_client=False,
        max_datagram_size=MIN_INITIAL,
        peer_cid=packet.scid,
        version=packet.version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    buf = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=32)
    buf.push_uint_var(error_code)
    buf.push_uint_var(QuicFrameType.PADDING)
    buf.push_uint_var(0)
    datagrams, _ = builder.flush()
    return datagrams[0]


class RetryTokens:
    """Makes and checks the tokens by which a client proves that it receives at a path (RFC 9000 section 8.1.2).

    A path is named by a host and a port, or by any other text and number. Tokens are encrypted with a key of this
    object and die with it; they last 30 s.
    """

    def __init__(self) -> None:
        self._tokens = QuicRetryTokenHandler()

    @staticmethod
    def _address(path: tuple[str, int]) -> tuple[str, int]:
        # aioquic's tokens name an IP address; a hash of whatever names the path is one.
        return str(ipaddress.IPv6Address(hashlib.sha256(repr(path).encode()).digest()[:16])), 0

    def retry_packet(self, path: tuple[str, int], packet: FirstPacket, now: float) -> bytes:
        """The Retry packet that answers an Initial from `path`."""
        source_cid = new_cid()
        token = self._tokens.create_token(
            address=self._address(path),
            original_destination_connection_id=packet.dcid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        return encode_quic_retry(
            version=packet.version,
            source_cid=source_cid,
            destination_cid=packet.scid,
            original_destination_cid=packet.dcid,
            retry_token=token,
        )

    def validate(self, path: tuple[str, int], packet: FirstPacket, now: float) -> bytes | None:
        """The original destination id if the packet's token was made for `path` and is fresh, else None.

        Give it to `Engine.server` with the packet's `dcid` as `retry_source_connection_id`.
        """
        if not packet.token:
            return None
        try:
            return self._tokens.validate_token(
                address=self._address(path), destination_cid=packet.dcid, token=packet.token, now=now
            )
        except ValueError:
            return None
