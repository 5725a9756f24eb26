"""Half an hour of changing networks, servers that come, go and lie: the network report is right again each time."""

from __future__ import annotations

import random

import pytest

from tests.unit.netreport.natworld import INSIDE, PUBLIC, World, cone, qad, stun, symmetric
from tom_connect.addr import SocketAddr
from tom_connect.netreport.observations import SERVER_TRUST
from tom_connect.netreport.report import Mapping

SERVERS = [stun("a", 1), stun("b", 2), stun("c", 3), qad()]
LIE = SocketAddr("198.51.100.66", 666)
QUIET = 2 * SERVER_TRUST
"""Seconds after which every word from before a change has run out, and each server was asked several times."""


def change(world: World, rng: random.Random) -> None:
    """Something happens to the network, and the endpoint may notice by itself or not."""
    what = rng.choice(["rebind", "address", "kind", "server", "liar", "nothing"])
    if what == "rebind":
        port = rng.randrange(1024, 65536)
        world.mapping = lambda _dest: SocketAddr(PUBLIC, port)
    elif what == "address":
        addr = SocketAddr(f"203.0.113.{rng.randrange(2, 250)}", rng.randrange(1024, 65536))
        world.mapping = lambda _dest: addr
    elif what == "kind":
        world.mapping = rng.choice([cone, symmetric])
    elif what == "server":
        target = rng.choice(SERVERS)
        (world.down.discard if target.addr in world.down else world.down.add)(target.addr)
    elif what == "liar":
        world.lies = {} if world.lies else {rng.choice(SERVERS[:3]).addr: LIE}
    if rng.random() < 0.5:
        world.prober.network_changed(world.now)


@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(n, marks=pytest.mark.slow) for n in range(20, 200))])
def test_after_every_change_the_truth_is_found_again(seed: int) -> None:
    """With any two honest servers their address is published and no other; a single liar never has its way."""
    world, rng = World(seed, loss=0.02), random.Random(seed)
    world.prober.set_targets(SERVERS, world.now)
    for _ in range(12):
        for _ in range(rng.randrange(1, 4)):
            change(world, rng)
            world.run(rng.uniform(0, 30))
        world.run(QUIET)
        verdict = world.observations.verdict(4, [INSIDE])
        up = [target for target in SERVERS if target.addr not in world.down]
        honest = [target for target in up if target.addr not in world.lies]
        truths = {world.mapping(target.addr) for target in honest}
        if len(truths) > 1:
            assert verdict.confirmed == ()
            expected = Mapping.ENDPOINT_DEPENDENT if len(honest) == len(up) else Mapping.UNKNOWN
            assert verdict.mapping is expected
        elif len(honest) > 1:
            assert verdict.confirmed == tuple(truths)
            assert verdict.mapping is Mapping.ENDPOINT_INDEPENDENT
        elif len(honest) < len(up):
            assert verdict.confirmed in ((), (LIE,))  # alone, or one word against another
        else:
            assert verdict.confirmed == tuple(truths)
        assert len(world.sent) < world.now  # about a datagram a second and less, whatever happens
