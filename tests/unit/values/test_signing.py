"""What plugins get of the node's key: signatures of typed things are tested where they are used, secrets here."""

from __future__ import annotations

import pytest

from tom_connect.exceptions import InvalidInputError
from tom_connect.keys import SecretKey
from tom_connect.signing import NodeSigner

ONE, TWO, THREE = (SecretKey(bytes([number]) * 32) for number in (1, 2, 3))


def secret(ours: SecretKey, theirs: SecretKey, purpose: bytes = b"test") -> bytes:
    return NodeSigner(ours).shared_secret(theirs.node_id, purpose)


def test_both_ends_work_out_the_same_secret() -> None:
    """Of either end, and 32 bytes."""
    assert secret(ONE, TWO) == secret(TWO, ONE)
    assert len(secret(ONE, TWO)) == 32


def test_each_pair_and_purpose_has_another_secret() -> None:
    """What is known for one purpose, or to one pair, tells nothing of another."""
    pairs = ((ONE, TWO), (ONE, THREE), (TWO, THREE))
    assert len({secret(*pair, purpose) for pair in pairs for purpose in (b"test", b"tes", b"other")}) == 9


@pytest.mark.parametrize("purpose", [b"", bytes(65)], ids=["none", "too long"])
def test_a_purpose_is_asked_for(purpose: bytes) -> None:
    """One that is no purpose is a mistake of the plugin's."""
    with pytest.raises(InvalidInputError, match="1 to 64 bytes"):
        secret(ONE, TWO, purpose)


def test_a_node_shares_nothing_with_itself() -> None:
    """Its own id can't be meant."""
    with pytest.raises(InvalidInputError, match="itself"):
        secret(ONE, ONE)
