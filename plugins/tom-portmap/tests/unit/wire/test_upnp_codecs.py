"""SSDP, descriptions and SOAP: what miniupnpd sent, and what an attacker would send."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_portmap.errors import RefusedError, WireError
from tom_portmap.wire import soap, ssdp
from tom_portmap.wire.location import Location
from tom_portmap.wire.markup import MAX_DEPTH, MAX_ELEMENTS, MAX_TEXT, read_xml

VECTORS: dict[str, str] = json.loads((Path(__file__).parents[2] / "vectors" / "miniupnpd.json").read_text())
GATEWAY = "192.168.1.1"
HERE = Location(GATEWAY, 40535, "/rootDesc.xml")


def test_a_search_is_these_bytes() -> None:
    """As section 1.3.2 of the UPnP Device Architecture has it; miniupnpd answers to it."""
    assert ssdp.search_request(ssdp.TARGETS[1], ssdp.MULTICAST) == (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )


def test_the_reply_of_miniupnpd_is_read() -> None:
    """It leads to the description on the gateway itself."""
    reply = ssdp.SearchReply.decode(VECTORS["ssdp"].encode())
    assert reply == ssdp.SearchReply(ssdp.TARGETS[0], str(HERE))
    assert Location.parse(reply.location, GATEWAY) == HERE


def test_the_service_of_miniupnpd_is_found() -> None:
    """Among those of its description, the one that maps ports."""
    service = soap.Service(soap.IP_CONNECTION_2, Location(GATEWAY, 40535, "/ctl/IPConn"))
    assert soap.read_services(VECTORS["description"].encode(), HERE) == (service,)


def test_the_answers_of_miniupnpd_are_read() -> None:
    """Values by name; a fault with its number."""
    assert soap.read_reply(VECTORS["GetExternalIPAddress"].encode(), "GetExternalIPAddress") == {
        "NewExternalIPAddress": "11.0.0.1"
    }
    assert soap.read_reply(VECTORS["AddPortMapping"].encode(), "AddPortMapping") == {}
    entry = soap.read_reply(VECTORS["GetSpecificPortMappingEntry"].encode(), "GetSpecificPortMappingEntry")
    assert (entry["NewInternalClient"], entry["NewLeaseDuration"]) == ("192.168.1.2", "120")
    with pytest.raises(RefusedError, match="no such mapping") as refused:
        soap.read_reply(VECTORS["Fault"].encode(), "GetSpecificPortMappingEntry")
    assert refused.value.code == soap.NO_SUCH_ENTRY


def test_a_call_is_read_back() -> None:
    """What is written is XML whose values are what was given, whatever signs are in them."""
    values = {"NewRemoteHost": "", "NewExternalPort": 4000, "NewPortMappingDescription": "<&\"'>é"}
    body = soap.call_body(soap.IP_CONNECTION_2, "AddPortMapping", values)
    (call,) = read_xml(body).all("AddPortMapping")
    assert {child.name: child.text for child in call.children} == {name: str(v) for name, v in values.items()}


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.2:80/rootDesc.xml",
        "http://127.0.0.1/rootDesc.xml",
        "http://192.168.1.1.evil.example/rootDesc.xml",
        "http://192.168.1.1@10.0.0.1/",
        "http://user@192.168.1.1/",
        "http://0xc0a80101/",
        "http://3232235777/",
        "http://192.168.001.001/",
        "http://[::ffff:192.168.1.1]/",
        "http://router.example/",
        "https://192.168.1.1/",
        "file:///etc/passwd",
        "ftp://192.168.1.1/",
        "http://192.168.1.1:0/",
        "http://192.168.1.1:65536/",
        "http://192.168.1.1:80x/",
        "http://192.168.1.1/a b",
        "http://192.168.1.1/a\r\nHost: evil",
        "http://192.168.1.1/é",
        "//192.168.1.1/",
        "/rootDesc.xml",
        "",
        "http://192.168.1.1/" + "a" * 512,
    ],
)
def test_a_url_that_is_not_the_gateways_is_refused(url: str) -> None:
    """Only plain http to the gateway's own address, written as such, is followed."""
    with pytest.raises(WireError):
        Location.parse(url, GATEWAY)


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/ctl/IPConn", "http://192.168.1.1:40535/ctl/IPConn"),
        ("ctl?x=1", "http://192.168.1.1:40535/ctl?x=1"),
        ("http://192.168.1.1:5000/c", "http://192.168.1.1:5000/c"),
        ("http://192.168.1.1", "http://192.168.1.1:80/"),
        ("http://192.168.1.1?x", "http://192.168.1.1:80/?x"),
        ("", "http://192.168.1.1:40535/rootDesc.xml"),
    ],
)
def test_paths_are_relative_to_the_description(reference: str, target: str) -> None:
    """A control URL may be a path or a URL of the gateway."""
    assert str(HERE.join(reference)) == target


def described(control: str, base: str = "") -> bytes:
    kind = soap.SERVICES[1]
    return (
        f"<root><URLBase>{base}</URLBase><device><serviceList><service><serviceType>{kind}</serviceType>"
        f"<controlURL>{control}</controlURL></service></serviceList></device></root>"
    ).encode()


@pytest.mark.parametrize("control", ["http://10.0.0.1/ctl", "//10.0.0.1/ctl", "http://192.168.1.1:0/"])
def test_a_service_elsewhere_is_left_out(control: str) -> None:
    """A description can't send our calls to another machine, nor to this one."""
    assert soap.read_services(described(control), HERE) == ()


def test_a_base_elsewhere_is_ignored() -> None:
    """URLBase moves calls to another port of the gateway, and not to another host."""
    assert [s.control.port for s in soap.read_services(described("/c", "http://192.168.1.1:99/"), HERE)] == [99]
    assert [s.control.port for s in soap.read_services(described("/c", "http://10.0.0.1:99/"), HERE)] == [40535]


def test_the_better_service_comes_first_and_few_are_taken() -> None:
    """Whatever their order; a description of a thousand services gives eight."""
    element = "<service><serviceType>{}</serviceType><controlURL>/{}</controlURL></service>"
    services = "".join(element.format(soap.SERVICES[number % 3], number) for number in range(300))
    found = soap.read_services(f"<root>{services}</root>".encode(), HERE)
    assert len(found) == soap.MAX_SERVICES
    assert {service.kind for service in found} == {soap.SERVICES[0]}


BOMB = """<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><root>&b;</root>"""
OUTSIDE = """<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><root>&x;</root>"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (BOMB, "malformed"),
        (OUTSIDE, "malformed"),
        ('<!DOCTYPE r SYSTEM "http://192.168.1.1/x.dtd"><r/>', "malformed"),
        ("<r>&undefined;</r>", "malformed"),
        ("<a>" * (MAX_DEPTH + 1), "too large"),
        ("<r>" + "<a/>" * MAX_ELEMENTS + "</r>", "too large"),
        ("<r>" + "x" * (MAX_TEXT + 1) + "</r>", "too large"),
        ("<r><a></r>", "malformed"),
        ("<r/><r/>", "malformed"),
        ('<?xml version="1.0" encoding="no-such"?><r/>', "malformed"),
        ('<?xml version="1.0" encoding="utf-7"?><r/>', "malformed"),
        ("", "malformed"),
    ],
)
def test_hostile_xml_is_refused(text: str, kind: str) -> None:
    """No document type, no entity, no depth, count or length beyond the bounds."""
    with pytest.raises(WireError) as refused:
        read_xml(text.encode())
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1/\r\n\r\n",
        "M-SEARCH * HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nLOCATION:\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nLOCATION: http://192.168.1.1/\r\n\r\n",
        "HTTP/1.1 2000\r\nLOCATION: http://192.168.1.1/\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: " + "y" * 2048 + "\r\nLOCATION: http://192.168.1.1/\r\n\r\n",
    ],
)
def test_a_datagram_that_is_no_reply_is_refused(text: str) -> None:
    """Requests and notices of others, replies without a place, large ones."""
    with pytest.raises(WireError):
        ssdp.SearchReply.decode(text.encode())


def test_every_prefix_of_what_miniupnpd_sends_is_refused_or_read() -> None:
    """A cut description or answer is no XML; a cut SSDP reply leads to the gateway or nowhere."""
    for name in ("description", "GetExternalIPAddress", "Fault"):
        data = VECTORS[name].rstrip().encode()
        for size in range(len(data)):
            with pytest.raises(WireError):
                read_xml(data[:size])
    reply = VECTORS["ssdp"].encode()
    for size in range(len(reply)):
        try:
            location = Location.parse(ssdp.SearchReply.decode(reply[:size]).location, GATEWAY)
        except WireError:
            continue
        assert location.host == GATEWAY


@pytest.mark.parametrize("code", ["", "x", "-1", "99999", "٣"])
def test_a_fault_without_a_sensible_number_is_a_refusal(code: str) -> None:
    """Whatever stands where the number should."""
    detail = f"<e><errorCode>{code}</errorCode><errorDescription>no\x85</errorDescription></e>"
    inner = f"<Fault><detail>{detail}</detail></Fault>"
    with pytest.raises(RefusedError, match="without a number") as refused:
        soap.read_reply(f"<Envelope><Body>{inner}</Body></Envelope>".encode(), "X")
    assert refused.value.code is None


@given(st.sampled_from(sorted(VECTORS)), st.data())
def test_damage_is_an_error_and_nothing_else(name: str, draw: st.DataObject) -> None:
    """What miniupnpd sends, with bytes changed, is read or refused with the plugin's own errors."""
    data = VECTORS[name].encode()
    at = draw.draw(st.integers(0, len(data) - 1))
    data = data[:at] + draw.draw(st.binary(max_size=4)) + data[at + 1 :]
    for read in (
        lambda: ssdp.SearchReply.decode(data),
        lambda: soap.read_services(data, HERE),
        lambda: soap.read_reply(data, name),
    ):
        with contextlib.suppress(WireError, RefusedError):
            read()


@given(st.text(max_size=80))
def test_any_text_is_a_url_of_the_gateway_or_refused(text: str) -> None:
    """No text leads anywhere else, alone or relative to the description."""
    for reach in (lambda: Location.parse(text, GATEWAY), lambda: HERE.join(text)):
        try:
            location = reach()
        except WireError:
            continue
        assert location.host == GATEWAY
        assert location.target.isascii() and location.target.isprintable() and " " not in location.target
