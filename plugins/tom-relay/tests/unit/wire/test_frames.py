"""The codec of frames, against bytes that were written by hand from iroh's, and against damage."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_relay.errors import FrameUsageError, WireError
from tom_relay.wire import (
    MAX_DATA,
    MAX_PAYLOAD,
    AskAddress,
    ClientAuth,
    Dialect,
    EndpointGone,
    Frame,
    Health,
    PeerAddress,
    PeerPresent,
    Ping,
    Pong,
    ReceivedDatagrams,
    Restarting,
    SendDatagrams,
    ServerChallenge,
    ServerConfirmsAuth,
    ServerDeniesAuth,
    Status,
    batches,
    choose_dialect,
    decode_from_client,
    decode_from_server,
    encode,
)

KEY = bytes.fromhex("19 7f 6b 23 e1 6c 85 32 c6 ab c8 38 fa cd 5e a7 89 be 0c 76 b2 92 03 34 03 9b fa 8b 3d 36 8d 61")
K = KEY.hex()

# The datagram, batch, ping, pong, gone, health, restarting and status bytes are those of the snapshot tests in
# iroh-relay's protos/relay.rs; those of tom-relay-v2 are its description's.
FROM_SERVER = [
    (Dialect.IROH_V1, Health("Hello? Yes this is dog."), "0b48656c6c6f3f20596573207468697320697320646f672e"),
    (Dialect.TOM_V1, Health("Hello? Yes this is dog."), "0b48656c6c6f3f20596573207468697320697320646f672e"),
    (Dialect.IROH_V2, EndpointGone(KEY), f"08{K}"),
    (Dialect.IROH_V2, Ping(b"*" * 8), "092a2a2a2a2a2a2a2a"),
    (Dialect.IROH_V2, Pong(b"*" * 8), "0a2a2a2a2a2a2a2a2a"),
    (Dialect.IROH_V2, ReceivedDatagrams(KEY, b"Hello World!", 3, 6), f"07{K}03000648656c6c6f20576f726c6421"),
    (Dialect.IROH_V2, ReceivedDatagrams(KEY, b"Hello World!", 3), f"06{K}0348656c6c6f20576f726c6421"),
    (Dialect.IROH_V2, Restarting(10, 20), "0c0000000a00000014"),
    (Dialect.IROH_V2, Status(0), "0d00"),
    (Dialect.IROH_V2, Status(2), "0d02"),
    (Dialect.IROH_V2, Status(77), "0d4d"),
    (Dialect.TOM_V1, PeerPresent(KEY), f"0d{K}"),
    (Dialect.IROH_V2, ServerChallenge(bytes(range(16))), "00000102030405060708090a0b0c0d0e0f"),
    (Dialect.IROH_V2, ServerConfirmsAuth(), "02"),
    (Dialect.IROH_V2, ServerDeniesAuth("no"), "03026e6f"),
    (Dialect.IROH_V2, ServerDeniesAuth("x" * 200), "03c801" + "78" * 200),
    (Dialect.TOM_V2, Status(1), "0d01"),
    (Dialect.TOM_V2, PeerAddress(KEY, ipaddress.ip_address("198.51.100.7")), f"0f{K}04c6336407"),
    (Dialect.TOM_V2, PeerAddress(KEY, ipaddress.ip_address("2001:db8::7")), f"0f{K}0620010db8" + "00" * 11 + "07"),
]
FROM_CLIENT = [
    (Dialect.IROH_V2, Ping(b"*" * 8), "092a2a2a2a2a2a2a2a"),
    (Dialect.IROH_V2, Pong(b"*" * 8), "0a2a2a2a2a2a2a2a2a"),
    (Dialect.IROH_V2, SendDatagrams(KEY, b"Hello World!", 3, 6), f"05{K}03000648656c6c6f20576f726c6421"),
    (Dialect.IROH_V2, SendDatagrams(KEY, b"Hello World!", 3), f"04{K}0348656c6c6f20576f726c6421"),
    (Dialect.IROH_V2, ClientAuth(KEY, b"s" * 64), f"01{K}40" + "73" * 64),
    (Dialect.TOM_V2, AskAddress(KEY), f"0e{K}"),
]


@pytest.mark.parametrize(("dialect", "frame", "message"), FROM_SERVER)
def test_frames_of_a_server_are_these_bytes(dialect: Dialect, frame: Frame, message: str) -> None:
    """Each frame of a relay is written and read as iroh does."""
    assert encode(frame, dialect).hex() == message
    assert decode_from_server(bytes.fromhex(message), dialect) == frame


@pytest.mark.parametrize(("dialect", "frame", "message"), FROM_CLIENT)
def test_frames_of_a_client_are_these_bytes(dialect: Dialect, frame: Frame, message: str) -> None:
    """Each frame of a client is written and read as iroh does."""
    assert encode(frame, dialect).hex() == message
    assert decode_from_client(bytes.fromhex(message), dialect) == frame


def outcome_of(decode: Callable[[bytes, Dialect], Frame], message: bytes, dialect: Dialect) -> Frame | str:
    """The frame, or the kind of error."""
    try:
        return decode(message, dialect)
    except WireError as exc:
        return exc.kind


keys = st.binary(min_size=32, max_size=32)
eights = st.binary(min_size=8, max_size=8)
u32 = st.integers(0, 2**32 - 1)
datagram_fields = st.fixed_dictionaries(
    {
        "key": keys,
        "data": st.binary(max_size=3000),
        "ecn": st.integers(0, 255),
        "segment_size": st.none() | st.integers(1, 65535),
    }
)
client_frames = st.one_of(
    st.builds(Ping, eights),
    st.builds(Pong, eights),
    st.builds(ClientAuth, keys, st.binary(min_size=64, max_size=64)),
    datagram_fields.map(lambda fields: SendDatagrams(**fields)),
)
texts = st.text(max_size=200)
server_frames = st.one_of(
    st.builds(Ping, eights),
    st.builds(Pong, eights),
    st.builds(ServerChallenge, st.binary(min_size=16, max_size=16)),
    st.just(ServerConfirmsAuth()),
    st.builds(ServerDeniesAuth, texts),
    datagram_fields.map(lambda fields: ReceivedDatagrams(**fields)),
    st.builds(EndpointGone, keys),
    st.builds(Restarting, u32, u32),
)
own_client_frames = {Dialect.TOM_V2: st.builds(AskAddress, keys)}
own_frames = {
    Dialect.TOM_V2: st.builds(Status, st.integers(0, 255)) | st.builds(PeerAddress, keys, st.ip_addresses()),
    Dialect.IROH_V2: st.builds(Status, st.integers(0, 255)),
    Dialect.IROH_V1: st.builds(Health, texts),
    Dialect.TOM_V1: st.builds(Health, texts) | st.builds(PeerPresent, keys),
}


@given(st.data(), st.sampled_from(list(Dialect)))
def test_a_client_frame_comes_back(data: st.DataObject, dialect: Dialect) -> None:
    """What is written is read as the same, in each dialect with its own frames."""
    frame = data.draw(client_frames | own_client_frames.get(dialect, st.nothing()))
    assert decode_from_client(encode(frame, dialect), dialect) == frame


@given(st.data(), st.sampled_from(list(Dialect)))
def test_a_server_frame_comes_back(data: st.DataObject, dialect: Dialect) -> None:
    """What is written is read as the same, in each dialect with its own frames."""
    frame = data.draw(server_frames | own_frames[dialect])
    assert decode_from_server(encode(frame, dialect), dialect) == frame


@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_prefix_is_refused_or_another_frame(dialect: Dialect) -> None:
    """A frame that ends early gives an error, unless the rest of it is data or text that may be shorter."""
    open_ended = (SendDatagrams, ReceivedDatagrams, Health)
    for decode, vectors in ((decode_from_client, FROM_CLIENT), (decode_from_server, FROM_SERVER)):
        for spoken, frame, message in vectors:
            if spoken is not dialect:
                continue
            whole = bytes.fromhex(message)
            for end in range(len(whole)):
                outcome = outcome_of(decode, whole[:end], dialect)
                assert outcome == "truncated" or (isinstance(outcome, open_ended) and type(outcome) is type(frame))


@given(st.binary(max_size=200), st.sampled_from(list(Dialect)))
def test_noise_gives_no_other_error(noise: bytes, dialect: Dialect) -> None:
    """Whatever comes, reading gives a frame that is written back the same, or a WireError."""
    for decode in (decode_from_client, decode_from_server):
        try:
            frame = decode(noise, dialect)
        except WireError:
            continue
        assert decode(encode(frame, dialect), dialect) == frame


def test_damaged_frames_give_no_other_error() -> None:
    """Frames with flipped, added and removed bytes give a frame or a WireError."""
    rng = random.Random(4)
    for decode, vectors in ((decode_from_client, FROM_CLIENT), (decode_from_server, FROM_SERVER)):
        for dialect, _frame, message in vectors:
            for _ in range(300):
                damaged = bytearray.fromhex(message)
                for _ in range(rng.randint(1, 3)):
                    where = rng.randrange(len(damaged) + 1)
                    match rng.randrange(3):
                        case 0:
                            damaged.insert(where, rng.randrange(256))
                        case 1:
                            del damaged[where : where + 1]
                        case _:
                            damaged[where : where + 1] = bytes((rng.randrange(256),))
                try:
                    decode(bytes(damaged), dialect)
                except WireError:
                    pass


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "truncated"),
        (b"\x40", "truncated"),
        (b"\x3f", "unknown"),
        (b"\xff" * 8, "unknown"),
        (b"\x06" + KEY + b"\0", "direction"),
        (b"\x00" + bytes(16), "direction"),
        (b"\x0b", "direction"),
        (b"\x04" + KEY, "truncated"),
        (b"\x05" + KEY + b"\0\0\0data", "malformed"),
        (b"\x04" + bytes(MAX_PAYLOAD + 1), "too-large"),
        (b"\x09" + bytes(9), "malformed"),
        (b"\x01" + KEY + b"\x3f" + bytes(63), "malformed"),
        (b"\x01" + KEY + b"\xff\xff\xff\xff\x01", "malformed"),
    ],
)
def test_what_is_wrong_is_named(message: bytes, kind: str) -> None:
    """Each way of being wrong has its kind, for metrics."""
    with pytest.raises(WireError) as caught:
        decode_from_client(message, Dialect.IROH_V2)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"\x04\xc6\x33\x64", "truncated"),
        (b"\x04\xc6\x33\x64\x07\x00", "malformed"),
        (b"\x06\xc6\x33\x64\x07", "truncated"),
        (b"\x05\xc6\x33\x64\x07", "malformed"),
        (b"", "truncated"),
    ],
)
def test_an_address_is_of_one_of_two_versions(payload: bytes, kind: str) -> None:
    """An address has the size of its IP version, and there are two of these."""
    with pytest.raises(WireError) as caught:
        decode_from_server(b"\x0f" + KEY + payload, Dialect.TOM_V2)
    assert caught.value.kind == kind


def test_longer_forms_of_a_type_are_read() -> None:
    """A type may be written longer than needed (RFC 9000 section 16)."""
    for prefix in (b"\x09", b"\x40\x09", b"\x80\0\0\x09", b"\xc0\0\0\0\0\0\0\x09"):
        assert decode_from_client(prefix + b"12345678", Dialect.IROH_V2) == Ping(b"12345678")


def test_dialects_lack_frames_of_others() -> None:
    """Health is not read or written in v2 dialects, Status, PeerPresent and the frames on addresses only in theirs."""
    for dialect, frame in (
        (Dialect.IROH_V2, Health("x")),
        (Dialect.IROH_V1, Status(1)),
        (Dialect.TOM_V1, Status(1)),
        (Dialect.IROH_V1, PeerPresent(KEY)),
        (Dialect.TOM_V2, PeerPresent(KEY)),
        (Dialect.TOM_V2, Health("x")),
        (Dialect.IROH_V2, AskAddress(KEY)),
        (Dialect.TOM_V1, PeerAddress(KEY, ipaddress.ip_address("198.51.100.7"))),
    ):
        with pytest.raises(FrameUsageError):
            encode(frame, dialect)
    for dialect, message in (
        (Dialect.IROH_V2, b"\x0bx"),
        (Dialect.IROH_V1, b"\x0d\x01"),
        (Dialect.IROH_V2, b"\x0f" + KEY + b"\x04\xc6\x33\x64\x07"),
    ):
        with pytest.raises(WireError) as caught:
            decode_from_server(message, dialect)
        assert caught.value.kind == "dialect"


def test_what_is_too_large_is_not_written() -> None:
    """The largest batch is written and read; one byte more is refused before it is sent."""
    frame = SendDatagrams(KEY, bytes(MAX_DATA), 0, 1000)
    assert decode_from_client(encode(frame, Dialect.IROH_V2), Dialect.IROH_V2) == frame
    with pytest.raises(FrameUsageError):
        encode(SendDatagrams(KEY, bytes(MAX_DATA + 1), 0, 1000), Dialect.IROH_V2)


def test_a_long_reason_is_cut_between_letters() -> None:
    """A reason is cut to its limit and stays UTF-8."""
    denial = decode_from_server(encode(ServerDeniesAuth("é" * 3000), Dialect.IROH_V2), Dialect.IROH_V2)
    assert denial == ServerDeniesAuth("é" * 512)


@given(st.lists(st.binary(max_size=1500), max_size=60))
def test_batches_hold_the_same_datagrams(datagrams: list[bytes]) -> None:
    """Joined into batches and split again, datagrams and their order are the same."""
    joined = batches(datagrams)
    split = [part for data, size in joined for part in SendDatagrams(KEY, data, 0, size).datagrams()]
    assert split == datagrams
    assert all(len(data) <= MAX_DATA for data, _ in joined)


def test_full_sized_datagrams_share_batches() -> None:
    """A burst of equal datagrams with a shorter end is one batch; a batch never passes the limit."""
    assert batches([b"a" * 1200] * 20 + [b"b" * 7]) == [(b"a" * 24_000 + b"b" * 7, 1200)]
    assert [len(data) for data, _ in batches([bytes(1200)] * 60)] == [54 * 1200, 6 * 1200]
    with pytest.raises(FrameUsageError):
        batches([bytes(MAX_DATA + 1)])


def test_the_first_known_offer_is_chosen() -> None:
    """The client's order decides; what we don't know is passed over."""
    assert choose_dialect(["iroh-relay-v9", " iroh-relay-v1", "iroh-relay-v2"]) is Dialect.IROH_V1
    assert choose_dialect(["tom-relay-v1"]) is Dialect.TOM_V1
    assert choose_dialect(["chat"]) is None
    assert choose_dialect([]) is None
