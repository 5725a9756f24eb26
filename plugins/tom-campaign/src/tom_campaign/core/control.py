"""The control channel of a node: requests and answers as JSON lines, the same for our processes and for responders.

A request is `{"id": 1, "do": "ping", ...}`. Its answer is `{"id": 1, "ok": {...}}` or `{"id": 1, "error": "..."}`;
before it may come any number of `{"id": 1, "event": {...}}`. A node begins with `{"hello": {...}}`. Requests are
answered as they are done, not in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from tom_campaign.core.errors import ControlError
from tom_campaign.core.statistics import RttStatistics
from tom_campaign.core.typed import MistypedError, typed

MAX_LINE: Final = 64 * 1024
"""Bytes of a line: a result with its samples has a few thousand, a list of 200 node ids 14,000."""
MAX_REQUESTS: Final = 64
"""Requests that a node works on at the same time; more are refused."""
MAX_TEXT: Final = 2048
"""Characters of a text in a request, such as a ticket with many addresses."""
CONTROL_ALPN: Final = "tom-campaign-control/1"
"""How a controller speaks with a responder: one stream, lines as here."""
DATA_ALPN: Final = "tom-campaign/1"
"""How nodes measure each other."""


def _within(low: float, high: float) -> Any:
    def check(_self: object, field: attrs.Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"{field.name}: {value!r} is not allowed; expected {low:g} to {high:g}")

    return check


def _text(_self: object, field: attrs.Attribute[Any], value: str) -> None:
    if not 0 < len(value) <= MAX_TEXT:
        raise ValueError(f"{field.name}: expected 1 to {MAX_TEXT} characters")


def _few(_self: object, field: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    if len(value) > 1000:
        raise ValueError(f"{field.name}: expected at most 1000")


_SECONDS: Final = _within(0.0, 7 * 86400.0)


@attrs.frozen(kw_only=True)
class Hello:
    """What a node says first."""

    node_id: str = ""
    version: str
    plugins: tuple[str, ...] = ()
    ticket: str = ""


@attrs.frozen(kw_only=True)
class Bind:
    """Open the endpoint. Only our own processes take it; a responder is bound as its owner says."""

    config: dict[str, Any]
    """Options as in a configuration file."""


@attrs.frozen(kw_only=True)
class Ready:
    """Wait until the node can be found and reached."""

    timeout: float = attrs.field(validator=_SECONDS)
    published: bool = False
    """Wait until its address is published."""
    relay: bool = False
    """Wait until a relay has let it in."""


@attrs.frozen(kw_only=True)
class Admit:
    """Let these nodes connect to be measured with; replaces those let in before."""

    nodes: tuple[str, ...] = attrs.field(validator=_few)


@attrs.frozen(kw_only=True)
class Resolve:
    """Look up where a node is."""

    target: str = attrs.field(validator=_text)
    timeout: float = attrs.field(validator=_SECONDS)
    fresh: bool = False


@attrs.frozen(kw_only=True)
class Connect:
    """Dial anew, closing the connection that there may be."""

    target: str = attrs.field(validator=_text)
    timeout: float = attrs.field(validator=_SECONDS)
    direct_wait: float = attrs.field(validator=_SECONDS)


@attrs.frozen(kw_only=True)
class Ping:
    """Send messages at a steady pace and count the answers, over the connection that there is or a new one."""

    target: str = attrs.field(validator=_text)
    timeout: float = attrs.field(validator=_SECONDS)
    count: int = attrs.field(validator=_within(1, 10_000_000))
    interval: float = attrs.field(validator=_within(0.000_01, 3600.0))
    size: int = attrs.field(validator=_within(16, 1000))
    reliable: bool = False
    """On a stream, so that nothing is lost while the connection lasts; else in datagrams."""
    every: float = attrs.field(default=0.0, validator=_SECONDS)
    """Seconds between two events with the figures since the last one; 0: none."""


@attrs.frozen(kw_only=True)
class Transfer:
    """Send blocks on a stream, and have what arrived told back with its hash."""

    target: str = attrs.field(validator=_text)
    timeout: float = attrs.field(validator=_SECONDS)
    blocks: int = attrs.field(validator=_within(1, 65_536))


@attrs.frozen(kw_only=True)
class Close:
    """Close the connection with a node, if there is one."""

    target: str = attrs.field(validator=_text)


@attrs.frozen(kw_only=True)
class Window:
    """The event of a Ping with `every`: what came of the messages since the last one."""

    elapsed_s: float
    window_s: float
    sent: int
    received: int
    total_sent: int
    total_received: int
    reconnections: int
    path_kind: str
    rtt: RttStatistics
    discovery_source: str | None = None


Ask = Bind | Ready | Admit | Resolve | Connect | Ping | Transfer | Close
ASKS: Final[Mapping[str, type[Any]]] = {
    "bind": Bind,
    "ready": Ready,
    "admit": Admit,
    "resolve": Resolve,
    "connect": Connect,
    "ping": Ping,
    "transfer": Transfer,
    "close": Close,
}
"""What can be asked, by the word in `do`."""
_WORDS: Final = {cls: word for word, cls in ASKS.items()}


def request_line(number: int, ask: Ask) -> bytes:
    """The line of a request."""
    return _line({"id": number, "do": _WORDS[type(ask)], **attrs.asdict(ask)})


def ok_line(number: int, answer: Mapping[str, Any]) -> bytes:
    """The line of an answer."""
    return _line({"id": number, "ok": answer})


def event_line(number: int, event: Mapping[str, Any]) -> bytes:
    """The line of an event."""
    return _line({"id": number, "event": event})


def error_line(number: int, error: str) -> bytes:
    """The line of a refusal or failure."""
    return _line({"id": number, "error": error[:1000]})


def hello_line(hello: Hello) -> bytes:
    """The line that a node begins with."""
    return _line({"hello": attrs.asdict(hello)})


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def parsed_line(line: bytes) -> dict[str, Any]:
    """The object in a line; raises ControlError."""
    if len(line) > MAX_LINE:
        raise ControlError(f"a line of more than {MAX_LINE} bytes")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("a line that is not JSON") from None
    if not isinstance(message, dict):
        raise ControlError("a line that is not a JSON object")
    return message


def parsed_request(line: bytes) -> tuple[int, Ask]:
    """Number and content of a request; raises ControlError, whose `number` is that of the request where it has one."""
    message = parsed_line(line)
    number, do = message.pop("id", None), message.pop("do", None)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**53:
        raise ControlError("a request without a number")
    if not isinstance(do, str) or do not in ASKS:
        raise BadRequestError(number, f"{str(do)[:40]!r} can't be asked")
    try:
        return number, typed(ASKS[do], message, do)
    except MistypedError as exc:
        raise BadRequestError(number, str(exc)) from None


class BadRequestError(ControlError):
    """A request that has a number, but makes no sense."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def parsed_hello(line: bytes) -> Hello:
    """The first line of a node; raises ControlError."""
    try:
        return typed(Hello, parsed_line(line).get("hello"), "hello")
    except MistypedError as exc:
        raise ControlError(str(exc)) from None


@attrs.define
class LineSplitter:
    """Cuts a stream of bytes into lines of at most `limit` bytes."""

    limit: int = MAX_LINE
    _rest: bytearray = attrs.Factory(bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now, without their ends; raises ControlError for one that is too long."""
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            if len(line) > self.limit:
                raise ControlError(f"a line of more than {self.limit} bytes")
            yield line
        if len(self._rest) > self.limit:
            raise ControlError(f"a line of more than {self.limit} bytes")
