"""Who is at the other end: raw public keys, ALPN, tickets and connection ids of one QUIC connection."""

from __future__ import annotations

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.connection import MAX_EARLY_DATA, QuicReceiveContext

from tom_connect.keys import NodeId, SecretKey
from tom_connect.quic.events import HandshakeConfirmed
from tom_connect.quic.holding import HeldConfirmation
from tom_connect.quic.initial import safe_cid
from tom_connect.quic.tickets import PeerTicket, TicketStore
from tom_connect.quic.tls import RawKeyContext

MAX_CIDS = 4
"""Connection ids that we give out and keep of the peer's. They let a peer change its path unlinkably; ours changes
below QUIC, so that a few do, and each costs a place in the tables of both sides."""


class Authenticated(HeldConfirmation):
    """A QUIC connection whose both ends prove Ed25519 keys, or resume a session in which they did."""

    def _set_up_identity(
        self,
        secret_key: SecretKey,
        dialed: NodeId | None,
        alpns: tuple[str, ...],
        ticket: PeerTicket | None,
        ticket_store: TicketStore | None,
        early_data_alpns: frozenset[str],
    ) -> None:
        self._secret_key = secret_key
        self._dialed = dialed
        self._alpns = alpns
        self._ticket = ticket
        self._ticket_store = ticket_store
        self._early_data_alpns = early_data_alpns
        self._redeemed: PeerTicket | None = None
        self._confirmed_reported = False

    def _choose_cids(self) -> None:
        self._local_active_connection_id_limit = MAX_CIDS
        first = self._host_cids[0]
        first.cid = safe_cid(first.cid)
        self.host_cid = self._local_initial_source_connection_id = first.cid

    @property
    def is_client(self) -> bool:
        """Whether this side dialed."""
        return self._is_client

    @property
    def own_node_id(self) -> NodeId:
        """The key that we prove."""
        return self._secret_key.node_id

    @property
    def peer_node_id(self) -> NodeId | None:
        """The key that the peer has proven, or None before that. After resumption, the key of the first time."""
        context = self._context
        if context is None:
            return None
        if context.session_resumed:
            ticket = self._ticket if self._is_client else self._redeemed
            return ticket.peer if ticket is not None else None
        return context.proven_peer

    @property
    def _context(self) -> RawKeyContext | None:
        context = getattr(self, "tls", None)
        return context if isinstance(context, RawKeyContext) else None

    @property
    def alpn(self) -> str | None:
        """The negotiated application protocol, None before it is known."""
        context = self._context
        return context.alpn_negotiated if context is not None else None

    @property
    def confirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001 section 4.1.2): both sides have proven their keys."""
        return self._handshake_confirmed

    @property
    def early_data_accepted(self) -> bool:
        """Whether the server took our 0-RTT data (or, on a server, we take the client's)."""
        context = self._context
        return context is not None and context.early_data_accepted

    @property
    def early_data_ready(self) -> bool:
        """Client only: whether data written now goes out as 0-RTT."""
        return (
            self._is_client
            and not self._handshake_complete
            and tls.Epoch.ZERO_RTT in self._cryptos
            and self._cryptos[tls.Epoch.ZERO_RTT].send.is_valid()
        )

    def host_cids(self) -> list[bytes]:
        """The connection ids that the peer may put on packets to us, now; none begins with an ASCII digit."""
        return [connection_id.cid for connection_id in self._host_cids]

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        stock = self.tls
        context = RawKeyContext(
            is_client=self._is_client,
            secret_key=self._secret_key,
            alpns=list(self._alpns),
            expected_peer=self._dialed,
            logger=self._logger,
        )
        context.handshake_extensions = stock.handshake_extensions
        if self._is_client:
            context.handshake_extensions += context.offer()
        context.session_ticket = stock.session_ticket
        context.alpn_cb = stock.alpn_cb
        context.get_session_ticket_cb = stock.get_session_ticket_cb
        context.new_session_ticket_cb = stock.new_session_ticket_cb
        context.update_traffic_key_cb = stock.update_traffic_key_cb
        self.tls = context

    def _alpn_handler(self, alpn_protocol: str) -> None:
        super()._alpn_handler(alpn_protocol)
        context = self._context
        assert context is not None
        context.handshake_extensions += context.negotiate_certificate_types()
        if not self._is_client and alpn_protocol in self._early_data_alpns:
            context._max_early_data = MAX_EARLY_DATA

    def _update_traffic_key(
        self, direction: tls.Direction, epoch: tls.Epoch, cipher_suite: tls.CipherSuite, secret: bytes
    ) -> None:
        if epoch is tls.Epoch.ZERO_RTT and not self._is_client:
            redeemed = self._redeemed
            if redeemed is None or not redeemed.allows_early_data:
                # A client may ask for 0-RTT although its ticket does not allow it; it sends the data again.
                self.tls.early_data_accepted = False
                return
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)

    def _redeem_ticket(self, identity: bytes) -> tls.SessionTicket | None:
        alpn = self.tls.alpn_negotiated
        if self._ticket_store is None or alpn is None:
            return None
        self._redeemed = self._ticket_store.redeem(identity, alpn)
        return self._redeemed.ticket if self._redeemed is not None else None

    def _store_ticket(self, ticket: tls.SessionTicket) -> None:
        peer, alpn = self.peer_node_id, self.alpn
        if self._ticket_store is None or peer is None or alpn is None:
            return
        kept = PeerTicket(peer, alpn, ticket)
        if self._is_client:
            self._ticket_store.keep(kept)
        else:
            self._ticket_store.issue(kept)

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        self._report_confirmed()

    def _report_confirmed(self) -> None:
        peer, alpn = self.peer_node_id, self.alpn
        if self._confirmed_reported or peer is None or alpn is None:
            return
        self._confirmed_reported = True
        self._events.append(
            HandshakeConfirmed(
                peer_node_id=peer,
                alpn=alpn,
                early_data_accepted=self.early_data_accepted,
                session_resumed=self.tls.session_resumed,
            )
        )

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        if self._handshake_confirmed and self._crypto_buffers:
            self._free_handshake_memory()

    def _handle_handshake_done_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_handshake_done_frame(context, frame_type, buf)
        if self._handshake_confirmed and self._crypto_buffers:
            self._free_handshake_memory()

    def _free_handshake_memory(self) -> None:
        # Three output buffers of 16 KiB each; after the handshake TLS writes nothing more.
        self._crypto_buffers = {}

    def _replenish_connection_ids(self) -> None:
        self._remote_active_connection_id_limit = min(self._remote_active_connection_id_limit, MAX_CIDS)
        super()._replenish_connection_ids()
        for connection_id in self._host_cids:
            if not connection_id.was_sent:
                connection_id.cid = safe_cid(connection_id.cid)
