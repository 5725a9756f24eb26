"""SocketAddr, RelayUrl and NodeAddr: texts, normal forms, limits."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr, is_local
from tom_connect.exceptions import InvalidAddrError, InvalidKeyError
from tom_connect.keys import SecretKey

A = SecretKey(b"a" * 32).node_id
B = SecretKey(b"b" * 32).node_id


@given(st.ip_addresses(), st.integers(0, 65535))
def test_a_socket_address_reads_back(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    """Text and value name the same address and port, and the text is stable."""
    text = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    addr = SocketAddr.parse(text)
    assert SocketAddr.parse(str(addr)) == addr
    assert addr.port == port
    mapped = ip.ipv4_mapped if ip.version == 6 else None
    assert addr.ip == (mapped or ip)
    assert addr.family == (socket.AF_INET6 if addr.ip.version == 6 else socket.AF_INET)


def test_a_socket_address_is_a_tuple() -> None:
    """It serves where the socket module wants `(host, port)`."""
    addr = SocketAddr.parse("127.0.0.1:9")
    assert addr == ("127.0.0.1", 9)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(addr)
        assert sock.getpeername() == addr


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("[2001:0DB8:0:0::1]:443", "[2001:db8::1]:443"),
        (" 192.0.2.1:1 ", "192.0.2.1:1"),
        ("[fe80::1%eth0]:5", "[fe80::1%eth0]:5"),
        ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
        ("[::ffff:c000:201]:7", "192.0.2.1:7"),
    ],
)
def test_texts_have_one_normal_form(text: str, normal: str) -> None:
    """Blanks, case, zeros and the IPv4-mapped form are undone; a scope stays."""
    assert str(SocketAddr.parse(text)) == normal


@pytest.mark.parametrize(
    "text",
    ["", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+5", "1.2.3.4:٣", "1.2.3:5", "host:80",
     "::1:80", "[::1]", "[1.2.3.4]:80", "[::1:80", "[fe80::1%\x1b[31m]:5", "[fe80::1%a b]:5", "01.2.3.4:5",
     "1.2.3.4:99999999999999999999", "x" * 100_000 + ":1"],
)  # fmt: skip
def test_malformed_socket_addresses_are_refused_in_one_short_line(text: str) -> None:
    """The message repeats the input in part only, escaped."""
    with pytest.raises(InvalidAddrError) as caught:
        SocketAddr.parse(text)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """Neither parser raises anything but InvalidAddrError, and what is read is stable."""
    for parse in (SocketAddr.parse, RelayUrl.parse):
        try:
            value = parse(text)
        except InvalidAddrError:
            continue
        assert parse(str(value)) == value


@pytest.mark.parametrize(
    ("host", "local"),
    [("10.1.2.3", True), ("172.16.0.1", True), ("172.32.0.1", False), ("192.168.9.9", True), ("100.64.0.1", True),
     ("100.128.0.1", False), ("127.0.0.1", True), ("169.254.1.1", True), ("0.0.0.0", True), ("203.0.113.7", False),
     ("::1", True), ("::", True), ("fe80::1", True), ("fe80::1%eth0", True), ("fd00::1", True), ("fc00::1", True),
     ("2001:db8::7", False), ("::ffff:192.168.1.1", True), ("::ffff:203.0.113.7", False)],
)  # fmt: skip
def test_which_addresses_are_local(host: str, local: bool) -> None:
    """Private, loopback, link-local, unspecified and shared ranges are; documentation ranges are not."""
    assert is_local(SocketAddr(host, 1)) is local


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://euw1-1.relay.iroh.network./", "https://euw1-1.relay.iroh.network./"),
        ("HTTPS://Relay.Example", "https://relay.example/"),
        ("wss://relay.example:0443/a/B", "wss://relay.example:443/a/B"),
        ("quic+tom://[2001:DB8::0:1]:7842", "quic+tom://[2001:db8::1]:7842/"),
        ("https://relay.example/a%20b", "https://relay.example/a%20b"),
    ],
)
def test_relay_urls_have_one_normal_form(text: str, normal: str) -> None:
    """Scheme and host are lowered and an empty path is `/`."""
    url = RelayUrl.parse(text)
    assert str(url) == normal
    assert RelayUrl.parse(str(url)) == url
    assert url.scheme == normal.split(":")[0]


@pytest.mark.parametrize(
    "text",
    ["", "relay.example", "https://", "https:///x", "https://u@h/", "https://u:p@h/", "https://h/?q", "https://h/#f",
     "https://h:0/", "https://h:65536/", "https://h:/", "https://[::1", "https://[::g]/", "https://[::1]x/",
     "https://hé/", "https://h/a b", "https://h/\x1b[31m", 'https://h/"', "https://h\\x", "https://h/%zz",
     "1https://h/", "https://" + "h" * 245],
)  # fmt: skip
def test_malformed_relay_urls_are_refused_in_one_short_line(text: str) -> None:
    """Also those that a lenient parser would take in part."""
    with pytest.raises(InvalidAddrError, match="not a relay URL") as caught:
        RelayUrl.parse(text)
    assert len(str(caught.value)) < 220


def test_a_node_addr_takes_texts_and_values() -> None:
    """Texts, tuples and values give the same NodeAddr, without duplicates, in the order given."""
    addr = NodeAddr(
        str(A),
        ["https://r.example", RelayUrl.parse("https://r.example/"), "https://s.example/"],
        ["192.0.2.1:5", ("192.0.2.1", 5), SocketAddr("192.0.2.2", 6), ("2001:db8::1", 7)],
        "mine",
    )
    assert addr.node_id == A
    assert [str(u) for u in addr.relay_urls] == ["https://r.example/", "https://s.example/"]
    assert [str(d) for d in addr.direct_addrs] == ["192.0.2.1:5", "192.0.2.2:6", "[2001:db8::1]:7"]
    assert not addr.is_empty()
    assert NodeAddr(A).is_empty()
    assert NodeAddr(A, user_data="x").is_empty()
    assert hash(addr) == hash(NodeAddr(A, addr.relay_urls, addr.direct_addrs, "mine"))


def test_one_string_in_place_of_a_sequence_is_refused() -> None:
    """A string is a sequence of characters, which nobody means."""
    with pytest.raises(InvalidAddrError, match="sequence"):
        NodeAddr(A, "https://r.example/")
    with pytest.raises(InvalidAddrError, match="sequence"):
        NodeAddr(A, (), "192.0.2.1:5")
    with pytest.raises(InvalidKeyError):
        NodeAddr("nonsense")


@pytest.mark.parametrize(
    ("text", "fits"), [("x" * 245, True), ("x" * 246, False), ("é" * 122, True), ("é" * 123, False)]
)
def test_user_data_has_245_bytes_at_most(text: str, fits: bool) -> None:
    """The limit counts bytes of UTF-8."""
    if fits:
        assert NodeAddr(A, user_data=text).user_data == text
    else:
        with pytest.raises(InvalidAddrError, match="at most 245"):
            NodeAddr(A, user_data=text)


def test_user_data_that_is_no_text_is_refused() -> None:
    """Half a surrogate pair can't be written as UTF-8."""
    with pytest.raises(InvalidAddrError, match="surrogate"):
        NodeAddr(A, user_data="\ud800")


def test_merging_keeps_our_order_first() -> None:
    """The other's new ways come last, our user data wins, and another node's address is refused."""
    one = NodeAddr(A, ["https://r.example/"], ["192.0.2.1:1"])
    two = NodeAddr(A, ["https://s.example/", "https://r.example/"], ["192.0.2.2:2", "192.0.2.1:1"], "theirs")
    both = one.merged(two)
    assert [str(u) for u in both.relay_urls] == ["https://r.example/", "https://s.example/"]
    assert [str(d) for d in both.direct_addrs] == ["192.0.2.1:1", "192.0.2.2:2"]
    assert both.user_data == "theirs"
    assert two.merged(NodeAddr(A, user_data="x")).user_data == "theirs"
    with pytest.raises(InvalidAddrError, match="can't merge"):
        one.merged(NodeAddr(B))


@pytest.mark.parametrize("text", [f"tom://{A}@192.0.2.1:5", f"tom://{A}@[2001:db8::1]:5", f"tom://{A}"])
def test_a_relay_that_is_a_node_reads_back(text: str) -> None:
    """Its URL tells key and address, whatever case or form the key was written in."""
    url = RelayUrl.parse(text)
    assert str(url) == text and url.scheme == "tom" and url.node_id == A
    assert RelayUrl.parse(text.replace(str(A), str(A).upper()).replace("tom", "TOM") + "/") == url
    assert RelayUrl.of_node(A, url.node_addr) == url
    assert str(url.node_addr) == (text.partition("@")[2] or "None")
    if url.node_addr is not None:
        assert url.host.strip("[]") == url.node_addr.host and url.port == 5


@pytest.mark.parametrize(
    "text",
    [
        "tom://",
        "tom://relay.example/",
        f"tom://{A}x",
        f"tom://{A}@",
        f"tom://{A}@relay.example:5",
        f"tom://{A}@192.0.2.1",
        f"tom://{A}@192.0.2.1:0",
        f"tom://{A}@192.0.2.1:65536",
        f"tom://{A}@[fe80::1%eth0]:5",
        f"tom://{A}@192.0.2.1:5/path",
        f"https://{A}@192.0.2.1:5/",
    ],
)
def test_other_urls_with_a_key_are_refused(text: str) -> None:
    """A relay that is a node has a sound key, an IP address with a port or none, and no more."""
    with pytest.raises(InvalidAddrError, match="relay"):
        RelayUrl.parse(text)
