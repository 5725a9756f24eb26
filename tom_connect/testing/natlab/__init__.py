"""Networks with NATs on one machine, for tests: real routers, hosts and bad links in network namespaces.

Linux, root, and the programs `ip`, `nft` and `conntrack` are needed; `missing()` says what is not there. Nothing
leaves the namespaces.

    with Lab() as lab:
        relay = lab.host("relay")
        home = lab.router("home", Nat.MODERATE, wire=Wire(delay=0.010))
        laptop = lab.host("laptop", home)
        print(laptop.run(["ping", "-c", "1", relay.addr]).stdout)
"""

from __future__ import annotations

from tom_connect.testing.natlab.cut import Cut
from tom_connect.testing.natlab.lab import Lab
from tom_connect.testing.natlab.namespaces import LabError, missing
from tom_connect.testing.natlab.nat import Nat
from tom_connect.testing.natlab.node import Host, Node
from tom_connect.testing.natlab.router import Router
from tom_connect.testing.natlab.wire import Wire

__all__ = ["Cut", "Host", "Lab", "LabError", "Nat", "Node", "Router", "Wire", "missing"]
