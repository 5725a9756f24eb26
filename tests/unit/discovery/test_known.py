"""What is known already: the records by which peers were reached, kept between runs and never above newer ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.discovery import DiscoveryService, KnownRecords
from tom_connect.discovery.known import FILE, MAX_AGE, MAX_RECORDS
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord, sign_record

KEY = SecretKey(bytes(31) + b"\x07")
NOW = 1_700_000_000.0


class Fixed(Discovery):
    """Finds what it was given."""

    name = "fixed"

    def __init__(self, answers: list[FoundAddr]) -> None:
        self._answers = answers

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        for answer in self._answers:
            yield answer


def record(timestamp: int = 1, addr: str = "192.0.2.1:1", key: SecretKey = KEY) -> SignedRecord:
    return sign_record(key, NodeAddr(key.node_id, direct_addrs=[addr]), timestamp)


def known_in(directory: Path, now: float = NOW) -> KnownRecords:
    return KnownRecords(directory, wall=lambda: now)


async def found_in(known: KnownRecords, node_id: NodeId = KEY.node_id) -> list[FoundAddr]:
    return [found async for found in known.resolve(node_id)]


async def test_a_record_survives_a_restart(tmp_path: Path) -> None:
    """Nothing is known at first; a kept record is found at once, and by the next run once it was saved."""
    known = known_in(tmp_path)
    assert await found_in(known) == [] and len(known) == 0
    known.keep(record(5))
    known.save()
    for each in (known, known_in(tmp_path)):
        (found,) = await found_in(each)
        assert found == FoundAddr(record(5).addr, "known", 5)
        assert found.record == record(5)


async def test_an_older_record_replaces_no_newer_one(tmp_path: Path) -> None:
    """Whatever order they come in, and whichever program has written last, the newest of a peer stays."""
    known, other = known_in(tmp_path), known_in(tmp_path)
    known.keep(record(9, "192.0.2.9:9"))
    known.keep(record(3, "192.0.2.3:3"))
    known.save()
    other.keep(record(4, "192.0.2.4:4"))
    other.keep(record(1, key=SecretKey(bytes(31) + b"\x08")))
    other.save()
    last = known_in(tmp_path)
    assert len(last) == 2
    assert [found.timestamp_us for found in await found_in(last)] == [9]


async def test_it_never_outranks_what_others_find(tmp_path: Path) -> None:
    """In a look-up what is known comes first, and a newer record from elsewhere then stands in its place, whole."""
    known = known_in(tmp_path)
    known.keep(record(5, "192.0.2.5:5"))
    fresh = FoundAddr(record(6, "192.0.2.6:6").addr, "fixed", 6)
    stale = FoundAddr(record(4, "192.0.2.4:4").addr, "fixed", 4)
    for answer, expected in ((fresh, "192.0.2.6:6"), (stale, "192.0.2.5:5")):
        service = DiscoveryService([("p", Fixed([answer]))], report=lambda name, exc: None, known=known)
        async with service.look_up(KEY.node_id) as lookup:
            found = [each async for each in lookup]
            merged = lookup.merged()
        assert found[0].source == "known"
        assert merged is not None and [str(addr) for addr in merged.addr.direct_addrs] == [expected]


async def test_a_record_of_another_node_is_refused(tmp_path: Path) -> None:
    """A source whose record is not of the node that was asked for, or of another time, is at fault."""
    reported: list[BaseException] = []
    for wrong in (record(6), record(5, key=SecretKey(bytes(31) + b"\x08"))):
        answer = FoundAddr(record(5).addr, "fixed", 5, wrong)
        service = DiscoveryService([("p", Fixed([answer]))], report=lambda name, exc: reported.append(exc))
        async with service.look_up(KEY.node_id) as lookup:
            assert [each async for each in lookup] == []
    assert [type(exc) for exc in reported] == [TypeError, TypeError]


async def test_knowing_somebody_is_no_one_to_ask(tmp_path: Path) -> None:
    """An empty store counts as nobody to ask, so that a dial without any source still says what to install."""
    known = known_in(tmp_path)
    service = DiscoveryService([], report=lambda name, exc: None, known=known)
    assert not service
    known.keep(record())
    assert service
    known.save()


async def test_it_is_bounded(tmp_path: Path) -> None:
    """Those who were met last stay; after a month without meeting a peer is forgotten."""
    known = known_in(tmp_path)
    keys = [SecretKey(number.to_bytes(32)) for number in range(1, MAX_RECORDS + 3)]
    for key in keys:
        known.keep(record(key=key))
    known.save()
    assert len(known) == MAX_RECORDS == len(known_in(tmp_path))
    assert await found_in(known, keys[0].node_id) == [] and await found_in(known, keys[-1].node_id)
    assert len(known_in(tmp_path, NOW + MAX_AGE + 1)) == 0


async def test_a_forged_entry_leads_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One whose signature is wrong is dropped with a message when somebody asks; others are not touched."""
    known = known_in(tmp_path)
    other = SecretKey(bytes(31) + b"\x08")
    known.keep(record())
    known.keep(record(key=other))
    known.save()
    path = tmp_path / FILE
    data = json.loads(path.read_bytes())
    data["records"][0][0] = data["records"][0][0][:-4] + "AAAA"
    path.write_text(json.dumps(data))
    known = known_in(tmp_path)
    assert await found_in(known) == []
    assert await found_in(known, other.node_id)
    assert "no record" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"{", b"{}", b'{"records": 7}', b'{"records": [7]}', b'{"records": [["", 1]]}', b'{"records": [["!!", 1]]}',
     b'{"records": [["AAAA", true]]}', b'{"records": {"a": 1}}'],
)  # fmt: skip
async def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in the file, the node starts with nothing known, says so, and keeps what it learns."""
    (tmp_path / FILE).write_bytes(content)
    known = known_in(tmp_path)
    assert len(known) == 0
    assert (tmp_path / f"{FILE}.damaged").read_bytes() == content
    assert FILE in caplog.text
    known.keep(record())
    known.save()
    assert len(known_in(tmp_path)) == 1


async def test_only_peers_that_were_met_are_looked_for_there(tmp_path: Path) -> None:
    """A look-up of a stranger says nothing of what is known, and counts nothing for it."""
    known = known_in(tmp_path)
    service = DiscoveryService([("p", Fixed([]))], report=lambda name, exc: None, known=known)
    async with service.look_up(KEY.node_id) as lookup:
        assert [each async for each in lookup] == []
    assert [outcome.source for outcome in lookup.outcomes] == ["fixed"]
    assert service.counts["known"].asked == 0
    known.keep(record())
    async with service.look_up(KEY.node_id) as lookup:
        assert [each.source async for each in lookup] == ["known"]
    known.save()
