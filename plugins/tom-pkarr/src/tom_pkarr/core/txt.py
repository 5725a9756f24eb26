"""Address records in DNS answers: unsigned, so hints only."""

from __future__ import annotations

import attrs
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from tom_connect.addr import NodeAddr
from tom_connect.keys import NodeId
from tom_connect.record import addr_from_texts

MAX_TEXTS = 64
"""TXT records of a node that are looked at: a signed packet holds some 30 at most."""


@attrs.frozen
class DnsAnswer:
    """What a name server said: the addresses, empty if it knows none, and how long that may be kept, seconds."""

    addr: NodeAddr
    ttl: float


@attrs.frozen
class DnsRefusal:
    """A name server that gave no answer, and why."""

    reason: str


def question(node_id: NodeId, origin: str) -> dns.message.QueryMessage:
    """A query for a node's TXT records under an origin domain, with a random id; raises ValueError if it is too long.

    Asks for answers of up to 1232 bytes by UDP, which no path fragments.
    """
    try:
        name = dns.name.from_text(f"_iroh.{node_id.z32()}.{origin.rstrip('.')}.")
    except dns.exception.DNSException as exc:
        raise ValueError(f"{origin}: {exc}") from None
    return dns.message.make_query(name, dns.rdatatype.TXT, use_edns=0, payload=1232)


def read_answer(node_id: NodeId, response: dns.message.Message) -> DnsAnswer | DnsRefusal:
    """The addresses in a response that has been matched to its query; follows its CNAMEs, within the message alone."""
    code = response.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return DnsRefusal(f"the name server answers {dns.rcode.to_text(code)}")
    if not isinstance(response, dns.message.QueryMessage):
        return DnsRefusal("the name server's answer is no answer to a query")
    try:
        chain = response.resolve_chaining()
    except dns.exception.DNSException as exc:
        return DnsRefusal(f"the name server's answer is malformed: {type(exc).__name__}")
    texts = []
    if chain.answer is not None:
        for rdata in list(chain.answer)[:MAX_TEXTS]:
            try:
                texts.append(b"".join(rdata.strings).decode("utf-8"))
            except UnicodeDecodeError:
                continue
    return DnsAnswer(addr_from_texts(node_id, texts), float(chain.minimum_ttl))
