"""The event that aioquic lacks; the others are in `aioquic.quic.events`."""

from __future__ import annotations

from dataclasses import dataclass

from aioquic.quic.events import QuicEvent

from tom_connect.keys import NodeId


@dataclass
class HandshakeConfirmed(QuicEvent):
    """Both sides have proven their keys and know that the other knows it (RFC 9001 section 4.1.2).

    It is the one event, on both sides, after which an application may be told that it is connected.
    """

    peer_node_id: NodeId
    alpn: str
    early_data_accepted: bool
    session_resumed: bool
