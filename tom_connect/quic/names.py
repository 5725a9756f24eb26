"""The names of aioquic that this folder stands on, checked when it is imported.

aioquic has no public interface for most of what a peer-to-peer transport needs, so we subclass it. A release that
moved one of these names would otherwise fail in the middle of a handshake, or not fail and be wrong.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from tom_connect.exceptions import LocalError

SUPPORTED = "aioquic>=1.7.2,<1.8"

TLS = "aioquic.tls"
CONNECTION = "aioquic.quic.connection"
RECOVERY = "aioquic.quic.recovery"
BUILDER = "aioquic.quic.packet_builder"
PACKET = "aioquic.quic.packet"


class IncompatibleAioquicError(LocalError, ImportError):
    """The installed aioquic lacks a name that tom-connect uses; install the version range in the message."""


REQUIRED_METHODS: tuple[tuple[str, str, str], ...] = (
    (TLS, "Context._set_peer_certificate", "self certificate"),
    (TLS, "Context._check_certificate_verify_signature", "self verify"),
    (TLS, "Context._server_expect_finished", "self"),
    (TLS, "Context.handle_message", "self input_data output_buf"),
    (CONNECTION, "QuicConnection._initialize", "self peer_cid"),
    (CONNECTION, "QuicConnection._alpn_handler", "self alpn_protocol"),
    (CONNECTION, "QuicConnection._update_traffic_key", "self direction epoch cipher_suite secret"),
    (CONNECTION, "QuicConnection._parse_transport_parameters", "self data from_session_ticket"),
    (CONNECTION, "QuicConnection._confirm_handshake", "self"),
    (CONNECTION, "QuicConnection._handle_crypto_frame", "self context frame_type buf"),
    (CONNECTION, "QuicConnection._replenish_connection_ids", "self"),
    (CONNECTION, "QuicConnection._payload_received", "self context plain crypto_frame_required"),
    (CONNECTION, "QuicConnection._handle_connection_close_frame", "self context frame_type buf"),
    (CONNECTION, "QuicConnection._handle_reset_stream_frame", "self context frame_type buf"),
    (CONNECTION, "QuicConnection._handle_stream_frame", "self context frame_type buf"),
    (CONNECTION, "QuicConnection._handle_stop_sending_frame", "self context frame_type buf"),
    (CONNECTION, "QuicConnection._write_connection_limits", "self builder space"),
    (CONNECTION, "QuicConnection._write_stream_limits", "self builder space stream"),
    (CONNECTION, "QuicConnection._on_max_stream_data_delivery", "self delivery stream"),
    (CONNECTION, "QuicConnection._on_connection_limit_delivery", "self delivery limit"),
    (CONNECTION, "QuicConnection._flush_builder", "self builder network_path peer_cid now"),
    (CONNECTION, "QuicConnection._get_or_create_stream_for_send", "self stream_id"),
    (CONNECTION, "QuicConnection._stream_is_discarded", "self stream_id"),
    (CONNECTION, "QuicConnection._stream_limit", "self stream_id"),
    (CONNECTION, "QuicConnection.connect", "self addr now"),
    (CONNECTION, "QuicConnection.receive_datagram", "self data addr now"),
    (CONNECTION, "QuicConnection.datagrams_to_send", "self now"),
    (CONNECTION, "QuicConnection.handle_timer", "self now"),
    (CONNECTION, "QuicConnection.get_timer", "self"),
    (RECOVERY, "QuicPacketRecovery.on_ack_received", "self ack_rangeset ack_delay now space"),
    (RECOVERY, "QuicPacketRecovery.on_packet_sent", "self packet space"),
    (RECOVERY, "QuicPacketRecovery.on_loss_detection_timeout", "self now"),
    (RECOVERY, "QuicPacketRecovery.get_loss_detection_time", "self amplification_limited"),
    (
        RECOVERY,
        "QuicPacketRecovery._on_packets_lost",
        "self congestion_event now packets persistent_congestion space",
    ),
    (RECOVERY, "QuicPacketRecovery.reschedule_data", "self now speed_up_handshake"),
    (RECOVERY, "QuicPacketPacer.update_rate", "self congestion_window smoothed_rtt"),
    (RECOVERY, "create_congestion_control", "name max_datagram_size"),
    (BUILDER, "QuicPacketBuilder.start_packet", "self packet_type crypto"),
    (BUILDER, "QuicPacketBuilder.start_frame", "self frame_type capacity handler handler_args"),
    (BUILDER, "QuicPacketBuilder.flush", "self"),
    (PACKET, "pull_quic_header", "buf host_cid_length"),
    (
        PACKET,
        "encode_quic_retry",
        "version source_cid destination_cid original_destination_cid retry_token unused",
    ),
    (PACKET, "encode_quic_version_negotiation", "source_cid destination_cid supported_versions"),
)
"""Module, function and its parameters: what we call or override."""

REQUIRED_GLOBALS: tuple[tuple[str, str], ...] = (
    ("aioquic._buffer", "Buffer"),
    (TLS, "Alert"),
    (TLS, "AlertBadCertificate"),
    (TLS, "AlertUnsupportedCertificate"),
    (TLS, "SessionTicket"),
    (CONNECTION, "Limit"),
    (CONNECTION, "MAX_EARLY_DATA"),
    (CONNECTION, "QuicConnectionId"),
    (CONNECTION, "END_STATES"),
    (RECOVERY, "QuicPacketSpace"),
    ("aioquic.quic.retry", "QuicRetryTokenHandler"),
    ("aioquic.quic.crypto", "CryptoPair"),
)

REQUIRED_ATTRIBUTES: dict[str, str] = {
    "connection": """
        _host_cids host_cid _host_cid_seq _local_initial_source_connection_id _local_max_data
        _local_max_streams_bidi _local_max_streams_uni _local_max_stream_data_bidi_local
        _remote_max_datagram_frame_size _remote_max_streams_bidi _remote_max_streams_uni
        _remote_max_data _remote_max_data_used _local_next_stream_id_bidi _local_next_stream_id_uni
        _datagrams_pending _crypto_buffers _crypto_streams _cryptos _spaces _streams _streams_queue _loss
        _max_datagram_size _network_paths _packet_number _peer_cid _close_event _close_pending _close_at _events
        _handshake_complete _handshake_confirmed _handshake_done_pending _probe_pending _ping_pending _state _version
        _configuration _logger _original_destination_connection_id _session_ticket_fetcher _session_ticket_handler""",
    "recovery": """
        _cc _pacer _pto_count _rtt_initial _rtt_initialized _rtt_latest _rtt_min _rtt_smoothed _rtt_variance
        _rtt_first_sample_time _time_of_last_sent_ack_eliciting_packet handshake_confirmed max_ack_delay spaces""",
    "pacer": "_max_datagram_size bucket_max bucket_time evaluation_time packet_time",
    "space": "largest_acked_packet",
    "path": "is_validated bytes_sent bytes_received",
    "congestion": "_max_datagram_size bytes_in_flight congestion_window ssthresh _congestion_recovery_start_time",
    "sender": "_buffer_start _buffer_stop _reset_error_code highest_offset buffer_is_empty is_finished",
    "receiver": "_buffer_start highest_offset is_finished stop_pending",
    "context": """
        certificate certificate_private_key received_extensions handshake_extensions early_data_accepted
        alpn_negotiated session_resumed get_session_ticket_cb new_session_ticket_cb update_traffic_key_cb alpn_cb
        _signature_algorithms _supported_groups _session_resumed _is_client _max_early_data _peer_certificate
        _request_client_certificate _receive_buffer""",
}
"""What instances have: connection, recovery and so on as `_instances` makes them."""


def lookup(module: str, path: str) -> Any:
    """The object at a dotted path in a module, or None."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        return None
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def parameters(function: Callable[..., Any]) -> str:
    """The names of a function's parameters, with spaces between."""
    return " ".join(inspect.signature(function).parameters)


def moved(methods: Iterable[tuple[str, str, str]]) -> list[str]:
    """Which of these functions are missing or take other parameters."""
    lacks = []
    for module, path, expected in methods:
        function = lookup(module, path)
        if function is None:
            lacks.append(f"{module}.{path}")
        elif (found := parameters(function)) != expected:
            lacks.append(f"{module}.{path}({found.replace(' ', ', ')})")
    return lacks


def missing_names() -> list[str]:
    """What the installed aioquic lacks or has with other parameters; empty for one that we can use."""
    lacks = moved(REQUIRED_METHODS)
    lacks += [f"{module}.{name}" for module, name in REQUIRED_GLOBALS if lookup(module, name) is None]
    return lacks or [
        f"{type(owner).__name__}.{name}"
        for kind, owner in _instances().items()
        for name in REQUIRED_ATTRIBUTES[kind].split()
        if not hasattr(owner, name)
    ]


def _instances() -> dict[str, Any]:
    configuration = lookup("aioquic.quic.configuration", "QuicConfiguration")()
    quic = lookup(CONNECTION, "QuicConnection")(configuration=configuration)
    loss = getattr(quic, "_loss", None)
    stream = lookup("aioquic.quic.stream", "QuicStream")(stream_id=0)
    return {
        "connection": quic,
        "recovery": loss,
        "pacer": getattr(loss, "_pacer", None),
        "space": lookup(RECOVERY, "QuicPacketSpace")(),
        "path": lookup(CONNECTION, "QuicNetworkPath")(("", 0)),
        "congestion": getattr(loss, "_cc", None),
        "sender": stream.sender,
        "receiver": stream.receiver,
        "context": lookup(TLS, "Context")(is_client=True),
    }


def require() -> None:
    """Raise IncompatibleAioquicError if a name has moved or aioquic can't be imported at all."""
    try:
        importlib.import_module(CONNECTION)
    except ImportError as error:
        raise IncompatibleAioquicError(
            f"tom-connect needs {SUPPORTED} in working order; run: pip install '{SUPPORTED}' ({error})"
        ) from error
    lacks = missing_names()
    if lacks:
        try:
            version = importlib.metadata.version("aioquic")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        raise IncompatibleAioquicError(
            f"tom-connect needs {SUPPORTED}, found aioquic {version}; run: pip install '{SUPPORTED}' "
            f"(missing or changed: {', '.join(lacks)})"
        )


def cache_epochs() -> bool:
    """Let aioquic compute each set of epochs once per process, not 31 times per connection; whether it could.

    The sets are frozen, so sharing them changes nothing but 0.3 ms and 6 KiB a connection.
    """
    module = importlib.import_module(CONNECTION)
    epochs = getattr(module, "EPOCHS", None)
    if epochs is None or parameters(epochs) != "shortcut":
        return False
    if not hasattr(epochs, "cache_info"):
        module.EPOCHS = functools.lru_cache(maxsize=32)(epochs)  # type: ignore[attr-defined]
    return True
