"""Names of packets, beside what NodeId reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import NodeId, SecretKey
from tom_pkarr.core.names import key_bytes

LETTERS = "ybndrfg8ejkmcpqxot1uwisza345h769"


@given(st.binary(min_size=32, max_size=32))
def test_the_name_of_a_key_is_its_bytes(seed: bytes) -> None:
    """Every key's name gives its 32 bytes."""
    node_id = SecretKey(seed).node_id
    assert key_bytes(node_id.z32()) == node_id.raw


@given(st.text(LETTERS, min_size=52, max_size=52) | st.text(max_size=60))
def test_what_a_node_id_reads_is_read_alike(text: str) -> None:
    """A text that NodeId takes gives the same bytes, and no other text two names for one key."""
    raw = key_bytes(text)
    assert raw is None or len(raw) == 32
    try:
        node_id = NodeId.from_z32(text)
    except InvalidKeyError:
        return
    assert raw == node_id.raw
    assert node_id.z32() == text
