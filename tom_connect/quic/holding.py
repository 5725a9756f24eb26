"""A server that confirms the handshake only when its application has accepted the connection."""

from __future__ import annotations

from tom_connect.quic.flow import FlowControlled


class HeldConfirmation(FlowControlled):
    """Keeps HANDSHAKE_DONE back until `release_confirmation`, so that a client's dial ends with the server's decision.

    The client's side stays unconfirmed meanwhile (RFC 9001 section 4.1.2); data may already flow.
    """

    _confirmation_due = False
    _confirmation_held = False

    def hold_confirmation(self) -> None:
        """Server only: confirm nothing until `release_confirmation`; call it before the handshake begins."""
        self._confirmation_held = True

    def release_confirmation(self) -> None:
        """Let HANDSHAKE_DONE go out; then call `send`."""
        self._confirmation_held = False

    # aioquic sets this when HANDSHAKE_DONE is due or was lost, and asks it when it writes packets.

    @property
    def _handshake_done_pending(self) -> bool:
        return self._confirmation_due and not self._confirmation_held

    @_handshake_done_pending.setter
    def _handshake_done_pending(self, due: bool) -> None:
        self._confirmation_due = due
