"""HTTP dates, validators and waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_pkarr.core import http


@given(st.integers(0, 2**33))
def test_dates_go_round(seconds: int) -> None:
    """A timestamp's date is read as its whole second."""
    assert http.parse_http_date(http.http_date(seconds * 1_000_000 + 999_999)) == seconds


def test_a_known_date() -> None:
    """The date is in the form of RFC 9110."""
    assert http.http_date(1_729_257_861_000_000) == "Fri, 18 Oct 2024 13:24:21 GMT"


def test_the_last_timestamp_has_a_date() -> None:
    """A timestamp beyond the year 9999 is that year's last second, not an error."""
    assert http.http_date(2**63 - 1) == "Fri, 31 Dec 9999 23:59:59 GMT"


@pytest.mark.parametrize("text", [None, "", "now", "Fri, 99 Oct 2024 13:24:21 GMT", "Fri, 18 Oct 2024", "x" * 1000])
def test_what_is_no_date(text: str | None) -> None:
    """What can't be read is no date."""
    assert http.parse_http_date(text) is None


@given(st.text(max_size=80))
def test_any_text_is_a_date_or_none(text: str) -> None:
    """No header makes these readers raise."""
    http.parse_http_date(text)
    http.max_age(text)
    http.matched_timestamp(text)
    http.names_etag(text, '"1"')
    assert (http.retry_after(text, 1e9, 300.0) or 0.0) <= 300.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("public, max-age=30", 30), ("max-age=0", 0), ("no-store", 0), ("no-cache, max-age=9", 0), ("public", None)],
)
def test_freshness(text: str, seconds: float | None) -> None:
    """`max-age` counts, unless the answer may not be kept at all."""
    assert http.max_age(text) == seconds


def test_waits() -> None:
    """`Retry-After` is a number of seconds or a date, and never more than the limit."""
    assert http.retry_after("7", 0.0, 300.0) == 7.0
    assert http.retry_after("99999999", 0.0, 300.0) == 300.0
    assert http.retry_after("Fri, 18 Oct 2024 13:24:21 GMT", 1_729_257_851.0, 300.0) == 10.0
    assert http.retry_after("Fri, 18 Oct 2024 13:24:21 GMT", 1_829_257_851.0, 300.0) == 0.0
    assert http.retry_after("soon", 0.0, 300.0) is None


def test_entity_tags() -> None:
    """`If-Match` takes the bare timestamp of Pkarr and our own tag; `If-None-Match` a list, weak ones too."""
    tag = http.etag(1741107004412159, bytes(range(64)))
    assert tag == '"1741107004412159-0001020304050607"'
    for text in ("1741107004412159", tag, f"W/{tag}", ' "1741107004412159" '):
        assert http.matched_timestamp(text) == 1741107004412159
    assert http.matched_timestamp('"abc"') is None
    assert http.names_etag(f'"x", W/{tag}', tag)
    assert http.names_etag("*", tag)
    assert not http.names_etag('"x"', tag)
