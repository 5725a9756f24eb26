"""The item by which a node says how it is to be called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core import ItemError
from tom_dht_mainline.core.rendezvous.invitation import SIZE, Filtering, Invitation, decode_invitation

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rendezvous.json").read_text())

invitations = st.builds(
    Invitation,
    mailbox=st.binary(min_size=20, max_size=20),
    interval=st.integers(1, 60_000).map(lambda ticks: ticks * 0.01),
    nodes=st.integers(1, 255),
    key=st.binary(min_size=32, max_size=32),
    filtering=st.sampled_from(Filtering),
    ports_differ=st.booleans(),
    ip=st.none() | st.ip_addresses(v=4).map(str).filter(lambda ip: ip != "0.0.0.0"),
)


@given(invitations)
def test_what_is_written_is_read(invitation: Invitation) -> None:
    """A round trip, and the size that the page names."""
    encoded = invitation.encode()
    assert len(encoded) == SIZE == 73
    assert decode_invitation(encoded) == invitation


@given(invitations, st.binary(max_size=100))
def test_later_bytes_are_for_later_versions(invitation: Invitation, more: bytes) -> None:
    """A reader ignores what follows."""
    assert decode_invitation(invitation.encode() + more) == invitation


@given(invitations, st.data())
def test_every_prefix_is_refused(invitation: Invitation, data: st.DataObject) -> None:
    """A truncated item is no invitation."""
    with pytest.raises(ItemError):
        decode_invitation(invitation.encode()[: data.draw(st.integers(0, SIZE - 1))])


@given(invitations, st.integers(0, SIZE * 8 - 1))
def test_perturbed_bytes_are_read_or_refused(invitation: Invitation, bit: int) -> None:
    """One wrong bit gives another invitation or ItemError, nothing else."""
    data = bytearray(invitation.encode())
    data[bit // 8] ^= 1 << bit % 8
    try:
        decode_invitation(bytes(data))
    except ItemError:
        pass


@pytest.mark.parametrize("value", [None, 7, b"", [b"x" * 73], {b"v": b"x"}])
def test_what_is_no_byte_string_is_refused(value: object) -> None:
    """Anyone whose key it is may put anything bencoded."""
    with pytest.raises(ItemError):
        decode_invitation(value)


@pytest.mark.parametrize("vector", VECTORS["invitations"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, object]) -> None:
    """The vectors of the page are written and read as they stand there."""
    invitation = Invitation(
        mailbox=bytes.fromhex(str(vector["mailbox"])),
        interval=float(str(vector["interval"])),
        nodes=int(str(vector["nodes"])),
        key=bytes.fromhex(str(vector["key"])),
        filtering=Filtering(int(str(vector["filtering"]))),
        ports_differ=bool(vector["ports_differ"]),
        ip=str(vector["ip"]) if vector["ip"] is not None else None,
    )
    assert invitation.encode().hex() == vector["value"]
    assert decode_invitation(bytes.fromhex(str(vector["value"]))) == invitation
