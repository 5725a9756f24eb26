"""The header in which a relay tells its UDP services."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_relay.wire.services import decode_services, encode_services

PORT = st.integers(1, 65535)


@given(st.dictionaries(st.sampled_from(["stun", "qad", "stun-other"]), PORT))
def test_what_is_told_is_understood(ports: dict[str, int]) -> None:
    """The ports come out as they went in, none as none."""
    assert decode_services(encode_services(ports)) == ports


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        (None, None),
        ("", {}),
        ("stun=3478,qad=7842", {"stun": 3478, "qad": 7842}),
        (" qad=7842 , turn=3478, stun=0", {"qad": 7842}),
        ("stun=65536, qad=-1, stun", {}),
        ("stun=٣٤٧٨", {}),
        ("stun=3478;qad=1", {}),
    ],
)
def test_the_rest_is_left_out(value: str | None, ports: dict[str, int] | None) -> None:
    """Unknown services and impossible ports do not count, and silence is something else than none."""
    assert decode_services(value) == ports


@given(st.text())
def test_no_text_is_too_strange(value: str) -> None:
    """Whatever a relay says, only ports come out."""
    ports = decode_services(value)
    assert ports is not None
    assert all(0 < port < 65536 for port in ports.values())
