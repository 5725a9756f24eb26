"""The control channel's lines: requests and answers come back, rubbish is refused, nothing grows without bound."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_campaign.core.control import (
    MAX_LINE,
    Admit,
    Ask,
    BadRequestError,
    Bind,
    Close,
    Connect,
    Hello,
    LineSplitter,
    Ping,
    Ready,
    Resolve,
    Transfer,
    hello_line,
    parsed_hello,
    parsed_line,
    parsed_request,
    request_line,
)
from tom_campaign.core.errors import ControlError

ASKS: list[Ask] = [
    Bind(config={"dht": {"bootstrap": ["a:1"]}, "relay": []}),
    Ready(timeout=5, published=True),
    Admit(nodes=("aa", "bb")),
    Resolve(target="aa", timeout=1.5, fresh=True),
    Connect(target="aa", timeout=1, direct_wait=0),
    Ping(target="aa", timeout=1, count=3, interval=0.5, size=64, reliable=True, every=2),
    Transfer(target="aa", timeout=1, blocks=3),
    Close(target="aa"),
]


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: type(ask).__name__)
def test_requests_come_back(ask: Ask) -> None:
    """Each request is the same after its way through a line, as is its number."""
    assert parsed_request(request_line(7, ask)) == (7, ask)


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: type(ask).__name__)
def test_every_prefix_of_a_request_is_refused(ask: Ask) -> None:
    """A request that was cut off anywhere is none."""
    line = request_line(7, ask).rstrip()
    for end in range(len(line)):
        with pytest.raises(ControlError):
            parsed_request(line[:end])


@given(st.binary(max_size=200))
def test_rubbish_is_refused(data: bytes) -> None:
    """Whatever bytes come, they are a request or a ControlError."""
    with pytest.raises(ControlError):
        parsed_request(data)


@given(st.sampled_from(ASKS), st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_damaged_requests_break_nothing(ask: Ask, position: int, damage: bytes) -> None:
    """A request with a few wrong bytes is another request or a ControlError."""
    line = request_line(7, ask)
    try:
        parsed_request(line[:position] + damage + line[position + len(damage) :])
    except ControlError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 0},
        {"count": 10**9},
        {"interval": 0.0},
        {"interval": float("1e99")},
        {"size": 15},
        {"size": 1001},
        {"timeout": -1.0},
        {"target": ""},
        {"target": "x" * 3000},
    ],
)
def test_what_is_beyond_the_bounds_is_refused(fields: dict[str, object]) -> None:
    """Counts, sizes and times that nobody may ask for are refused with the request's number, so that it is answered."""
    good = parsed_line(request_line(7, ASKS[5]))

    with pytest.raises(BadRequestError) as raised:
        parsed_request(json.dumps(good | fields).encode())
    assert raised.value.number == 7


def test_unknown_words_and_fields_are_refused() -> None:
    """Nothing can be asked that is not in the table, nor with fields that mean nothing."""
    for line in (b'{"id": 1, "do": "run", "command": "rm"}', b'{"id": 1, "do": "close", "target": "a", "more": 1}'):
        with pytest.raises(BadRequestError):
            parsed_request(line)
    for line in (
        b'{"do": "close", "target": "a"}',
        b'{"id": -1, "do": "close"}',
        b"[1]",
        b'{"id": true, "do": "close"}',
    ):
        with pytest.raises(ControlError):
            parsed_request(line)


def test_a_greeting_comes_back() -> None:
    """What a node says of itself is read as it was written; an answer is no greeting."""
    hello = Hello(node_id="ab", version="1", plugins=("dht 1",), ticket="t")
    assert parsed_hello(hello_line(hello)) == hello
    with pytest.raises(ControlError):
        parsed_hello(b'{"ok": {}}')


@given(st.lists(st.text("a{\r é", max_size=8).map(str.encode), max_size=6), st.integers(1, 7))
def test_lines_are_cut_however_they_arrive(lines: list[bytes], step: int) -> None:
    """The same lines come out in whatever pieces they come in."""
    data, splitter = b"".join(line + b"\n" for line in lines), LineSplitter()
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert [line for piece in pieces for line in splitter.feed(piece)] == lines


def test_a_line_without_an_end_is_refused() -> None:
    """Who sends and sends without a line's end fills no memory."""
    splitter = LineSplitter()
    with pytest.raises(ControlError):
        [list(splitter.feed(b"x" * 1024)) for _ in range(MAX_LINE)]
    with pytest.raises(ControlError):
        list(LineSplitter(10).feed(b"x" * 11 + b"\n"))
    assert attrs.fields(LineSplitter).limit.default == MAX_LINE
