"""Name servers and domains as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.exceptions import ConfigError
from tom_pkarr.dns.config import DnsConfig
from tom_pkarr.dns.servers import NameServer


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", NameServer("udp", "192.0.2.1", 53)),
        ("192.0.2.1:5353", NameServer("udp", "192.0.2.1", 5353)),
        ("2001:db8::1", NameServer("udp", "2001:db8::1", 53)),
        ("[2001:db8::1]:5353", NameServer("udp", "2001:db8::1", 5353)),
        ("tcp://192.0.2.1", NameServer("tcp", "192.0.2.1", 53)),
        ("tls://192.0.2.1#dns.example", NameServer("tls", "192.0.2.1", 853, "dns.example")),
        ("tls://[2001:db8::1]:8853", NameServer("tls", "2001:db8::1", 8853)),
        ("https://dns.example/dns-query", NameServer("https", "dns.example", 443, url="https://dns.example/dns-query")),
        ("https://dns.example", NameServer("https", "dns.example", 443, url="https://dns.example/dns-query")),
    ],
)
def test_name_servers(text: str, server: NameServer) -> None:
    """Each form gives the protocol, the place, and for TLS the name in the certificate; its text reads as the same."""
    assert NameServer.parse(text) == server
    if server.name is None:
        assert NameServer.parse(str(server)) == server


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "192.0.2.1:0", "192.0.2.1:99999", "192.0.2.1#name", "tls://dns.example", "http://dns.example/",
     "https://", "https://user@dns.example/", "[::1]53", "quic://192.0.2.1"],
)  # fmt: skip
def test_what_is_no_name_server(text: str) -> None:
    """Everything else is refused, and the option is named."""
    with pytest.raises(ConfigError, match="servers: "):
        DnsConfig(servers=(text,))


@given(st.text(max_size=60))
def test_any_text_is_a_name_server_or_an_error(text: str) -> None:
    """No text makes the reader raise anything but ConfigError."""
    try:
        NameServer.parse(text)
    except ConfigError:
        pass


@pytest.mark.parametrize("text", ["", ".", "a..b", "a b", "ä.example", "x" * 64, ".".join(["abc"] * 60)])
def test_wrong_origins(text: str) -> None:
    """A text that is no domain, or too long with the node's name before it, is refused."""
    with pytest.raises(ConfigError, match="origins: "):
        DnsConfig(origins=(text,))


def test_right_origins() -> None:
    """Domains with and without a dot at the end are taken."""
    assert DnsConfig(origins=("dns.iroh.link", "_x.example.", "lab")).origins[0] == "dns.iroh.link"
