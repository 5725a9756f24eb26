"""The sans-IO QUIC connection: aioquic's state machine with what tom-connect needs on top."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection

from tom_connect.keys import NodeId, SecretKey
from tom_connect.quic.settings import TransportSettings
from tom_connect.quic.tickets import PeerTicket, TicketStore

PEER = "peer"
"""The one constant address that every connection knows its peer by; the magic socket knows the paths."""


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
    mtu: int = 1200


class Engine(QuicConnection):
    """One QUIC v1 connection with mutual authentication by raw public keys; bytes and `now` in, bytes and events out.

    Pump: `receive(data, now)` for each datagram; then all `next_event()`; `send(now)` gives the datagrams to send;
    `get_timer()` says when `handle_timer(now)` is due. After any call that makes something to send, call `send`.
    """

    @classmethod
    def client(
        cls,
        *,
        secret_key: SecretKey,
        peer: NodeId,
        alpns: Sequence[str],
        settings: TransportSettings,
        ticket: PeerTicket | None = None,
        token: bytes = b"",
        early_data: bool = False,
        ticket_store: TicketStore | None = None,
    ) -> Engine:
        """A client that dials `peer`; call `start(now)` next."""
        raise NotImplementedError

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
        """A server for the client whose first Initial was sent to `original_destination_connection_id`."""
        raise NotImplementedError

    authentic_packets: int
    """Packets that decrypted and were no duplicates."""

    # --- pump (all sans-IO)
    def start(self, now: float) -> None:
        """Client only: begin the handshake."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> None:
        """Take one datagram from the peer; never raises."""
        raise NotImplementedError

    def send(self, now: float) -> list[bytes]:
        """The datagrams to send now, in order."""
        raise NotImplementedError

    def next_event(self) -> events.QuicEvent | None:
        """The next event of aioquic.quic.events or HandshakeConfirmed, or None."""
        raise NotImplementedError

    # --- identity and handshake
    @property
    def peer_node_id(self) -> NodeId | None:
        """The key that the peer has proven, or None before that."""
        raise NotImplementedError

    @property
    def alpn(self) -> str | None:
        """The negotiated application protocol."""
        raise NotImplementedError

    @property
    def confirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001 section 4.1.2)."""
        raise NotImplementedError

    @property
    def early_data_accepted(self) -> bool:
        """Whether the server took our 0-RTT data (or, on a server, we took the client's)."""
        raise NotImplementedError

    @property
    def early_data_ready(self) -> bool:
        """Client only: whether data written now goes out as 0-RTT."""
        raise NotImplementedError

    def host_cids(self) -> list[bytes]:
        """The connection ids that the peer may put on packets to us, now; none begins with an ASCII digit."""
        raise NotImplementedError

    def error(self, event: events.ConnectionTerminated) -> Exception:
        """The TomError that says how the connection ended."""
        raise NotImplementedError

    # --- streams and flow control
    def open_stream(self, *, uni: bool) -> int:
        """Reserve the next stream id of ours; nothing is sent before data is."""
        raise NotImplementedError

    def can_open(self, uni: bool) -> bool:
        """Whether the peer's stream limit lets us open one more stream now."""
        raise NotImplementedError

    def consumed(self, stream_id: int, n: int) -> None:
        """The application has taken `n` bytes of the stream; only this extends what the peer may send."""
        raise NotImplementedError

    def stream_accepted(self, stream_id: int) -> None:
        """The application has taken a stream that the peer opened; only then may another take its place."""
        raise NotImplementedError

    def send_backlog(self, stream_id: int) -> int:
        """Bytes written to the stream that are not acknowledged yet."""
        raise NotImplementedError

    def unsent(self, stream_id: int) -> int:
        """Bytes written to the stream that have not been sent for the first time yet."""
        raise NotImplementedError

    # --- datagrams
    @property
    def max_datagram_payload(self) -> int:
        """Bytes that a DATAGRAM can carry now; 0 if the peer takes none."""
        raise NotImplementedError

    def send_datagram(self, data: bytes) -> None:
        """Queue a datagram; raises DatagramTooLargeError. A full queue drops its oldest."""
        raise NotImplementedError

    # --- paths
    def path_changed(self, now: float, *, mtu: int = 1200) -> None:
        """The real path below is another one: congestion, pacing, RTT and MTU start afresh."""
        raise NotImplementedError

    def path_restored(self, now: float) -> None:
        """A path is back after an outage: forget the back-off and probe at once."""
        raise NotImplementedError

    def packet_too_big(self, size: int, now: float) -> None:
        """The socket refused a datagram of `size` bytes (EMSGSIZE)."""
        raise NotImplementedError

    @property
    def mtu(self) -> int:
        """Largest UDP payload that we send now."""
        raise NotImplementedError

    @property
    def rtt(self) -> float | None:
        """Smoothed RTT in seconds, None before the first sample."""
        raise NotImplementedError

    @property
    def stats(self) -> EngineStats:
        """Counters up to now."""
        raise NotImplementedError

