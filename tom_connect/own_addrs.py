"""Where we are: gathered from interfaces, plugins and relays, and what of it is told to whom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from tom_connect.abc import AddressSource, RelayTransport
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.holepunch.addrfilter import AddressFilter
from tom_connect.holepunch.disco import Mapping
from tom_connect.keys import NodeId
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.netreport.interfaces import MAX_ADDRESSES, NetworkState, expand_wildcards, network_state
from tom_connect.netreport.report import Filtering, NetReport
from tom_connect.netreport.report import Mapping as ReportedMapping
from tom_connect.watch import Watch

logger = logging.getLogger(__name__)

_MAPPINGS = {
    ReportedMapping.ENDPOINT_INDEPENDENT: Mapping.INDEPENDENT,
    ReportedMapping.ENDPOINT_DEPENDENT: Mapping.DEPENDENT,
    ReportedMapping.UNKNOWN: Mapping.UNKNOWN,
}


class OwnAddresses:
    """The addresses of an endpoint. `known`: all that are ours; `told`: what may be published of them.

    What peers are offered, sealed, goes to the magic socket. All three follow the endpoint's address filter.
    """

    def __init__(self, node_id: NodeId, config: EndpointConfig, magic: MagicSocket) -> None:
        self.known = Watch(NodeAddr(node_id))
        self.told = Watch(NodeAddr(node_id))
        self.filter = AddressFilter.of(config)
        self.state = NetworkState()
        """What the last look at the interfaces has shown."""
        self.sources: Sequence[tuple[str, AddressSource]] = ()
        self.relays: Sequence[tuple[str, RelayTransport]] = ()
        self.net = Watch(NetReport())
        """At which addresses others see us."""
        self._node_id = node_id
        self._direct = config.direct
        self._skip = config.skip_interfaces
        self._magic = magic
        self._hosts: list[str] = []

    def look(self) -> None:
        """Look at the interfaces; `update` then takes what was found. If the system won't tell, all stays as it was."""
        try:
            self.seen(network_state())
        except OSError as exc:
            logger.warning("can't look at the network interfaces: %s", exc)

    def seen(self, state: NetworkState) -> None:
        """Take what a look at the interfaces has shown."""
        self.state = state
        self._hosts = [address.host for address in state.kept(self._skip)][:MAX_ADDRESSES]
        self.filter = attrs.evolve(self.filter, skipped=state.skipped_networks(self._skip))
        self._magic.set_address_filter(self.filter)

    def update(self) -> None:
        """Gather anew, and tell those who watch or wait if something differs."""
        found = self.local()
        seen = self.net.value
        mapped = [addr for _name, source in self.sources for addr in source.watch().value]
        doubtful = set(seen.reflexive).difference(seen.confirmed, found, mapped)
        found += [*seen.reflexive, *mapped]
        homes = (transport.home_relay().value for _name, transport in self.relays)
        relays = tuple(home for home in homes if home is not None)
        known = NodeAddr(self._node_id, relays, found if self._direct else ())
        self.known.set(known)
        behind = seen.ipv4
        self._magic.set_own_nat(
            _MAPPINGS[behind.mapping],
            behind.reflexive[0] if behind.reflexive else SocketAddr(behind.shifting, 0) if behind.shifting else None,
            filtered=behind.filtering is not Filtering.ENDPOINT_INDEPENDENT,
            blocked=seen.udp_blocked is True,
        )
        spare = (transport.standby_relay().value for _name, transport in self.relays)
        self._magic.set_own_candidates(known.direct_addrs, (*relays, *(url for url in spare if url is not None)))
        told = [addr for addr in known.direct_addrs if self.filter.publishable(addr) and addr not in doubtful]
        # A reflexive or mapped address says more than an interface's: where space is short, the last ones are cut.
        told.sort(key=lambda addr: addr not in seen.confirmed and addr not in mapped)
        self.told.set(NodeAddr(self._node_id, relays, told))

    def local(self) -> list[SocketAddr]:
        """Where our sockets can be reached on this machine's own interfaces."""
        return expand_wildcards(self._magic.local_addrs, self._hosts)

    def routers(self) -> list[str]:
        """The IPv4 addresses that our routers have outside, as far as plugins know."""
        return [host for _name, source in self.sources for host in source.router_addresses()]

    async def follow(self, watch: Watch[Any], then: Callable[[], None] | None = None) -> None:
        """Update whenever what is watched changes, and call `then` after it."""
        async for _value in watch:
            self.update()
            if then is not None:
                then()

    def close(self) -> None:
        """End what watches us."""
        self.known.close()
        self.told.close()
