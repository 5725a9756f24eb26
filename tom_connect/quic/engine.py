"""The sans-IO QUIC connection: aioquic's state machine with what tom-connect needs on top."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import attrs
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    QuicConnectionState,
    QuicReceiveContext,
    stream_is_client_initiated,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop

from tom_connect.exceptions import DatagramTooLargeError, InvalidInputError, TomError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.quic.errors import termination_error
from tom_connect.quic.identity import Authenticated
from tom_connect.quic.log import ConnectionLog
from tom_connect.quic.pmtu import PathMtu
from tom_connect.quic.recovery import Recovery
from tom_connect.quic.settings import BASE_MTU, TransportSettings
from tom_connect.quic.tickets import PeerTicket, TicketStore
from tom_connect.quic.tls import RawPublicKey

logger = logging.getLogger(__name__)

PEER = "peer"
"""The one constant address that every connection knows its peer by; the magic socket knows the paths."""

MAX_PACKETS_PER_KEY = 1 << 22
"""Packets sealed with one key; AES-GCM allows twice as many (RFC 9001 section 6.6), and aioquic does not count."""
REASON_LIMIT = 256  # bytes of a close reason; it must fit into one packet of any kind
_SHORT_HEADER = 3  # first byte and a packet number of two bytes (RFC 9000 section 17.3.1)
_AEAD_TAG = 16
_AMPLIFICATION = 3  # bytes sent for each received before the peer's address is proven
_KEEP_ALIVE = -1  # the uid of our own PINGs, which no caller sees
_KEEP_ALIVE_SIZE = 64  # bytes of a packet with a PING and an ACK, at most
_MAX_UDP_PAYLOAD_SIZE = 0x03  # transport parameter, RFC 9000 section 18.2


@attrs.define
class EngineStats:
    """Counters of one connection; bytes are of UDP payload, times seconds."""

    packets_sent: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    datagrams_dropped: int = 0
    faults: int = 0
    fast_packets_sent: int = 0
    fast_packets_received: int = 0
    rtt: float = 0.0
    cwnd: int = 0
    bytes_in_flight: int = 0
    mtu: int = BASE_MTU
    black_holes: int = 0


class Engine(Authenticated):
    """One QUIC v1 connection with mutual authentication by raw public keys; bytes and `now` in, bytes and events out.

    Pump: `receive(data, now)` for each datagram; then all `next_event()`; `send(now)` gives the datagrams to send;
    `get_timer()` says when `handle_timer(now)` is due. After any call that makes something to send, call `send`.
    """

    def __init__(
        self,
        *,
        secret_key: SecretKey,
        is_client: bool,
        peer: NodeId | None,
        alpns: Sequence[str],
        settings: TransportSettings,
        ticket: PeerTicket | None,
        ticket_store: TicketStore | None,
        token: bytes = b"",
        early_data: bool = False,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        """Use `Engine.client` or `Engine.server`."""
        for alpn in alpns:
            if not alpn.isascii() or not 1 <= len(alpn) <= 255:
                raise InvalidInputError(f"an ALPN is 1 to 255 ASCII characters, not {alpn!r}")
        self._set_up_identity(secret_key, peer, tuple(alpns), ticket, ticket_store, settings.early_data_alpns)
        self._closed_by_peer = False
        self._datagram_limit = 0
        self._kept_at = 0.0
        self._keeping = False
        self._key_since = 0
        self._stats = EngineStats()
        session_ticket = None
        if ticket is not None:
            session_ticket = ticket.ticket
            if not early_data:
                session_ticket = dataclasses.replace(session_ticket, max_early_data_size=None)
        super().__init__(
            configuration=QuicConfiguration(
                alpn_protocols=list(alpns),
                certificate=RawPublicKey(secret_key.node_id),
                congestion_control_algorithm=settings.congestion,
                idle_timeout=settings.idle_timeout,
                initial_rtt=settings.initial_rtt,
                is_client=is_client,
                max_data=settings.max_data,
                max_datagram_frame_size=settings.max_datagram_frame_size or None,
                max_stream_data=settings.max_stream_data,
                private_key=secret_key.private_key,
                session_ticket=session_ticket,
                supported_versions=[QuicProtocolVersion.VERSION_1],
                token=token,
            ),
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
            session_ticket_fetcher=None if is_client or ticket_store is None else self._redeem_ticket,
            session_ticket_handler=None if ticket_store is None else self._store_ticket,
        )
        self._logger = ConnectionLog(self._original_destination_connection_id)  # type: ignore[assignment]
        self._settings = settings
        self._set_up_flow(settings)
        self._pmtu = PathMtu(settings.max_mtu)
        self._recovery = Recovery(
            congestion_control_algorithm=settings.congestion,
            initial_rtt=settings.initial_rtt,
            max_datagram_size=BASE_MTU,
            peer_completed_address_validation=not is_client,
            send_probe=self._send_probe,
            logger=self._logger,
            pmtu=self._pmtu,
            on_mtu_fall=self._follow_mtu,
        )
        self._loss = self._recovery
        self._choose_cids()

    @classmethod
    def client(
        cls,
        *,
        secret_key: SecretKey,
        peer: NodeId | None,
        alpns: Sequence[str],
        settings: TransportSettings,
        ticket: PeerTicket | None = None,
        token: bytes = b"",
        early_data: bool = False,
        ticket_store: TicketStore | None = None,
    ) -> Engine:
        """A client that dials `peer`, or None: whoever answers and proves a key; call `start(now)` next.

        Without a `ticket` it takes one from the store where there is one. `early_data` lets what is written before
        the handshake is done go out as 0-RTT, if the ticket allows it. Raises InvalidInputError for a bad ALPN.
        """
        if ticket is None and ticket_store is not None and peer is not None and alpns:
            ticket = ticket_store.take(peer, alpns[0])
        if ticket is not None and (ticket.peer != peer or ticket.alpn not in alpns):
            raise InvalidInputError("the session ticket belongs to another peer or application protocol")
        return cls(
            secret_key=secret_key,
            is_client=True,
            peer=peer,
            alpns=alpns,
            settings=settings,
            ticket=ticket,
            token=token,
            early_data=early_data,
            ticket_store=ticket_store,
        )

    @classmethod
    def server(
        cls,
        *,
        secret_key: SecretKey,
        alpns: Sequence[str],
        settings: TransportSettings,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None = None,
        ticket_store: TicketStore | None = None,
    ) -> Engine:
        """A server for the client whose first Initial was sent to `original_destination_connection_id`.

        After a Retry, that is the id from the token, and `retry_source_connection_id` the one that the client now
        uses. Raises InvalidInputError for a bad ALPN.
        """
        return cls(
            secret_key=secret_key,
            is_client=False,
            peer=None,
            alpns=alpns,
            settings=settings,
            ticket=None,
            ticket_store=ticket_store,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )

    # The pump.

    def start(self, now: float) -> None:
        """Client only: begin the handshake."""
        self._clock = now
        self.connect(PEER, now)

    def receive(self, data: bytes, now: float) -> None:
        """Take one datagram from the peer; never raises."""
        self._clock = now
        stats = self._stats
        stats.packets_received += 1
        stats.bytes_received += len(data)
        if self._state in END_STATES:
            return
        authentic = self.authentic_packets
        try:
            self.receive_datagram(data, PEER, now)
        except Exception:
            # A fault of aioquic or ours. Where the packet was authentic the state may be half changed.
            stats.faults += 1
            logger.exception("fault in a QUIC packet of %d bytes", len(data))
            if self.authentic_packets != authentic:
                self.close(QuicErrorCode.INTERNAL_ERROR, QuicFrameType.PADDING, "internal error")

    def send(self, now: float) -> list[bytes]:
        """The datagrams to send now, in order; those over 1200 bytes must not be fragmented. Never raises."""
        try:
            return [data for data, _ in self.datagrams_to_send(now)]
        except Exception:
            logger.exception("fault in building QUIC packets")
            self._abort()
            return []

    def _abort(self) -> None:
        """End at once after a fault that leaves the state half changed; the peer's idle time-out ends its side."""
        self._stats.faults += 1
        if self._close_event is None:
            self._close_event = events.ConnectionTerminated(
                QuicErrorCode.INTERNAL_ERROR, QuicFrameType.PADDING, "internal error"
            )
        self._close_pending = False
        if self._state is not QuicConnectionState.TERMINATED:
            self._close_end()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """As `send`, with aioquic's address beside each."""
        self._clock = now
        if not self._network_paths:
            return []
        if self._datagrams_pending:
            self._drop_unsendable_datagrams()
        path = self._network_paths[0]
        before = path.bytes_sent
        datagrams = super().datagrams_to_send(now)
        if not path.is_validated and path.bytes_sent > _AMPLIFICATION * path.bytes_received:
            # aioquic closes a connection without a look at this limit (RFC 9000 section 8.1).
            room = _AMPLIFICATION * path.bytes_received - before
            datagrams = [pair for pair in datagrams if (room := room - len(pair[0])) >= 0]
        if self._handshake_confirmed and self._state not in END_STATES:
            size = self._pmtu.probe(now)
            if size is not None:
                datagrams += self._mtu_probe(size, now)
            if self._packet_number - self._key_since >= MAX_PACKETS_PER_KEY:
                self._key_since = self._packet_number
                self.request_key_update()
        if self._limits_due:
            self._limits_due = {s for s in self._limits_due if s.stream_id in self._streams}
        stats = self._stats
        stats.packets_sent += len(datagrams)
        stats.bytes_sent += sum(len(data) for data, _ in datagrams)
        return datagrams

    def next_event(self) -> events.QuicEvent | None:
        """The next event of aioquic.quic.events or HandshakeConfirmed, or None."""
        event = super().next_event()
        while isinstance(event, events.PingAcknowledged) and event.uid == _KEEP_ALIVE:
            event = super().next_event()
        return event

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, or None."""
        if self._close_at is None:
            return None
        at = super().get_timer()
        keep_alive = self._keep_alive_at()
        return at if keep_alive is None or at is None else min(at, keep_alive)

    def handle_timer(self, now: float) -> None:
        """Do what was due by `now`; then call `send`."""
        self._clock = now
        if self._close_at is None:
            return
        try:
            super().handle_timer(now)
        except Exception:
            logger.exception("fault in a QUIC timer")
            self._abort()
        keep_alive = self._keep_alive_at()
        self._keeping = keep_alive is not None and now >= keep_alive
        if self._keeping:
            self._kept_at = now
            self.send_ping(_KEEP_ALIVE)

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self.authentic_packets += 1
        self._heard_at = context.time
        return super()._payload_received(context, plain, crypto_frame_required)

    def _keep_alive_at(self) -> float | None:
        interval = self._settings.keep_alive
        if interval is None or self._heard_at is None or not self._handshake_confirmed or self._state in END_STATES:
            return None
        return max(self._heard_at, self._kept_at) + interval

    def close(
        self, error_code: int = QuicErrorCode.NO_ERROR, frame_type: int | None = None, reason_phrase: str = ""
    ) -> None:
        """Close; without a `frame_type` with an application's error code (RFC 9000 section 10.2)."""
        reason = reason_phrase.encode("utf-8", "replace")[:REASON_LIMIT].decode("utf-8", "ignore")
        super().close(error_code, frame_type, reason)

    # The end.

    @property
    def terminating(self) -> bool:
        """Whether the connection is closing, draining or over, so that nothing more can be sent on it."""
        return self._close_pending or self._state in END_STATES

    @property
    def termination(self) -> events.ConnectionTerminated | None:
        """How the connection ends or ended, as soon as that is known; the event itself follows the closing period."""
        return self._close_event

    @property
    def closed_by_peer(self) -> bool:
        """Whether the connection ended because the peer closed it."""
        return self._closed_by_peer

    def error(self, event: events.ConnectionTerminated) -> TomError:
        """The error that says how the connection ended."""
        context = self._context
        return termination_error(
            event,
            by_peer=self._closed_by_peer,
            confirmed=self._handshake_confirmed,
            offered_alpns=self._alpns,
            dialed=self._dialed,
            answered=context.wrong_peer if context is not None else None,
        )

    def _handle_connection_close_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        if self._close_event is None:
            self._closed_by_peer = True
        super()._handle_connection_close_frame(context, frame_type, buf)

    # Streams.

    def open_stream(self, *, uni: bool) -> int:
        """Reserve the next stream id of ours; the peer hears of it with the first data.

        Beyond the peer's limit (see `can_open`) data waits until the peer allows more streams.
        """
        stream_id = self.get_next_available_stream_id(is_unidirectional=uni)
        self._get_or_create_stream_for_send(stream_id)
        return stream_id

    def can_open(self, uni: bool) -> bool:
        """Whether the peer's stream limit lets us open one more stream now."""
        limit = self._remote_max_streams_uni if uni else self._remote_max_streams_bidi
        return self.get_next_available_stream_id(is_unidirectional=uni) // 4 < limit

    def opened_by_us(self, stream_id: int) -> bool:
        """Whether this side opened the stream (RFC 9000 section 2.1)."""
        return stream_is_client_initiated(stream_id) == self._is_client

    def send_backlog(self, stream_id: int) -> int:
        """Bytes written to the stream that are not acknowledged yet; 0 for a stream that was reset or has ended."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return stream.sender._buffer_stop - stream.sender._buffer_start

    def unsent(self, stream_id: int) -> int:
        """Bytes written to the stream that have not been sent for the first time yet."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return stream.sender._buffer_stop - stream.sender.highest_offset

    def send_finished(self, stream_id: int) -> bool:
        """Whether all that was written, with its end, is acknowledged, or the stream was reset."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished or stream.sender._reset_error_code is not None

    # Datagrams (RFC 9221).

    @property
    def max_datagram_payload(self) -> int:
        """Bytes that a DATAGRAM can carry now; 0 if the peer takes none. It follows the path MTU."""
        peer_limit = self._remote_max_datagram_frame_size
        if not peer_limit:
            return 0
        # One byte of type and two of length before the payload; three bytes of header around the connection id.
        room = self._max_datagram_size - _SHORT_HEADER - len(self._peer_cid.cid) - _AEAD_TAG - 3
        return max(0, min(room, peer_limit - 3))

    def send_datagram(self, data: bytes) -> None:
        """Queue a datagram; raises DatagramTooLargeError. A full queue drops its oldest."""
        limit = self.max_datagram_payload
        if len(data) > limit:
            raise DatagramTooLargeError(len(data), limit)
        self._datagram_limit = max(self._datagram_limit, limit)
        pending = self._datagrams_pending
        if len(pending) >= self._settings.datagram_queue:
            pending.popleft()
            self._stats.datagrams_dropped += 1
        pending.append(data)

    @property
    def datagrams_waiting(self) -> int:
        """Datagrams that are queued and not sent yet."""
        return len(self._datagrams_pending)

    def send_datagram_frame(self, data: bytes) -> None:
        """As `send_datagram`."""
        self.send_datagram(data)

    def _drop_unsendable_datagrams(self) -> None:
        """The MTU may have fallen since they were queued, and one that does not fit would block all behind it."""
        limit = self.max_datagram_payload
        if limit < self._datagram_limit:
            kept = [data for data in self._datagrams_pending if len(data) <= limit]
            self._stats.datagrams_dropped += len(self._datagrams_pending) - len(kept)
            self._datagrams_pending.clear()
            self._datagrams_pending.extend(kept)
        self._datagram_limit = limit

    # Paths.

    def path_changed(self, now: float, *, mtu: int = BASE_MTU) -> None:
        """The real path below is another one, on which `mtu` bytes are known to pass.

        Congestion control, pacing, RTT and the MTU search start afresh; what is in flight keeps counting. A probe
        goes out at once, so that what the old path lost is found in one round trip.
        """
        self._clock = now
        self._pmtu.path_changed(mtu, now)
        self._recovery.path_changed(now, self._pmtu.mtu)
        self._follow_mtu()
        self._probe_pending = True

    def path_restored(self, now: float) -> None:
        """A path is back after an outage or a sleep: forget the back-off and probe at once."""
        self._clock = now
        self._pmtu.path_restored(now)
        self._recovery.path_restored(now)

    def probe_now(self, now: float, *, forget_backoff: bool) -> None:
        """Probe at once, as if the probe timer had gone off."""
        self._clock = now
        self._recovery.probe_now(now, forget_backoff=forget_backoff)

    def next_packet(self) -> int:
        """The number of the packet that is sent next, for `acknowledged`."""
        return self._packet_number

    def acknowledged(self, packet_number: int) -> bool:
        """Whether the peer has acknowledged a 1-RTT packet of this number or a later one."""
        return self._spaces[tls.Epoch.ONE_RTT].largest_acked_packet >= packet_number

    @property
    def awaits_answer(self) -> bool:
        """Whether something that we sent has to be acknowledged."""
        return bool(self._loss.bytes_in_flight > 0)

    @property
    def keeps_alive(self) -> bool:
        """Whether all that has to be acknowledged is a keep-alive that was sent just now, for the first time."""
        return self._keeping and bool(self._loss.bytes_in_flight <= _KEEP_ALIVE_SIZE)

    def packet_too_big(self, size: int, now: float) -> None:
        """The socket refused a datagram of `size` bytes (EMSGSIZE)."""
        self._pmtu.refused(size, now)
        self._follow_mtu()

    @property
    def mtu(self) -> int:
        """Largest UDP payload that we send now, bytes; worth remembering with the path."""
        return self._max_datagram_size

    @property
    def rtt(self) -> float | None:
        """Smoothed RTT in seconds, None before the first sample on this path."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    def _follow_mtu(self) -> None:
        size = self._pmtu.mtu
        if size != self._max_datagram_size:
            self._max_datagram_size = size
            self._recovery.set_max_datagram_size(size)

    def _mtu_probe(self, size: int, now: float) -> list[tuple[bytes, Any]]:
        path = self._network_paths[0]
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version or QuicProtocolVersion.VERSION_1,
        )
        try:
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
            buf = builder.start_frame(QuicFrameType.PING, handler=self._on_mtu_probe, handler_args=(size,))
            buf.push_bytes(bytes(builder.remaining_buffer_space))
        except QuicPacketBuilderStop:
            self._pmtu.lost(size, now)
            return []
        datagrams, packets = builder.flush()
        for packet in packets:
            packet.in_flight = False  # its loss is no sign of congestion (RFC 9000 section 14.4)
            packet.sent_time = now
            self._loss.on_packet_sent(packet=packet, space=self._spaces[packet.epoch])
        self._packet_number = builder.packet_number
        return [(data, path.addr) for data in datagrams]

    def _on_mtu_probe(self, delivery: QuicDeliveryState, size: int) -> None:
        if delivery == QuicDeliveryState.ACKED:
            self._pmtu.acked(size, self._clock)
        else:
            self._pmtu.lost(size, self._clock)
        self._follow_mtu()

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        buf = Buffer(data=data)  # aioquic has parsed it, so it is well formed
        while not buf.eof():
            kind, length = buf.pull_uint_var(), buf.pull_uint_var()
            if kind == _MAX_UDP_PAYLOAD_SIZE:
                self._pmtu.limit(buf.pull_uint_var())
                return
            buf.pull_bytes(length)

    @property
    def stats(self) -> EngineStats:
        """Counters up to now."""
        return attrs.evolve(
            self._stats,
            packets_lost=self._recovery.packets_lost,
            fast_packets_sent=self.fast_packets_sent,
            fast_packets_received=self.fast_packets_received,
            rtt=self._loss._rtt_smoothed,
            cwnd=self._loss.congestion_window,
            bytes_in_flight=self._loss.bytes_in_flight,
            mtu=self._max_datagram_size,
            black_holes=self._pmtu.black_holes,
        )
