"""What is remembered of volunteers, and of a day's bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.keys import SecretKey
from tom_relay.client.volunteers.book import MAX_KNOWN, VolunteerBook
from tom_relay.volunteer.budget import DailyBudget
from tom_relay.volunteer.topics import DAY


def url(number: int, port: int = 1000) -> RelayUrl:
    return RelayUrl.of_node(SecretKey(bytes((number, *bytes(31)))).node_id, SocketAddr("192.0.2.1", port))


def test_service_makes_a_volunteer_better_and_failures_worse() -> None:
    """Those come first that served long and much; one that failed three times is not tried again."""
    book = VolunteerBook()
    book.served(url(1), 3600.0, 10_000_000, 0.05, wall=1000.0)
    book.served(url(2), 60.0, 0, 0.01, wall=1000.0)
    book.served(url(3), 36_000.0, 10_000_000, 0.05, wall=1000.0)
    assert book.best(1000.0) == [url(3), url(1), url(2)]
    assert book.standing(url(1)).role == "relay" and book.standing(url(2)).role == book.standing(url(9)).role == "peer"
    for _ in range(3):
        book.failed(url(3))
    assert book.best(1000.0) == [url(1), url(2)]
    assert book.best(1000.0, without=[url(1).node_id]) == [url(2)]
    assert book.best(1000.0 + 15 * 86_400) == []
    book.served(url(3), 14 * 86_400.0, 0, None, wall=2000.0)
    assert url(3) in book.best(2000.0)


def test_it_reads_back_and_follows_a_volunteer_that_moved() -> None:
    """What is written is read again, with the address at which a volunteer was seen last."""
    book = VolunteerBook()
    book.level = 3
    book.served(url(1), 100.0, 5, 0.02, wall=1000.0)
    book.of(url(1, port=2000))
    again = VolunteerBook.load(book.dump())
    assert again.level == 3 and again.best(1000.0) == [url(1, port=2000)] and not book.changed
    assert again.dump() == book.dump()


def test_the_best_are_kept() -> None:
    """Of more than it holds the one that served least goes."""
    book = VolunteerBook()
    for number in range(MAX_KNOWN + 5):
        book.served(url(number), 60.0 * (number + 1), 0, None, wall=1.0)
    assert len(book) == MAX_KNOWN and url(MAX_KNOWN + 4) in book.best(1.0) and url(1) not in book.best(1.0)


def test_damaged_files_lose_what_is_damaged() -> None:
    """Whatever a file holds, nothing is raised, and sound entries are kept."""
    book = VolunteerBook()
    book.served(url(1), 100.0, 5, 0.02, wall=1000.0)
    whole = book.dump()
    for end in range(len(whole)):
        assert len(VolunteerBook.load(whole[:end])) == 0
    rng = random.Random(3)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        assert len(VolunteerBook.load(bytes(damaged))) <= 1
    fields = json.loads(whole)
    fields["volunteers"] += [{"url": "tom://x"}, None, {**fields["volunteers"][0], "alive": -1}, {"url": "https://a/"}]
    assert len(VolunteerBook.load(json.dumps(fields).encode())) == 1


def test_a_day_has_so_many_bytes(tmp_path: Path) -> None:
    """What was passed on counts across a restart on the same day, and not on the next."""
    budget = DailyBudget(1000, tmp_path, 5 * DAY)
    budget.count(600, 5 * DAY + 10.0)
    budget.save()
    again = DailyBudget(1000, tmp_path, 5 * DAY + 20.0)
    assert again.used == 600 and not again.spent
    again.count(400, 5 * DAY + 30.0)
    assert again.spent and again.renewed_in(5 * DAY + 30.0) == DAY - 30.0
    again.count(450, 6 * DAY + 1.0)
    assert again.used == 50 and not again.spent
    assert DailyBudget(1000, tmp_path, 6 * DAY).used == 0


@pytest.mark.parametrize("kept", ["", "[]", '{"day": 5, "bytes": "x"}', '{"day": 5, "bytes": -3}', '{"day": 5'])
def test_a_damaged_count_begins_at_nothing(tmp_path: Path, kept: str) -> None:
    """A file that makes no sense is no reason not to start."""
    (tmp_path / "passed-on.json").write_text(kept)
    assert DailyBudget(1000, tmp_path, 5 * DAY).used == 0
