"""From the way a QUIC connection ended to the error that an application gets."""

from __future__ import annotations

from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription

from tom_connect.exceptions import (
    AlpnError,
    ConnectionClosedError,
    ConnectionLostError,
    ConnectionRefusedError,  # noqa: A004
    PeerIdentityError,
    ProtocolError,
    TomError,
)
from tom_connect.keys import NodeId

IDLE_REASON = "Idle timeout"  # the phrase of aioquic, which has no code of its own for it
NO_APPLICATION_PROTOCOL = QuicErrorCode.CRYPTO_ERROR + AlertDescription.no_application_protocol
BAD_CERTIFICATE = QuicErrorCode.CRYPTO_ERROR + AlertDescription.bad_certificate
_IDENTITY_ALERTS = frozenset(
    QuicErrorCode.CRYPTO_ERROR + alert
    for alert in (
        AlertDescription.bad_certificate,
        AlertDescription.unsupported_certificate,
        AlertDescription.certificate_required,
        AlertDescription.decrypt_error,
    )
)


def termination_error(
    event: ConnectionTerminated,
    *,
    by_peer: bool,
    confirmed: bool,
    offered_alpns: tuple[str, ...],
    dialed: NodeId | None = None,
    answered: NodeId | None = None,
) -> TomError:
    """The error for a connection that ended with `event`.

    `answered` is the key that answered where `dialed` was wanted. An orderly close, also with code 0, is a
    ConnectionClosedError.
    """
    code, reason = int(event.error_code), event.reason_phrase
    if answered is not None and dialed is not None:
        return PeerIdentityError(f"dialed {dialed}, but {answered} answered at that address")
    if not by_peer and reason == IDLE_REASON and code == QuicErrorCode.INTERNAL_ERROR:
        return ConnectionLostError(
            "nothing was heard from the peer until the idle time-out"
            if confirmed
            else "the peer did not answer the handshake"
        )
    if event.frame_type is None:
        return ConnectionClosedError(code, reason, by_peer=by_peer, is_application=True)
    if code == NO_APPLICATION_PROTOCOL:
        ours = ", ".join(offered_alpns) or "none"
        return AlpnError(f"the two sides share no application protocol; ours: {ours}")
    if code == QuicErrorCode.CONNECTION_REFUSED:
        return ConnectionRefusedError(code, reason, by_peer=by_peer, is_application=False)
    if code in _IDENTITY_ALERTS and not confirmed:
        who = "the peer refused our key" if by_peer else "the peer did not prove its key"
        return PeerIdentityError(f"{who}: {reason or AlertDescription(code - QuicErrorCode.CRYPTO_ERROR).name}")
    if not by_peer and code not in (QuicErrorCode.NO_ERROR, QuicErrorCode.APPLICATION_ERROR):
        return ProtocolError(f"QUIC error {code:#x}: {reason}")
    return ConnectionClosedError(code, reason, by_peer=by_peer, is_application=False)
