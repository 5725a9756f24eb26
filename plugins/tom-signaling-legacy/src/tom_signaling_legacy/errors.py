"""The errors of tom-signaling-legacy."""

from __future__ import annotations

from tom_connect.exceptions import LocalError, NetworkError, ProtocolError, TomError


class SignalingError(TomError):
    """Base of every error of signaling."""


class MessageError(SignalingError, ProtocolError):
    """A message that is not what the protocol has; the message says what is wrong."""


class NotRegisteredError(SignalingError, NetworkError):
    """We are registered with no signaling server; the message names each with its reason."""


class SignalingServerError(SignalingError, LocalError):
    """The server can't run as it is configured, such as on a taken port."""
