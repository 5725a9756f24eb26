"""Address records in DNS answers."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.keys import SecretKey
from tom_pkarr.core.txt import MAX_TEXTS, DnsAnswer, DnsRefusal, question, read_answer

NODE = SecretKey(bytes(31) + b"\x07").node_id
NAME = f"_iroh.{NODE.z32()}.dns.example."


def response(*rrsets: dns.rrset.RRset, code: int = dns.rcode.NOERROR) -> dns.message.Message:
    made = dns.message.make_response(question(NODE, "dns.example"))
    made.answer += rrsets
    made.set_rcode(dns.rcode.Rcode(code))
    return dns.message.from_wire(made.to_wire(max_size=65_535))


def txt(*texts: str, name: str = NAME, ttl: int = 30) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, ttl, "IN", "TXT", *texts)


def test_the_question() -> None:
    """The name has the node in z-base-32 below the origin, and ids are random."""
    asked = question(NODE, "dns.example")
    assert str(asked.question[0].name) == NAME
    assert len({question(NODE, "dns.example.").id for _ in range(20)}) > 10


def test_addresses_and_their_time() -> None:
    """All three attributes are read, for the lowest TTL on the way."""
    answer = read_answer(
        NODE,
        response(txt('"relay=https://r.example/"', '"addr=192.0.2.1:5"', '"addr=[2001:db8::1]:6"', '"user-data=x"')),
    )
    assert isinstance(answer, DnsAnswer)
    assert [str(url) for url in answer.addr.relay_urls] == ["https://r.example/"]
    assert {str(addr) for addr in answer.addr.direct_addrs} == {"192.0.2.1:5", "[2001:db8::1]:6"}
    assert (answer.addr.user_data, answer.ttl) == ("x", 30.0)


def test_an_alias_is_followed_within_the_answer() -> None:
    """A CNAME leads to the records of its target, and its TTL counts too."""
    alias = dns.rrset.from_text(NAME, 7, "IN", "CNAME", "other.example.")
    answer = read_answer(NODE, response(alias, txt('"addr=192.0.2.1:5"', name="other.example.")))
    assert isinstance(answer, DnsAnswer)
    assert (len(answer.addr.direct_addrs), answer.ttl) == (1, 7.0)


def test_aliases_in_a_circle_are_refused() -> None:
    """A chain of CNAMEs that leads nowhere ends."""
    there = dns.rrset.from_text(NAME, 7, "IN", "CNAME", "other.example.")
    back = dns.rrset.from_text("other.example.", 7, "IN", "CNAME", NAME)
    assert isinstance(read_answer(NODE, response(there, back)), DnsRefusal)


def test_records_of_other_names_do_not_count() -> None:
    """What an answer says of a name that was not asked for is passed over."""
    answer = read_answer(NODE, response(txt('"addr=192.0.2.1:5"', name="_iroh.evil.example.")))
    assert isinstance(answer, DnsAnswer)
    assert answer.addr.is_empty()


def test_strange_texts_are_passed_over() -> None:
    """Unknown attributes, invalid UTF-8, duplicates and texts in several strings: what can be read is."""
    answer = read_answer(
        NODE,
        response(
            txt('"colour=blue"', '"addr=\\255:5"', '"addr=192.0.2.1:5"', '"ad" "dr=192.0.2.1:5"', '"addr=0x7f:1"')
        ),
    )
    assert isinstance(answer, DnsAnswer)
    assert [str(addr) for addr in answer.addr.direct_addrs] == ["192.0.2.1:5"]


def test_hundreds_of_addresses_are_cut() -> None:
    """Of hundreds of addresses the first are taken."""
    answer = read_answer(NODE, response(txt(*(f'"addr=192.0.2.{n % 250}:{n + 1}"' for n in range(900)))))
    assert isinstance(answer, DnsAnswer)
    assert len(answer.addr.direct_addrs) == MAX_TEXTS


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
def test_failures_of_a_name_server(code: int) -> None:
    """A name server that fails is named with its code."""
    answer = read_answer(NODE, response(code=code))
    assert isinstance(answer, DnsRefusal)
    assert dns.rcode.to_text(dns.rcode.Rcode(code)) in answer.reason


def test_no_such_name_is_an_answer() -> None:
    """NXDOMAIN says that there is nothing, which is no failure."""
    answer = read_answer(NODE, response(code=dns.rcode.NXDOMAIN))
    assert isinstance(answer, DnsAnswer)
    assert answer.addr.is_empty()


@given(st.data())
def test_perturbed_answers_raise_nothing(data: st.DataObject) -> None:
    """Whatever bytes are changed, an answer that dnspython reads is addresses or a refusal."""
    wire = bytearray(response(txt('"addr=192.0.2.1:5"', '"user-data=x"')).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = dns.message.from_wire(bytes(wire))
    except (dns.exception.DNSException, ValueError):
        return
    assert isinstance(read_answer(NODE, message), DnsAnswer | DnsRefusal)
