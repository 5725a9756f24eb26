"""Messages as JSON text: read with every wrong shape in mind, written as existing clients read them.

All texts that are kept or passed on to many have a longest length; an optional field that has another shape counts as
not given, as a client that leaves it out means no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import attrs

from tom_signaling_legacy.core.limits import MAX_USERNAME
from tom_signaling_legacy.errors import MessageError

MAX_KEY = 512
"""Characters of `publicKey` and `encryptionKey`, which are hex or base64 of at most some 130 bytes."""
MAX_ROLES = 16
"""Roles in one assignment."""
MAX_ROLE = 64
"""Characters of a role's name."""
MAX_PARTICIPANTS = 8192
"""Participants that a client remembers of one list; what is behind them is not read."""

INVALID_JSON = "invalid JSON"
MISSING_NAME = "missing nodeId or username"
MISSING_PEER = "missing to or from"
PEER_NOT_FOUND = "peer not found"

_NODE_ID = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class Registration:
    """Who registers. `node_id`: 64 lower-case hex; `public_key`: "" if none was given."""

    node_id: str
    username: str
    public_key: str = ""
    encryption_key: str | None = None

    def participant(self) -> dict[str, str]:
        """The entry in a list of participants."""
        return {"nodeId": self.node_id, "username": self.username, **self._encryption()}

    def presence(self, action: str) -> str:
        """The message by which others hear of it; `action`: "join" or "leave"."""
        return write(
            {
                "type": "presence",
                "action": action,
                "nodeId": self.node_id,
                "username": self.username,
                "publicKey": self.public_key,
                **self._encryption(),
            }
        )

    def _encryption(self) -> dict[str, str]:
        return {} if self.encryption_key is None else {"encryptionKey": self.encryption_key}


def read(data: str | bytes) -> Any:
    """The JSON value in a message; raises MessageError.

    Refused besides what is not JSON (RFC 8259): numbers that JSON can't write back, and nesting too deep to be read.
    """
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise MessageError(f"not JSON: {type(exc).__name__}") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def write(message: Mapping[str, object]) -> str:
    """A message as one line of ASCII, at most three times as long as the UTF-8 that its values were read from."""
    return json.dumps(message, separators=(",", ":"))


def error(text: str) -> str:
    """The message that tells a client what was wrong."""
    return write({"type": "error", "error": text})


def participants(registrations: Sequence[Registration]) -> str:
    """The list of who is there."""
    return write({"type": "participants", "participants": [each.participant() for each in registrations]})


def is_node_id(value: object) -> bool:
    """Whether a value is a node id as signaling writes it: 64 lower-case hex digits."""
    return isinstance(value, str) and _NODE_ID.fullmatch(value) is not None


def read_registration(message: Mapping[str, object]) -> Registration | None:
    """Who registers; None if node id or name are missing, of the wrong shape or too long."""
    node_id, username = message.get("nodeId"), message.get("username")
    if not isinstance(node_id, str) or not is_node_id(node_id):
        return None
    if not isinstance(username, str) or not 0 < len(username) <= MAX_USERNAME:
        return None
    return Registration(node_id, username, _key(message, "publicKey") or "", _key(message, "encryptionKey"))


def _key(message: Mapping[str, object], name: str) -> str | None:
    value = message.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_KEY else None


def read_roles(message: Mapping[str, object]) -> tuple[str, list[str]] | None:
    """Node id and roles of an assignment; None if one is missing or of the wrong shape."""
    node_id, roles = message.get("nodeId"), message.get("roles")
    if not isinstance(node_id, str) or not is_node_id(node_id) or not isinstance(roles, list):
        return None
    if len(roles) > MAX_ROLES or not all(isinstance(role, str) and len(role) <= MAX_ROLE for role in roles):
        return None
    return node_id, roles


def read_participants(message: Mapping[str, object]) -> list[str] | None:
    """The node ids in a list of participants, without entries of the wrong shape; None if it is no list."""
    entries = message.get("participants")
    if not isinstance(entries, list):
        return None
    found = (entry.get("nodeId") for entry in entries[:MAX_PARTICIPANTS] if isinstance(entry, dict))
    return [node_id for node_id in found if isinstance(node_id, str) and is_node_id(node_id)]
