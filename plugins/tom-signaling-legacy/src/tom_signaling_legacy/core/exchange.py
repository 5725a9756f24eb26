"""What two nodes of tom-connect say to each other in the payload of a `signal`: where are you, and here is my record.

    {"type": "tom-record-request", "id": ID}
    {"type": "tom-record", "id": ID, "record": BASE64 or null}
    {"type": "tom-call", "call": BASE64}

ID: 1 to 64 letters and digits of the asker's. The record is a signed packet (`SignedRecord.to_bytes`) in base64
(RFC 4648 section 4), null where a node has none to give. A call is a call-me-maybe that the core has sealed for the
node; nothing answers it here. Other payloads are those of other programs, and not for us.
"""

from __future__ import annotations

import base64
import binascii
import re

import attrs

from tom_connect.exceptions import RecordError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord

REQUEST = "tom-record-request"
ANSWER = "tom-record"
CALL = "tom-call"
MAX_CALL = 2000
"""Characters of a call: a sealed packet fits into one datagram, 1500 bytes at most."""
MAX_RECORD = 1500
"""Characters of a record: 1100 bytes in base64."""
MAX_AGE = 24 * 3600.0
"""Seconds: an older record says nothing any more of where a node is."""
MAX_AHEAD = 2 * 3600.0
"""Seconds that a timestamp may lie in the future, for wrong clocks; it prolongs a replay by as much."""

_ID = re.compile(r"[A-Za-z0-9]{1,64}")


@attrs.frozen
class Request:
    """Asks for a record. `id`: to be given back with the answer."""

    id: str

    def payload(self) -> dict[str, object]:
        """The payload that says it."""
        return {"type": REQUEST, "id": self.id}


@attrs.frozen
class Answer:
    """Gives a record as it came, unverified; None where the node has none."""

    id: str
    record: object

    @classmethod
    def of(cls, request: Request, record: SignedRecord | None) -> Answer:
        """The answer to a request."""
        return cls(request.id, None if record is None else base64.b64encode(record.to_bytes()).decode("ascii"))

    def payload(self) -> dict[str, object]:
        """The payload that says it."""
        return {"type": ANSWER, "id": self.id, "record": self.record}


@attrs.frozen
class Calling:
    """Calls a node. `sealed`: what the caller has to say, for the node alone."""

    sealed: bytes

    def payload(self) -> dict[str, object]:
        """The payload that says it."""
        return {"type": CALL, "call": base64.b64encode(self.sealed).decode("ascii")}


def read_payload(payload: object) -> Request | Answer | Calling | None:
    """What a payload says; None if it is none of ours."""
    if not isinstance(payload, dict):
        return None
    if payload.get("type") == CALL:
        return _read_call(payload.get("call"))
    request_id = payload.get("id")
    if not isinstance(request_id, str) or _ID.fullmatch(request_id) is None:
        return None
    match payload.get("type"):
        case "tom-record-request":
            return Request(request_id)
        case "tom-record":
            return Answer(request_id, payload.get("record"))
        case _:
            return None


def _read_call(text: object) -> Calling | None:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_CALL:
        return None
    try:
        return Calling(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None


def verified(answer: Answer, node_id: NodeId, wall: float) -> SignedRecord:
    """The record in an answer, signed by `node_id` and of our time (`wall`: seconds since 1970); raises RecordError."""
    text = answer.record
    if not isinstance(text, str):
        raise RecordError("it has no signed record")
    if len(text) > MAX_RECORD:
        raise RecordError(f"its record has {len(text)} characters, at most {MAX_RECORD} are allowed")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RecordError("its record is not base64") from None
    record = SignedRecord.from_bytes(data)
    if record.node_id != node_id:
        raise RecordError(f"its record is that of {record.node_id!r}")
    age = wall - record.timestamp_us / 1e6
    if age > MAX_AGE:
        raise RecordError(f"its record is {age / 3600:.1f} h old")
    if -age > MAX_AHEAD:
        raise RecordError(f"its record is dated {-age / 3600:.1f} h ahead of this machine's clock")
    record.addr  # noqa: B018 - raises for what is not a DNS packet
    return record
