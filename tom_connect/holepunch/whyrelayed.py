"""Why traffic to a node takes no direct path, in one word."""

from __future__ import annotations

from tom_connect.holepunch.disco import Mapping
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.holepunch.ports import PortProber
from tom_connect.holepunch.puncher import Puncher


def why_relayed(
    paths: RemotePaths, puncher: Puncher, ports: PortProber, now: float, *, direct: bool, blocked: bool
) -> str | None:
    """The reason, None where traffic is direct or there is no path at all.

    - `refused_by_config`: `direct` is False; `port_probing_off`: only that could help, and our config refuses it
    - `blocked_udp`: `blocked`, no UDP leaves our network
    - `peer_without_disco`: the node speaks no disco
    - `no_candidates`: neither end told an address at which the other could ask
    - `symmetric_both`: both NATs give each destination another port
    - `port_probing`, `punching`: it is tried now
    - `punching_failed`: it was tried, and will be again
    """
    if paths.active is None or paths.active.direct:
        return None
    if not direct:
        return "refused_by_config"
    if blocked:
        return "blocked_udp"
    if paths.speaks_disco is False:
        return "peer_without_disco"
    if ports.busy_with(paths.node_id):
        return "port_probing"
    if puncher.under_way(now):
        return "punching"
    if not puncher.candidates and not any(state.direct for state in paths.paths.values()):
        return "no_candidates"
    hard = (ports.mapping is Mapping.DEPENDENT) + (puncher.their_mapping is Mapping.DEPENDENT)
    if hard == 2:
        return "symmetric_both"
    return "port_probing_off" if hard and not ports.enabled else "punching_failed"
