"""npm's hyperdht: a DHT of its own on one machine of a lab, and nodes on others that dial by key and punch."""

from __future__ import annotations

from tests.interop.peers.npm import start_node
from tests.interop.peers.process import LineProcess
from tom_connect.testing.natlab import Host

#: Seconds for a node: hyperdht samples its NAT while it bootstraps.
BOOTSTRAP_TIMEOUT = 60.0


def start_hyperdht(host: Host) -> LineProcess:
    """Start a child on a machine of a lab; raises PeerMissing without node.js or the package."""
    return start_node("hyperdht", "hyperdht-process.mjs", on=host)


def start_hyperdht_network(host: Host, addresses: list[str]) -> tuple[LineProcess, list[dict[str, object]]]:
    """Start a DHT with a node on each of a machine's addresses; the child, and what others bootstrap from."""
    host.add_addresses(addresses)
    process = start_hyperdht(host)
    try:
        bootstrap = process.call_sync("network", addresses=addresses)["bootstrap"]
    except BaseException:
        process.close()
        raise
    return process, bootstrap
