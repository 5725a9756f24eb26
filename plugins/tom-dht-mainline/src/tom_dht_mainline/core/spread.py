"""How much of one network a look-up may ask: else whoever names nodes could have many packets sent to it."""

from __future__ import annotations

from .address import Address, host_key, prefix_key


class Spread:
    """The addresses that a look-up takes, and those that belong to it: one of each host, a few of each network."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, Address] = {}
        self._networks: dict[bytes, int] = {}

    def takes(self, address: Address, most: int) -> bool:
        """Whether an address may be asked, now and from now on. `most`: of one network."""
        host = host_key(address[0])
        if host in self._hosts:
            return self._hosts[host] == address
        network = prefix_key(address[0])
        held = self._networks.get(network, 0)
        if held >= most:
            return False
        self._hosts[host] = address
        self._networks[network] = held + 1
        return True


__all__ = ["Spread"]
