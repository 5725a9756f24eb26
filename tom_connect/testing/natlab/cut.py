"""Links that swallow packets while they look healthy."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tom_connect.testing.natlab.links import Link
from tom_connect.testing.natlab.namespaces import nft


class Cut:
    """Packets of a link that vanish without a sign until `mend()` is called or the context ends."""

    def __init__(self, link: Link, number: int, networks: tuple[str, ...] | None) -> None:
        self._namespace = link.far_namespace
        self._table = f"netdev natlab_cut{number}"
        hooks = []
        for hook, field in (("ingress", "daddr"), ("egress", "saddr")):
            rules = ["drop"]
            if networks is not None:
                rules = [f"{'ip6' if ':' in network else 'ip'} {field} {network} drop" for network in networks]
            kind = f"type filter hook {hook} device {link.far_device} priority 0"
            hooks.append(f"chain {hook} {{ {kind}; {'; '.join(rules)}; }}\n")
        nft(self._namespace, f"table {self._table} {{\n{''.join(hooks)}}}\n")
        self._is_mended = False

    def mend(self) -> None:
        """Let packets through again; further calls do nothing."""
        if not self._is_mended:
            self._is_mended = True
            nft(self._namespace, f"add table {self._table}\ndelete table {self._table}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mend()
