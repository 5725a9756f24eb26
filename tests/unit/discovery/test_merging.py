"""What several answers about one node come to."""

from __future__ import annotations

from tom_connect.abc import FoundAddr
from tom_connect.addr import NodeAddr, RelayUrl
from tom_connect.discovery.merging import FUTURE_US, from_future, merged
from tom_connect.keys import SecretKey

NODE = SecretKey(bytes(32)).node_id


def answer(source: str, timestamp: int | None, *addrs: str, relay: str | None = None) -> FoundAddr:
    relays = (RelayUrl.parse(relay),) if relay else ()
    return FoundAddr(NodeAddr(NODE, relays, addrs), source, timestamp)


def test_the_newest_signed_answer_replaces_older_ones_whole() -> None:
    """What the owner no longer names is left out, whatever order the answers came in."""
    old = answer("dht", 1, "1.1.1.1:1", relay="https://old.example/")
    new = answer("pkarr", 2, "2.2.2.2:2")
    assert merged([old, new]) == merged([new, old]) == new


def test_unsigned_answers_are_hints_behind_the_signed_one() -> None:
    """Their addresses are added after those that the node's key vouches for, each once."""
    signed = answer("dht", 5, "1.1.1.1:1")
    hint = answer("dns", None, "3.3.3.3:3", "1.1.1.1:1", relay="https://relay.example/")
    together = merged([hint, signed])
    assert together is not None
    assert [str(addr) for addr in together.addr.direct_addrs] == ["1.1.1.1:1", "3.3.3.3:3"]
    assert [str(url) for url in together.addr.relay_urls] == ["https://relay.example/"]
    assert (together.source, together.timestamp_us) == ("dht", 5)


def test_of_equal_ones_the_first_stays_and_nothing_is_nothing() -> None:
    """Two sources with the same record give the first one's; no answer gives None."""
    assert merged([]) is None
    first, second = answer("a", 7, "1.1.1.1:1"), answer("b", 7, "1.1.1.1:1")
    assert merged([first, second]) is first


def test_a_record_may_be_a_little_ahead_of_our_clock() -> None:
    """Two hours are a wrong clock, more is not believed; unsigned answers have no time."""
    now = 10**15
    assert not from_future(answer("x", now + FUTURE_US), now)
    assert from_future(answer("x", now + FUTURE_US + 1), now)
    assert not from_future(answer("x", None), now)
