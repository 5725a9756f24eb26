"""The STUN codec against the vectors of RFC 5769, and against everything that is not a message."""

from __future__ import annotations

import contextlib
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import SocketAddr
from tom_connect.netreport.stun import (
    ERROR,
    MAX_MESSAGE,
    REQUEST,
    SUCCESS,
    BindingRequest,
    BindingResponse,
    BindingTransaction,
    StunError,
    StunMessage,
    binding_error,
    binding_request,
    binding_success,
    is_stun,
)

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"

# RFC 5769 section 2.1.
REQUEST_VECTOR = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
# Section 2.2.
IPV4_VECTOR = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
# Section 2.3.
IPV6_VECTOR = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)
# Section 2.4: no FINGERPRINT.
LONG_TERM_VECTOR = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e"
    "00060012e3839ee38388e383aae38383e382afe382b90000"
    "0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341"
    "0014000b6578616d706c652e6f726700"
    "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
VECTORS = (REQUEST_VECTOR, IPV4_VECTOR, IPV6_VECTOR, LONG_TERM_VECTOR)
NAMES = ("request", "IPv4", "IPv6", "long-term")

SERVER = SocketAddr("192.0.2.9", 3478)
US = SocketAddr("192.0.2.1", 32853)

addrs = st.builds(
    lambda ip, port: SocketAddr(str(ip), port),
    st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None),
    st.integers(0, 65535),
)
ids = st.binary(min_size=12, max_size=12)
plain_types = st.integers(0, 0xFFFF).filter(lambda kind: kind not in (0x0008, 0x001C, 0x8028))


def integrity(data: bytes) -> bytes:
    """MESSAGE-INTEGRITY of a vector with a short-term password, computed from the text of RFC 5389 section 15.4."""
    at = data.index(b"\x00\x08\x00\x14")
    covered = data[:2] + (at - 20 + 24).to_bytes(2, "big") + data[4:at]
    return hmac.new(PASSWORD, covered, hashlib.sha1).digest()


@pytest.mark.parametrize("vector", VECTORS[:3], ids=NAMES[:3])
def test_the_vectors_of_this_file_are_those_of_the_rfc(vector: bytes) -> None:
    """The message integrity in each vector matches the RFC's password, so no byte of it is a slip of the pen."""
    at = vector.index(b"\x00\x08\x00\x14")
    assert vector[at + 4 : at + 24] == integrity(vector)


def test_vector_request() -> None:
    """The sample request is read, and PRIORITY, which a plain binding server does not know, is named."""
    message = StunMessage.decode(REQUEST_VECTOR)
    assert (message.type, message.transaction_id, message.fingerprint) == (REQUEST, ID, True)
    assert message.first(0x8022) == b"STUN test client"
    assert message.first(0x0006) == b"evtj:h6vY"
    assert BindingRequest.decode(REQUEST_VECTOR) == BindingRequest(ID, True, (0x0024,))


def test_vector_ipv4_response() -> None:
    """The sample IPv4 response tells 192.0.2.1:32853."""
    assert BindingResponse.decode(IPV4_VECTOR) == BindingResponse(ID, addr=US)


def test_vector_ipv6_response() -> None:
    """The sample IPv6 response tells its address."""
    expected = SocketAddr("2001:db8:1234:5678:11:2233:4455:6677", 32853)
    assert BindingResponse.decode(IPV6_VECTOR) == BindingResponse(ID, addr=expected)


def test_vector_long_term_request() -> None:
    """The sample request with long-term credentials, and without FINGERPRINT, asks for nothing we don't know."""
    request = BindingRequest.decode(LONG_TERM_VECTOR)
    assert (request.fingerprint, request.unknown) == (False, ())


def test_the_same_attributes_encode_to_the_vectors() -> None:
    """What is read from a vector gives the bytes of the vector again, but for the padding's content."""
    for vector in VECTORS:
        again = StunMessage.decode(vector).encode()
        if vector is LONG_TERM_VECTOR:
            assert again == vector
        else:
            assert len(again) == len(vector)
            assert StunMessage.decode(again) == StunMessage.decode(vector)
    assert b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43" in binding_success(ID, US)


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_every_prefix_is_refused(vector: bytes) -> None:
    """No prefix of a message, and no message with bytes behind it, is one."""
    for size in range(len(vector)):
        with pytest.raises(StunError):
            StunMessage.decode(vector[:size])
    for more in (b"\0", b"\0\0\0\0", vector):
        with pytest.raises(StunError):
            StunMessage.decode(vector + more)


@pytest.mark.parametrize("vector", VECTORS[:3], ids=NAMES[:3])
def test_every_flipped_bit_is_noticed(vector: bytes) -> None:
    """No message with a flipped bit is read as one whose FINGERPRINT was right."""
    for at in range(len(vector) * 8):
        wrong = bytearray(vector)
        wrong[at // 8] ^= 1 << at % 8
        try:
            message = StunMessage.decode(bytes(wrong))
        except StunError:
            continue
        # The flip changed FINGERPRINT's type, or a length so that another attribute swallows it.
        assert not message.fingerprint


@given(st.binary(max_size=200))
def test_noise_raises_nothing_else(data: bytes) -> None:
    """Random bytes raise StunError or are a message, behind a STUN header too."""
    header = b"\x00\x01" + len(data).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + ID
    for candidate in (data, header + data):
        for decode in (StunMessage.decode, BindingRequest.decode, BindingResponse.decode):
            with contextlib.suppress(StunError):
                decode(candidate)


@given(ids, st.lists(st.tuples(plain_types, st.binary(max_size=60)), max_size=12), st.integers(0, 0x3FF), st.booleans())
def test_round_trip(transaction_id: bytes, attributes: list[tuple[int, bytes]], kind: int, fingerprint: bool) -> None:
    """What is encoded is decoded as the same."""
    message = StunMessage(kind, transaction_id, tuple(attributes), fingerprint)
    assert StunMessage.decode(message.encode()) == message


@given(ids, addrs, st.booleans())
def test_addresses_round_trip(transaction_id: bytes, addr: SocketAddr, fingerprint: bool) -> None:
    """Each address of both families comes out of an answer as it went in, and the answer has the least size."""
    data = binding_success(transaction_id, addr, fingerprint=fingerprint)
    assert BindingResponse.decode(data) == BindingResponse(transaction_id, addr=addr)
    assert len(data) == (32 if addr.family.name == "AF_INET" else 44) + (8 if fingerprint else 0)


def test_mapped_addresses_are_ipv4() -> None:
    """An IPv4-mapped IPv6 address in an answer is the IPv4 address that it stands for."""
    data = binding_success(ID, SocketAddr("::ffff:192.0.2.1", 7))
    assert BindingResponse.decode(data).addr == SocketAddr("192.0.2.1", 7)


def test_scope_ids_stay_at_home() -> None:
    """The scope of a link-local address is not sent."""
    data = binding_success(ID, SocketAddr("fe80::1%eth0", 7))
    assert BindingResponse.decode(data).addr == SocketAddr("fe80::1", 7)


def test_attributes_behind_integrity_are_left_out() -> None:
    """An address that follows MESSAGE-INTEGRITY is nobody's word (RFC 8489 section 14.5)."""
    good = StunMessage.decode(binding_success(ID, US))
    forged = StunMessage(SUCCESS, ID, ((0x0008, bytes(20)), *good.attributes)).encode()
    with pytest.raises(StunError):
        BindingResponse.decode(forged)


def test_the_first_of_two_addresses_counts() -> None:
    """Where an attribute comes twice, the first one counts (RFC 8489 section 14)."""
    first = StunMessage.decode(binding_success(ID, US)).attributes
    second = StunMessage.decode(binding_success(ID, SocketAddr("198.51.100.1", 1))).attributes
    assert BindingResponse.decode(StunMessage(SUCCESS, ID, first + second).encode()).addr == US


def test_fingerprint_must_be_last() -> None:
    """An attribute behind FINGERPRINT makes a message malformed."""
    inner = StunMessage(REQUEST, ID, (), True).encode()
    data = inner[:2] + (len(inner) - 20 + 4).to_bytes(2, "big") + inner[4:] + b"\x80\x22\0\0"
    with pytest.raises(StunError, match="FINGERPRINT"):
        BindingRequest.decode(data)


@pytest.mark.parametrize("kind", [0x0011, SUCCESS, ERROR, 0x0003, 0x0004, 0x03EF])
def test_a_server_reads_binding_requests_alone(kind: int) -> None:
    """Indications, answers and other methods are told apart by their kind."""
    with pytest.raises(StunError) as caught:
        BindingRequest.decode(StunMessage(kind, ID).encode())
    assert caught.value.kind == "not binding"


def test_errors() -> None:
    """An error answer carries its code and the unknown attributes, and is smaller than 1.6 times its request."""
    data = binding_error(ID, 420, unknown=(0x0003,))
    assert len(data) == 36
    response = BindingResponse.decode(data)
    assert (response.code, response.addr) == (420, None)
    assert StunMessage.decode(data).first(0x000A) == b"\x00\x03"
    many = StunMessage(REQUEST, ID, tuple((kind, b"") for kind in range(0x100, 0x180))).encode()
    unknown = BindingRequest.decode(many).unknown
    assert len(unknown) == 128
    assert len(binding_error(ID, 420, unknown=unknown)) == 48


@pytest.mark.parametrize("value", [b"", b"\0\0\4", b"\0\0\2\0", b"\0\0\7\0", b"\0\0\4\x64"])
def test_wrong_error_codes_are_malformed(value: bytes) -> None:
    """An error answer whose code is missing a byte or out of range is refused."""
    with pytest.raises(StunError):
        BindingResponse.decode(StunMessage(ERROR, ID, ((9, value),)).encode())


def test_sizes_are_bounded() -> None:
    """A message larger than the smallest IPv6 MTU is neither written nor read."""
    largest = StunMessage(REQUEST, ID, ((0x8022, bytes(MAX_MESSAGE - 24)),))
    assert len(largest.encode()) == MAX_MESSAGE
    assert StunMessage.decode(largest.encode()) == largest
    with pytest.raises(ValueError, match="larger"):
        StunMessage(REQUEST, ID, ((0x8022, bytes(MAX_MESSAGE - 20)),)).encode()
    body = b"\x80\x22" + (MAX_MESSAGE - 20).to_bytes(2, "big") + bytes(MAX_MESSAGE - 20)
    with pytest.raises(StunError) as caught:
        StunMessage.decode(b"\0\1" + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + ID + body)
    assert caught.value.kind == "too large"


@pytest.mark.parametrize("first", range(256))
def test_stun_is_told_from_the_other_protocols(first: int) -> None:
    """Only what begins with 0 to 3 and has the cookie is STUN."""
    assert is_stun(bytes((first, 1, 0, 0)) + b"\x21\x12\xa4\x42") == (first < 4)
    assert not is_stun(bytes((first, 1, 0, 0)) + b"\x21\x12\xa4\x43")
    assert not is_stun(bytes((first,)))


def test_a_transaction_ends_with_the_answer() -> None:
    """The answer from the server asked gives the address and the round-trip time."""
    ask = BindingTransaction(SERVER)
    request = BindingRequest.decode(ask.start(10.0))
    assert ask.receive(binding_success(request.transaction_id, US), SERVER, 10.03)
    assert ask.result is not None and ask.result.addr == US
    assert ask.result.rtt == pytest.approx(0.03)
    assert ask.get_timer() is None and ask.handle_timer(99.0) is None
    assert not ask.receive(binding_success(request.transaction_id, SERVER), SERVER, 10.04)


def test_a_transaction_heeds_no_stranger() -> None:
    """Answers from elsewhere, to other requests and broken ones change nothing."""
    ask = BindingTransaction(SERVER)
    ask.start(0.0)
    good = binding_success(ask.transaction_id, US)
    assert not ask.receive(good, SocketAddr("192.0.2.9", 3479), 0.1)
    assert not ask.receive(binding_success(bytes(12), US), SERVER, 0.1)
    for size in range(len(good)):
        assert not ask.receive(good[:size], SERVER, 0.1)
    assert not ask.receive(binding_request(ask.transaction_id), SERVER, 0.1)
    assert not ask.done
    assert ask.receive(good, SERVER, 0.2)


def test_a_transaction_repeats_at_the_times_of_the_rfc() -> None:
    """Requests go out at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s, and 39.5 s is the end (RFC 8489 section 6.2.1)."""
    ask = BindingTransaction(SERVER)
    first = ask.start(0.0)
    sent = [0.0]
    while (at := ask.get_timer()) is not None:
        assert ask.handle_timer(at - 0.001) is None
        again = ask.handle_timer(at)
        if again is not None:
            assert again == first
            sent.append(at)
    assert sent == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert at is None and ask.error is not None and "did not answer" in str(ask.error)


def test_a_late_answer_tells_no_time() -> None:
    """After a repetition the round-trip time is unknown, since either request may have been answered."""
    ask = BindingTransaction(SERVER)
    ask.start(0.0)
    assert ask.handle_timer(0.5) is not None
    assert ask.receive(binding_success(ask.transaction_id, US), SERVER, 0.51)
    assert ask.result is not None and ask.result.rtt is None


def test_an_error_ends_a_transaction() -> None:
    """An error answer ends the transaction with its code."""
    ask = BindingTransaction(SERVER)
    ask.start(0.0)
    assert ask.receive(binding_error(ask.transaction_id, 500), SERVER, 0.1)
    assert ask.error is not None and ask.error.code == 500
