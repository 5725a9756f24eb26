"""What can be wrong with a campaign's input."""

from __future__ import annotations

from tom_connect.exceptions import InvalidInputError, TomError


class ScenarioError(InvalidInputError):
    """A scenario has a mistake; the message says the file, the line and the reason."""


class RecordFileError(InvalidInputError):
    """A file of records can't be read or continued; the message says the line and the reason."""


class ControlError(TomError):
    """A node broke the control channel's rules, or refused what it was asked."""


class NodeGoneError(ControlError):
    """A node's process has ended, or the connection with a responder is lost."""


class CampaignFailedError(TomError):
    """The campaign's verdict is FAIL."""
