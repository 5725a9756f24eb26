"""The QUIC address discovery extension: each side may tell the other at which address it sees it; sans-IO.

draft-ietf-quic-address-discovery, with the code points that iroh's relays use. aioquic has no public interface for an
extension, so `ObservingConnection` subclasses it; the names that it stands on are checked at import.
"""

from __future__ import annotations

import enum
import importlib.metadata
import inspect
import ipaddress
import logging
import os
from typing import Any, Final

import attrs
from aioquic._buffer import Buffer, BufferReadError
from aioquic.buffer import encode_uint_var
from aioquic.quic import connection as aioquic_connection
from aioquic.quic import events, packet_builder, recovery
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import LocalError

logger = logging.getLogger(__name__)

ALPN: Final = "/iroh-qad/0"
TRANSPORT_PARAMETER: Final = 0x9F81A176
OBSERVED_IPV4: Final = 0x9F81A6
OBSERVED_IPV6: Final = 0x9F81A7

CLOSE_CODE: Final = 1
CLOSE_REASON: Final = "finished"
"""How a client that has learned enough closes, and a server that stops."""

MAX_CRYPTO: Final = 32_768
"""Bytes of TLS messages that are kept of one encryption level: ten times a long certificate chain."""

_SIZES: Final = {OBSERVED_IPV4: 4, OBSERVED_IPV6: 16}  # bytes of the address in a frame
_CAPACITY: Final = 4 + 8 + 16 + 2  # of the largest frame: type, sequence, address, port
_DIGITS: Final = range(0x30, 0x3A)
_FRAME_HANDLERS: Final = "_QuicConnection__frame_handlers"


class AddressDiscoveryUnavailableError(LocalError, ImportError):
    """The installed aioquic lacks a name that QUIC address discovery uses; install the version in the message."""


_METHODS: Final[tuple[tuple[type, str, str], ...]] = (
    (QuicConnection, "_serialize_transport_parameters", "self"),
    (QuicConnection, "_parse_transport_parameters", "self data from_session_ticket"),
    (QuicConnection, "_write_connection_limits", "self builder space"),
    (QuicConnection, "_replenish_connection_ids", "self"),
    (QuicConnection, "_handle_crypto_frame", "self context frame_type buf"),
    (QuicConnection, "_payload_received", "self context plain crypto_frame_required"),
    (QuicConnection, "connect", "self addr now"),
    (QuicConnection, "receive_datagram", "self data addr now"),
    (QuicConnection, "datagrams_to_send", "self now"),
    (QuicConnection, "close", "self error_code frame_type reason_phrase"),
    (packet_builder.QuicPacketBuilder, "start_frame", "self frame_type capacity handler handler_args"),
    (QuicConnectionError, "__init__", "self error_code frame_type reason_phrase"),
)
_ATTRIBUTES: Final = (
    f"{_FRAME_HANDLERS} _close_at _crypto_buffers _crypto_streams _events _handshake_complete _handshake_confirmed "
    "_host_cids _logger _local_initial_source_connection_id _local_max_streams_bidi _local_max_streams_uni _loss "
    "_close_event _close_pending _network_paths _remote_preferred_address _state host_cid"
).split()


def missing_names() -> list[str]:
    """What the installed aioquic lacks or has with other parameters; empty for one that we can use."""
    lacks = []
    for cls, name, expected in _METHODS:
        function = getattr(cls, name, None)
        if function is None or " ".join(inspect.signature(function).parameters) != expected:
            lacks.append(f"{cls.__name__}.{name}")
    lacks += [name for name in ("EPOCHS", "END_STATES", "QuicNetworkPath") if not hasattr(aioquic_connection, name)]
    if lacks:
        return lacks
    quic = QuicConnection(configuration=QuicConfiguration())
    lacks = [f"QuicConnection.{name}" for name in _ATTRIBUTES if not hasattr(quic, name)]
    path = aioquic_connection.QuicNetworkPath(("", 0))
    for owner, names in (
        (path, "addr is_validated bytes_sent bytes_received"),
        (getattr(quic, "_loss", None), "_rtt_initialized _rtt_smoothed"),
        (getattr(quic, "_local_max_streams_bidi", None), "value sent used"),
    ):
        lacks += [f"{type(owner).__name__}.{name}" for name in names.split() if not hasattr(owner, name)]
    handlers = getattr(quic, _FRAME_HANDLERS, {})
    if any(kind in handlers for kind in _SIZES):
        lacks.append("free frame types for observed addresses")
    return lacks


def require() -> None:
    """Raise AddressDiscoveryUnavailableError if a name has moved."""
    if lacks := missing_names():
        raise AddressDiscoveryUnavailableError(
            "QUIC address discovery needs aioquic>=1.7.2,<1.8, found "
            f"{importlib.metadata.version('aioquic')} (missing or changed: {', '.join(lacks)})"
        )


require()


class Role(enum.IntEnum):
    """What a side of a connection does; the value of the transport parameter."""

    SENDS = 0
    WANTS = 1
    BOTH = 2

    @property
    def sends(self) -> bool:
        """Whether this side tells the other its address."""
        return self is not Role.WANTS

    @property
    def wants(self) -> bool:
        """Whether this side wants to hear its own address."""
        return self is not Role.SENDS


def encode_role(role: Role) -> bytes:
    """The transport parameter: id, length, value."""
    value = encode_uint_var(role)
    return encode_uint_var(TRANSPORT_PARAMETER) + encode_uint_var(len(value)) + value


def decode_role(parameters: bytes) -> Role | None:
    """The role in a side's transport parameters, None where it has none; raises ValueError for a malformed one."""
    buf = Buffer(data=parameters)
    role: Role | None = None
    try:
        while not buf.eof():
            kind = buf.pull_uint_var()
            value = buf.pull_bytes(buf.pull_uint_var())
            if kind == TRANSPORT_PARAMETER:
                if role is not None:
                    raise ValueError("the address discovery parameter comes twice")
                inner = Buffer(data=value)
                role = Role(inner.pull_uint_var())
                if not inner.eof():
                    raise ValueError("the address discovery parameter is too long")
    except BufferReadError as exc:
        raise ValueError("a truncated transport parameter") from exc
    return role


@attrs.frozen
class ObservedAddress(events.QuicEvent):
    """The peer sees us at `addr`. `sequence` grows with each report of a connection."""

    sequence: int
    addr: SocketAddr

    def encode(self) -> tuple[int, bytes]:
        """The frame's type, and the bytes behind it; raises ValueError for a sequence of more than 62 bits."""
        ip = ipaddress.ip_address(self.addr.host.partition("%")[0]).packed
        kind = OBSERVED_IPV4 if len(ip) == 4 else OBSERVED_IPV6
        return kind, encode_uint_var(self.sequence) + ip + self.addr.port.to_bytes(2, "big")

    @classmethod
    def pull(cls, kind: int, buf: Buffer) -> ObservedAddress:
        """Read what follows a frame type; raises BufferReadError. IPv4-mapped addresses come out as IPv4."""
        sequence = buf.pull_uint_var()
        ip = ipaddress.ip_address(buf.pull_bytes(_SIZES[kind]))
        port = buf.pull_uint16()
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return cls(sequence, SocketAddr(str(ip), port))


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """What aioquic warns of is told as an error; a library must not let strangers fill its user's screen besides."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.logger.isEnabledFor(logging.DEBUG):
            super().log(logging.DEBUG, msg, *args, **kwargs)


class ObservingConnection(QuicConnection):
    """A QUIC v1 connection that reports or learns addresses and carries nothing else: neither side gets a stream.

    Network addresses given to it are SocketAddr. Besides aioquic's events there is ObservedAddress. It has one
    connection id, which never begins with an ASCII digit (see `tom_connect.magicsock.demux`).
    """

    def __init__(self, *, role: Role, configuration: QuicConfiguration, **arguments: Any) -> None:
        """`arguments`: those of aioquic's QuicConnection."""
        super().__init__(configuration=configuration, **arguments)
        self._logger = _Quiet(logger, {})  # type: ignore[assignment]
        self.role = role
        self.peer_role: Role | None = None
        self.reports_sent = 0
        self.faults = 0
        self._authentic = 0
        self._reported: object = None
        self._newest = -1
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = 0
        cid = self.host_cid
        while cid[0] in _DIGITS:
            cid = os.urandom(1) + cid[1:]
        self._host_cids[0].cid = self.host_cid = self._local_initial_source_connection_id = cid
        handlers = getattr(self, _FRAME_HANDLERS)
        epochs = aioquic_connection.EPOCHS("1")
        for kind in _SIZES:
            handlers[kind] = self._handle_observed_address, epochs

    @property
    def confirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001 section 4.1.2)."""
        return self._handshake_confirmed

    @property
    def terminating(self) -> bool:
        """Whether the connection is closing, draining or over."""
        return self._close_pending or self._state in aioquic_connection.END_STATES

    @property
    def over(self) -> bool:
        """Whether the connection is over but for a repetition of its end, so that nothing more will be sent."""
        return self._state in aioquic_connection.END_STATES

    @property
    def termination(self) -> events.ConnectionTerminated | None:
        """How the connection ends or ended, as soon as that is known."""
        return self._close_event

    @property
    def will_be_told(self) -> bool:
        """Whether both sides agree that the peer tells us our address."""
        return self.role.wants and self.peer_role is not None and self.peer_role.sends

    @property
    def rtt(self) -> float | None:
        """The smoothed round-trip time in seconds, None before the first sample."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    @property
    def peer(self) -> SocketAddr | None:
        """The address at which the peer is now."""
        return self._network_paths[0].addr if self._network_paths else None

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, or None."""
        return None if self._close_at is None else super().get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what was due by `now`."""
        if self._close_at is not None:
            super().handle_timer(now)

    def take(self, data: bytes, addr: SocketAddr, now: float) -> None:
        """Take one datagram; never raises."""
        authentic = self._authentic
        try:
            self.receive_datagram(data, addr, now)
        except Exception:
            # A fault of aioquic's or ours. Where the packet was authentic the state may be half changed.
            logger.debug("fault in a QUIC packet of %d bytes", len(data), exc_info=True)
            self.faults += 1
            if self._authentic != authentic and not self.terminating:
                self.close(QuicErrorCode.INTERNAL_ERROR, QuicFrameType.PADDING, "internal error")

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, SocketAddr]]:
        """The datagrams to send now, each with its address; none before the first packet came."""
        if not self._network_paths:
            return []
        path = self._network_paths[0]
        before = path.bytes_sent
        datagrams = super().datagrams_to_send(now)
        if path.is_validated or path.bytes_sent <= 3 * path.bytes_received:
            return datagrams
        # aioquic closes a connection without a look at the limit of an address that is not proven (RFC 9000
        # section 8.1).
        allowed = []
        for data, addr in datagrams:
            if addr == path.addr:
                before += len(data)
                if before > 3 * path.bytes_received:
                    continue
            allowed.append((data, addr))
        return allowed

    # What we tell

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + encode_role(self.role)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: recovery.QuicPacketSpace) -> None:
        super()._write_connection_limits(builder, space)
        if not self.role.sends or self.peer_role is None or not self.peer_role.wants:
            return
        addr = self._network_paths[0].addr
        if addr == self._reported:
            return
        report = ObservedAddress(self.reports_sent, addr)
        kind, data = report.encode()
        buf = builder.start_frame(
            kind, capacity=_CAPACITY, handler=self._on_observed_delivery, handler_args=(report.sequence,)
        )
        buf.push_bytes(data)
        self._reported = addr
        self.reports_sent += 1

    def _on_observed_delivery(self, delivery: QuicDeliveryState, sequence: int) -> None:
        # Only the newest report is worth repeating, and it is told afresh: the address may be another by then.
        if delivery is not QuicDeliveryState.ACKED and sequence == self.reports_sent - 1:
            self._reported = None

    # What we are told

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        if from_session_ticket:
            return
        # Nobody but the one who was asked gets packets from us.
        self._remote_preferred_address = None
        try:
            self.peer_role = decode_role(data)
        except ValueError as exc:
            raise QuicConnectionError(
                error_code=QuicErrorCode.TRANSPORT_PARAMETER_ERROR,
                frame_type=QuicFrameType.CRYPTO,
                reason_phrase=str(exc),
            ) from None

    def _handle_observed_address(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        report = ObservedAddress.pull(frame_type, buf)
        if not self.will_be_told:
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="an observed address that was not negotiated",
            )
        # Reports may overtake one another.
        if report.sequence > self._newest:
            self._newest = report.sequence
            self._events.append(report)

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self._authentic += 1
        return super()._payload_received(context, plain, crypto_frame_required)

    # Bounds

    def _replenish_connection_ids(self) -> None:
        # One id is enough for a connection that carries nothing, and whoever routes packets keeps one entry for it.
        return

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        end = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(start)
        if end > MAX_CRYPTO:
            raise QuicConnectionError(
                error_code=QuicErrorCode.CRYPTO_BUFFER_EXCEEDED,
                frame_type=frame_type,
                reason_phrase="too large a handshake",
            )
        super()._handle_crypto_frame(context, frame_type, buf)
        if self._handshake_complete and self._crypto_buffers:
            # Output buffers of 16 KiB each; after the handshake TLS writes nothing more.
            self._crypto_buffers = {}


__all__ = [
    "ALPN",
    "CLOSE_CODE",
    "CLOSE_REASON",
    "AddressDiscoveryUnavailableError",
    "ObservedAddress",
    "ObservingConnection",
    "Role",
    "decode_role",
    "encode_role",
    "missing_names",
    "require",
]
