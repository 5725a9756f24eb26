"""The bytes of disco."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.holepunch import reference_disco
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import InvalidAddrError
from tom_connect.holepunch import disco
from tom_connect.holepunch.disco import (
    CallMeMaybe,
    Challenge,
    DiscoError,
    Mapping,
    Message,
    Ping,
    Pong,
    PortProbing,
    PortStep,
)
from tom_connect.holepunch.sealing import Opened, Sealer
from tom_connect.keys import SecretKey

A, B = SecretKey(bytes(range(32))), SecretKey(bytes(range(32, 64)))
SOURCE = SocketAddr("192.0.2.1", 4242)
TX = bytes(range(0xA0, 0xAC))
SESSION = bytes(range(0x10, 0x18))
COOKIE = bytes(range(0xC0, 0xD0))
CALL = CallMeMaybe(TX, (SocketAddr("10.0.0.7", 7), SocketAddr("2001:db8::5", 65535)))

# Made by reference_disco, which shares no code with what is tested; docs/reference/disco.md shows the same.
VECTORS = [
    (
        Ping(TX),
        0,
        b"",
        "01a0a1a2a3a4a5a6a7a8a9aaab00000000000000000000000000000000000000",
        (
            "04011011121314151617000000000000000021823cec1cd469e26fae205880acc82c28ddc409d413fcd810638f7a5ea2ea8187f3592666fd44"
            "a451554e5a7e72cc49318ea8cd18914b021d35afafdaa7a30b421dcce392c3f43556bb0d59cf94d105d3a18d29bc3ffcc6"
        ),
    ),
    (
        Pong(TX, SOURCE),
        1,
        b"",
        "02a0a1a2a3a4a5a6a7a8a9aaab00000000000000000000ffffc0000201109200",
        (
            "04011011121314151617000000000000000125811dab32f303a85ba3bc2b02bdaba4e994136b072ae61ec626fd932c07ef07f4b3be31271ade"
            "5782c516ac39d95be1dbf51cfb3980b6e6bfb8ae386edf9970b46e227a4dd7a4e10bdc1edff65f28f9e311f13c28f2404d"
        ),
    ),
    (
        CALL,
        2,
        b"",
        "03a0a1a2a3a4a5a6a7a8a9aaab0200000000000000000000ffff0a000007000720010db8000000000000000000000005ffff",
        (
            "040110111213141516170000000000000002fae923ad71f6a4184a12f9d5a4028bffce0b8457b53dd3dddbdcc9fa01b0f9264f98d3fe350105"
            "36cd0228f0ace35d2d45c9a1b7a56244e0aeda8a72d3b7f905acc8788ed58a8b9c3c480cc51802d15c84290c9cb92e04d3b5dce349ce2c9f72"
            "bd57e674950b9a8845c8"
        ),
    ),
    (
        Ping(TX),
        3,
        COOKIE,
        "01a0a1a2a3a4a5a6a7a8a9aaab00000000000000000000000000000000000000",
        (
            "0501101112131415161700000000000000037f6d1290280d745356e466ab17e841df6ffee98ae9e3a3659985ee933e60b186aeb33c0cbe7021"
            "3ac0c1c2c3c4c5c6c7c8c9cacbcccdcecfca0ac1967d71db3cbe8009dfa771b255e638523891c56d3a8af1191937191f26bafd7f0f28b907c9"
            "5f4822afc527be3b"
        ),
    ),
]
CHALLENGE_HEX = "060110111213141516170000000000000000f4228ef7f69b95f3c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"

addresses = st.builds(
    SocketAddr,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None)).map(str),
    st.integers(0, 65535),
)
transactions = st.binary(min_size=disco.TX_SIZE, max_size=disco.TX_SIZE)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, transactions),
    st.builds(Pong, transactions, st.none() | addresses.filter(lambda a: a != ("::", 0))),
    st.builds(
        CallMeMaybe,
        transactions,
        st.lists(addresses, max_size=disco.MAX_CANDIDATES, unique=True).map(tuple),
        st.sampled_from([(), (RelayUrl.parse("https://a.example/"),)]),
        st.sampled_from(Mapping),
    ),
    st.builds(
        PortProbing,
        transactions,
        st.sampled_from(PortStep),
        st.none() | addresses.filter(lambda a: a != ("::", 0)),
    ),
)


@pytest.mark.parametrize(("message", "counter", "cookie", "plain", "packet"), VECTORS)
def test_vectors(message: Message, counter: int, cookie: bytes, plain: str, packet: str) -> None:
    """Messages and packets are those of an independent implementation, both ways."""
    assert disco.encode_message(message).hex() == plain
    assert disco.decode_message(bytes.fromhex(plain)) == message
    made = reference_disco.seal(A.seed(), A.node_id.raw, B.node_id.raw, SESSION, counter, bytes.fromhex(plain), cookie)
    assert made.hex() == packet
    opened = Sealer(B).open(bytes.fromhex(packet), SOURCE, 0.0)
    assert opened == Opened(A.node_id, bytes.fromhex(plain))


def test_our_packets_are_those_of_the_vectors() -> None:
    """A sealer whose session is that of the vectors makes the same packets, in the same order."""
    sealer = Sealer(A, random=lambda size: SESSION if size == len(SESSION) else bytes(size))
    for _message, counter, cookie, plain, packet in VECTORS:
        made, stamp = sealer.seal(B.node_id, bytes.fromhex(plain), cookie or None)
        assert made.hex() == packet
        assert stamp == SESSION + counter.to_bytes(8, "big")


def test_challenge_vector() -> None:
    """A challenge is that of the independent implementation, and names its maker."""
    challenge = Challenge(SESSION + bytes(8), COOKIE)
    data = disco.encode_challenge(challenge, B.node_id.raw)
    assert data.hex() == CHALLENGE_HEX == reference_disco.challenge(B.node_id.raw, challenge.stamp, COOKIE).hex()
    assert disco.decode_challenge(data) == challenge
    assert disco.challenge_is_from(data, B.node_id.raw)
    assert not disco.challenge_is_from(data, A.node_id.raw)


@given(messages)
def test_messages_round_trip(message: Message) -> None:
    """Every message reads back as itself, and a longer body of a later version reads as the same."""
    plain = disco.encode_message(message)
    assert disco.decode_message(plain) == message
    assert disco.decode_message(plain + b"later") == message


@given(st.binary(max_size=700))
def test_any_plaintext_is_read_or_refused(plain: bytes) -> None:
    """Authentic rubbish raises nothing but DiscoError, and no message has more candidates than allowed."""
    try:
        message = disco.decode_message(plain)
    except DiscoError:
        return
    if isinstance(message, CallMeMaybe):
        assert len(message.candidates) <= disco.MAX_CANDIDATES


def read(plain: bytes) -> Message | str | None:
    """The message, or the reason for which it is refused."""
    try:
        return disco.decode_message(plain)
    except DiscoError as exc:
        return exc.reason


@given(messages)
def test_prefixes_of_messages(message: Message) -> None:
    """A prefix that lacks more than zeros is refused, or is the call without what may follow its candidates."""
    plain = disco.encode_message(message)
    shorter: list[Message] = []
    required = len(plain)
    if isinstance(message, CallMeMaybe):
        required = 14 + 18 * len(message.candidates)
        shorter = [attrs.evolve(message, mapping=Mapping.UNKNOWN)]
        shorter.append(attrs.evolve(shorter[0], relays=()))
    for end in range(len(plain)):
        if end < disco.PROBE_SIZE or plain[end:].strip(b"\0"):
            assert read(plain[:end]) in (["short"] if end < required else ["short", *shorter])


@pytest.mark.parametrize("packet", [v[4] for v in VECTORS])
def test_prefixes_and_perturbed_packets_do_not_open(packet: str) -> None:
    """No prefix, no changed bit and no appended byte of a packet opens, and nothing but DiscoError is raised."""
    data = bytes.fromhex(packet)
    cookie = range(disco.HEADER_SIZE, disco.HEADER_SIZE + disco.COOKIE_SIZE) if data[0] == 5 else range(0)
    variants = [data[:end] for end in range(len(data))] + [data + b"\0"]
    for at in range(len(data)):
        if at not in cookie:
            variants += [data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :] for bit in range(8)]
    sealer = Sealer(B)
    sealer.pin(A.node_id)
    for variant in variants:
        try:
            opened = sealer.open(variant, SOURCE, 0.0)
        except DiscoError:
            continue
        # A changed sender is a stranger, and so many of them are asked for a cookie.
        assert isinstance(opened, bytes)
        assert 26 <= next(i for i, (x, y) in enumerate(zip(variant, data, strict=True)) if x != y) < disco.HEADER_SIZE
    assert sealer.open(data, SOURCE, 0.0) == Opened(A.node_id, sealer_plain(packet))


def sealer_plain(packet: str) -> bytes:
    return next(bytes.fromhex(v[3]) for v in VECTORS if v[4] == packet)


def test_prefixes_and_perturbed_challenges() -> None:
    """No prefix of a challenge is read, and no changed bit leaves it looking like its maker's."""
    data = bytes.fromhex(CHALLENGE_HEX)
    for end in range(len(data)):
        with pytest.raises(DiscoError):
            disco.decode_challenge(data[:end])
    for at in range(2, len(data)):
        for bit in range(8):
            assert not disco.challenge_is_from(
                data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :], B.node_id.raw
            )


@given(st.binary(max_size=1500))
def test_any_datagram_is_refused_quietly(data: bytes) -> None:
    """Random bytes raise nothing but DiscoError and cost no key agreement."""
    sealer = Sealer(B)
    with pytest.raises(DiscoError):
        sealer.open(data, SOURCE, 0.0)
    with pytest.raises(DiscoError):
        sealer.open(b"\x04\x01" + data, SOURCE, 0.0)
    assert sealer.agreements == 0


def test_sizes_never_amplify() -> None:
    """A pong is as large as a ping, and no larger than a call-me-maybe; a challenge is less than half of either."""
    sealer = Sealer(A)
    ping, _ = sealer.seal(B.node_id, disco.encode_message(Ping(TX)))
    pong, _ = sealer.seal(B.node_id, disco.encode_message(Pong(TX, SocketAddr("2001:db8::5", 1))))
    call, _ = sealer.seal(B.node_id, disco.encode_message(CallMeMaybe(TX, ())))
    assert len(ping) == len(pong) == 106 <= len(call)
    assert len(ping) > 2 * disco.CHALLENGE_SIZE
    full = CallMeMaybe(TX, tuple(SocketAddr("2001:db8::5", port) for port in range(disco.MAX_CANDIDATES)))
    packet, _ = sealer.seal(B.node_id, disco.encode_message(full), COOKIE)
    assert len(packet) <= disco.MAX_PACKET


def test_what_can_not_be_encoded_is_refused() -> None:
    """Too many candidates and transaction ids of a wrong size are our own mistakes, and said so."""
    many = tuple(SocketAddr("192.0.2.1", port) for port in range(disco.MAX_CANDIDATES + 1))
    with pytest.raises(InvalidAddrError):
        disco.encode_message(CallMeMaybe(TX, many))
    with pytest.raises(InvalidAddrError):
        disco.encode_message(Ping(b"short"))


def test_first_bytes_are_those_that_quic_and_stun_leave_free() -> None:
    """Every packet begins with 4 to 15, and so never looks like QUIC, STUN or KRPC."""
    for data in [bytes.fromhex(CHALLENGE_HEX), *(bytes.fromhex(v[4]) for v in VECTORS)]:
        assert 4 <= data[0] <= 15


def test_a_call_may_name_relays() -> None:
    """Relays stand behind the candidates, where older nodes do not look; more than allowed and rubbish are refused."""
    relays = (RelayUrl.parse("https://a.example/"), RelayUrl.parse("http://b.example:3340/"))
    call = CallMeMaybe(bytes(12), (SocketAddr("192.0.2.1", 7),), relays)
    plain = disco.encode_message(call)
    assert disco.decode_message(plain) == call
    assert disco.decode_message(plain + b"later") == call
    start = 14 + 18
    for end in range(start + 2, len(plain)):
        with pytest.raises(DiscoError):
            disco.decode_message(plain[:end])
    with pytest.raises(DiscoError):
        disco.decode_message(plain[: start + 1] + b"\x03" + plain[start + 2 :])
    with pytest.raises(DiscoError):
        disco.decode_message(plain.replace(b"https://a", b"https//aa"))
    with pytest.raises(InvalidAddrError):
        disco.encode_message(CallMeMaybe(bytes(12), (), (*relays, RelayUrl.parse("https://c.example/"))))


def test_the_steps_of_port_probing() -> None:
    """Offer, accept, refuse and over have the bytes that the reference documents, as many as a ping."""
    offer = PortProbing(TX, PortStep.OFFER, SocketAddr("192.0.2.1", 0))
    accept = PortProbing(TX, PortStep.ACCEPT, SocketAddr("198.51.100.2", 4242))
    for message, plain in (
        (offer, "04a0a1a2a3a4a5a6a7a8a9aaab0100000000000000000000ffffc00002010000"),
        (accept, "04a0a1a2a3a4a5a6a7a8a9aaab0200000000000000000000ffffc63364021092"),
        (PortProbing(TX, PortStep.REFUSE, None), "04a0a1a2a3a4a5a6a7a8a9aaab03" + 18 * "00"),
        (PortProbing(TX, PortStep.OVER, None), "04a0a1a2a3a4a5a6a7a8a9aaab04" + 18 * "00"),
    ):
        assert disco.encode_message(message).hex() == plain
        assert len(plain) == 2 * disco.PROBE_SIZE
        assert disco.decode_message(bytes.fromhex(plain)) == message
        assert disco.decode_message(bytes.fromhex(plain) + b"later") == message
        for end in range(disco.PROBE_SIZE):
            with pytest.raises(DiscoError):
                disco.decode_message(bytes.fromhex(plain)[:end])
    later = bytes.fromhex("04a0a1a2a3a4a5a6a7a8a9aaab09" + 18 * "00")
    assert disco.decode_message(later) is None


def test_a_call_may_tell_how_its_nat_maps() -> None:
    """The mapping stands behind candidates and relays; unknown ones are as good as none, and cut ones as well."""
    candidates = (SocketAddr("192.0.2.1", 7),)
    for relays in ((), (RelayUrl.parse("https://a.example/"),)):
        call = CallMeMaybe(TX, candidates, relays, Mapping.DEPENDENT)
        plain = disco.encode_message(call)
        assert plain.endswith(b"\x02\x02")
        assert disco.decode_message(plain) == call
        for other in (plain[:-1], plain[:-1] + b"\x09", plain[:-2]):
            assert disco.decode_message(other) == CallMeMaybe(TX, candidates, relays)
