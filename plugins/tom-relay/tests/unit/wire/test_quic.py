"""The relay protocol over QUIC: what stands on the stream, what goes in datagrams."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_relay.errors import RelayDeniedError, WireError
from tom_relay.wire import (
    ClientHandshake,
    EndpointGone,
    Ping,
    ReceivedDatagrams,
    SendDatagrams,
    ServerConfirmsAuth,
    ServerDeniesAuth,
    decode_from_client,
    encode,
)
from tom_relay.wire.quic import DIALECT, MAX_FRAME, FrameReader, Way, in_datagram, on_stream, split, way_of

KEY = bytes(range(32))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.lists(st.integers(1, 50), min_size=1))
def test_frames_read_back_however_the_stream_is_cut(frames: list[bytes], cuts: list[int]) -> None:
    """The same frames come out, whatever pieces the stream arrives in; a prefix gives a prefix."""
    data = b"".join(map(on_stream, frames))
    reader, read, at, number = FrameReader(), [], 0, 0
    while at < len(data):
        size = cuts[number % len(cuts)]
        read += reader.feed(data[at : at + size])
        assert read == frames[: len(read)]
        at, number = at + size, number + 1
    assert read == frames


@pytest.mark.parametrize("size", [1, 63, 64, 16_383, 16_384, MAX_FRAME])
def test_lengths_at_their_bounds(size: int) -> None:
    """Each length of the length works, up to the largest frame."""
    assert FrameReader().feed(on_stream(bytes(size))) == [bytes(size)]


@pytest.mark.parametrize("data", [b"\x00", on_stream(bytes(MAX_FRAME + 1))[:8], b"\xff" * 8])
def test_bad_lengths_end_the_connection(data: bytes) -> None:
    """An empty frame, and one that is too large, are refused before anything of it is kept."""
    with pytest.raises(WireError):
        FrameReader().feed(data)


def test_rubbish_raises_nothing_else() -> None:
    """Whatever bytes come, there are frames or a WireError."""
    rng = random.Random(7)
    for _ in range(3000):
        reader = FrameReader()
        for _piece in range(4):
            with contextlib.suppress(WireError):
                reader.feed(rng.randbytes(rng.randrange(60)))


def test_ways() -> None:
    """What fits goes in a datagram; 1200 bytes always pass; more than fits is dropped; all else is on the stream."""
    small, large = (encode(SendDatagrams(KEY, bytes(size)), DIALECT) for size in (1200, 1201))
    assert way_of(small, len(small)) is way_of(large, len(large)) is Way.DATAGRAM
    assert way_of(small, len(small) - 1) is way_of(small, 0) is Way.STREAM
    assert way_of(large, len(large) - 1) is way_of(large, 0) is Way.NONE
    assert way_of(encode(Ping(bytes(8)), DIALECT), 1400) is way_of(encode(EndpointGone(KEY), DIALECT), 0) is Way.STREAM


@given(st.binary(min_size=1, max_size=200), st.integers(1, 90), st.integers(0, 3))
def test_batches_are_split_into_what_they_hold(data: bytes, segment: int, ecn: int) -> None:
    """A batch is as many single frames as it has datagrams, of the same key and ECN; other frames stay as they are."""
    batch = SendDatagrams(KEY, data, ecn, segment)
    singles = [decode_from_client(message, DIALECT) for message in split(encode(batch, DIALECT))]
    assert singles == [SendDatagrams(KEY, part, ecn) for part in batch.datagrams()]
    ping = encode(Ping(bytes(8)), DIALECT)
    assert split(ping) == [ping]


def test_datagrams_hold_nothing_else() -> None:
    """A QUIC datagram with another frame than one relayed datagram is a breach."""
    for frame in (SendDatagrams(KEY, b"x"), ReceivedDatagrams(KEY, b"x")):
        assert in_datagram(encode(frame, DIALECT)) == encode(frame, DIALECT)
    for message in (b"", encode(Ping(bytes(8)), DIALECT), encode(SendDatagrams(KEY, b"xy", 0, 1), DIALECT)):
        with pytest.raises(WireError):
            in_datagram(message)


def test_a_proven_client_is_asked_for_nothing() -> None:
    """Where QUIC has proven the keys the relay's first frame decides; a challenge there is a breach."""

    def client() -> ClientHandshake:
        return ClientHandshake(DIALECT, None, lambda _digest: b"", proven=True)  # type: ignore[arg-type]

    one = client()
    assert one.receive(encode(ServerConfirmsAuth(), DIALECT)) is None and one.done
    with pytest.raises(RelayDeniedError, match="full"):
        client().receive(encode(ServerDeniesAuth("full"), DIALECT))
    with pytest.raises(WireError):
        client().receive(b"\x00" + bytes(16))
