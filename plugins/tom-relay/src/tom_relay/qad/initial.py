"""QUIC packets that come before there is a connection, and the answers that need no state.

No answer is larger than what it answers (RFC 9000 section 8). The names of aioquic used here are public.
"""

from __future__ import annotations

import os

import attrs
from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from tom_connect.addr import SocketAddr

CID_SIZE = 8
"""Bytes of our connection ids: aioquic's default."""
MIN_INITIAL = 1200
"""Bytes of the smallest datagram that may begin a connection (RFC 9000 section 14.1)."""
_VERSION = int(QuicProtocolVersion.VERSION_1)


def destination_cid(data: bytes) -> bytes:
    """The destination connection id of a datagram's first packet; empty where there is none (RFC 8999 section 5)."""
    if not data:
        return b""
    if data[0] & 0x80:
        return data[6 : 6 + data[5]] if len(data) > 5 else b""
    return data[1 : 1 + CID_SIZE]


@attrs.frozen
class FirstPacket:
    """The header of a packet that may begin a connection. `supported`: whether we speak its version."""

    dcid: bytes
    scid: bytes
    token: bytes = attrs.field(repr=False)
    supported: bool

    @classmethod
    def parse(cls, data: bytes) -> FirstPacket | None:
        """Read a long header; None for all that deserves no answer and can begin no connection."""
        if len(data) < MIN_INITIAL or not data[0] & 0x80:
            return None
        version = int.from_bytes(data[1:5], "big")
        if version == QuicProtocolVersion.NEGOTIATION:
            return None
        try:
            if version != _VERSION:
                # Of other versions only the invariant part is known.
                end = 6 + data[5]
                dcid, scid = data[6:end], data[end + 1 : end + 1 + data[end]]
                if len(dcid) != data[5] or len(scid) != data[end]:
                    return None
                return cls(dcid, scid, b"", False)
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID_SIZE)
        except (ValueError, IndexError):
            return None
        if header.packet_type is not QuicPacketType.INITIAL or len(header.destination_cid) < 8:
            return None
        return cls(header.destination_cid, header.source_cid, header.token, True)

    def version_negotiation(self) -> bytes:
        """The answer to a packet of a version that we don't speak (RFC 9000 section 6.1)."""
        return encode_quic_version_negotiation(
            source_cid=self.dcid, destination_cid=self.scid, supported_versions=[_VERSION]
        )


class RetryTokens:
    """Makes and checks the tokens by which a client proves its address (RFC 9000 section 8.1.2); they last 30 s."""

    def __init__(self) -> None:
        self._tokens = QuicRetryTokenHandler()

    def retry(self, packet: FirstPacket, addr: SocketAddr, now: float) -> bytes:
        """The Retry packet that answers an Initial from `addr`."""
        source_cid = os.urandom(CID_SIZE)
        token = self._tokens.create_token(
            address=_named(addr),
            original_destination_connection_id=packet.dcid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        return encode_quic_retry(
            version=_VERSION,
            source_cid=source_cid,
            destination_cid=packet.scid,
            original_destination_cid=packet.dcid,
            retry_token=token,
        )

    def original(self, packet: FirstPacket, addr: SocketAddr, now: float) -> bytes | None:
        """The destination id before the Retry if the packet's token was made for `addr` and is fresh, else None."""
        if not packet.token:
            return None
        try:
            return self._tokens.validate_token(
                address=_named(addr), destination_cid=packet.dcid, token=packet.token, now=now
            )
        except ValueError:
            return None


def _named(addr: SocketAddr) -> tuple[str, int]:
    return addr.host.partition("%")[0], addr.port
