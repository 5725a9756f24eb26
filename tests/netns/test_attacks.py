"""Two nodes behind NATs meet through a DHT in which somebody wants that they don't; `benchmarks` has the figures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import attrs
import pytest

from benchmarks.serverless.attack.attacks import HELD, NAMED, Attack, announce, by_name
from benchmarks.serverless.attack.stage import Stage, stage
from tests.interop.peers import PeerMissing
from tom_connect.testing.natlab import missing

pytestmark = pytest.mark.timeout(300)

#: Seconds for a dial on a machine that is busy with other things; a call that is not noticed is left again after 20.
PATIENCE = 60.0


@pytest.fixture
def attacked() -> Iterator[Callable[[Attack], AbstractContextManager[Stage]]]:
    """Builds a lab with the attacker of one attack in it."""
    if lacking := missing():
        pytest.skip(f"needs {', '.join(lacking)}")
    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def start(attack: Attack) -> Iterator[Stage]:
            try:
                yield stack.enter_context(stage(attack.kinds))
            except PeerMissing as lacking:
                pytest.skip(str(lacking))

        yield start


async def meets(scene: Stage, attack: Attack) -> None:
    """Publish the callee, attack, and dial it by its key."""
    await attack.prepare(scene)
    assert await scene.publish() is None
    await attack.begin(scene)
    said = await scene.dial(PATIENCE)
    assert said["direct"] is not None, said


async def test_who_holds_the_nearest_nodes_does_not_keep_a_pair_apart(
    attacked: Callable[[Attack], AbstractContextManager[Stage]],
) -> None:
    """The 8 nodes nearest to the callee's record swallow all that is stored there: record and call are found beyond."""
    attack = by_name("8 nearest held, silent")
    with attacked(attack) as scene:
        await meets(scene, attack)
        assert (await scene.gang.call("asked"))["queries"] > 0


async def test_who_replays_an_old_record_does_not_keep_a_pair_apart(
    attacked: Callable[[Attack], AbstractContextManager[Stage]],
) -> None:
    """The nearest 8 forge the record, replay an old one and invent callers: the true one is found, and called."""
    attack = by_name("forged records")
    with attacked(attack) as scene:
        await meets(scene, attack)
        assert (await scene.gang.call("asked"))["queries"] > 0


async def test_a_flooded_mailbox_is_left_for_another(
    attacked: Callable[[Attack], AbstractContextManager[Stage]],
) -> None:
    """Hundreds of announcements in the callee's mailbox: it looks elsewhere, says so, and a caller finds it there."""
    flood = announce(rate=2_000.0, most=NAMED * HELD, follows=True)
    attack = attrs.evolve(by_name("mailbox flooded once"), begin=flood)
    with attacked(attack) as scene:
        assert await scene.publish() is None
        await attack.begin(scene)
        async with asyncio.timeout(PATIENCE):
            while (await scene.flood.call("rate"))["mailboxes"] == [scene.target.hex()]:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)
        said = await scene.dial(PATIENCE)
        assert said["direct"] is not None, said


async def test_lies_about_our_address_are_outvoted(
    attacked: Callable[[Attack], AbstractContextManager[Stage]],
) -> None:
    """A fifth of all DHT nodes says that everybody is seen at one false address: the true one is published."""
    attack = by_name("20% lie about ip")
    with attacked(attack) as scene:
        await meets(scene, attack)
        addresses = (await scene.nodes[1].call("addresses"))["addresses"]
        assert {each.rpartition(":")[0] for each in addresses} >= {scene.routers[1].wan}
        assert (await scene.gang.call("asked"))["queries"] > 0


async def test_who_reads_the_mailbox_can_not_lock_a_sealed_call(
    attacked: Callable[[Attack], AbstractContextManager[Stage]],
) -> None:
    """Rubbish under the call's own key, as soon as it is announced: the call is read all the same."""
    attack = by_name("sealed calls locked")
    with attacked(attack) as scene:
        await meets(scene, attack)
        locked = await scene.locks.call("locked")
        assert locked["places"] >= 1 and locked["put"] >= HELD
