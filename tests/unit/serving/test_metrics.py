"""Metrics of servers, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("prometheus_client", reason="needs a plugin with a server")

from prometheus_client.core import Metric

from tom_connect.serving.metrics import ServerMetrics


class Shop(ServerMetrics):
    """Counts customers."""

    def __init__(self) -> None:
        super().__init__("shop_")
        self.seen = {"left": 1, "bought": 2}

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        yield self.gauge("customers", "In the shop now", 3)
        yield self.counter("opened", "Days", 4)
        yield self.by("seen", "By outcome", "outcome", self.seen)
        yield self.by_all("sold", "By size and colour", ("size", "colour"), [(("2", "red"), 1), (("1", "blue"), 5)])


def lines(metrics: ServerMetrics) -> list[str]:
    return [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]


def test_each_kind_of_metric_is_shown_as_it_is_now() -> None:
    """Names have the prefix, counters end with _total, labels are sorted; what has changed since is seen."""
    shop = Shop()
    assert lines(shop) == [
        "shop_customers 3.0",
        "shop_opened_total 4.0",
        'shop_seen_total{outcome="bought"} 2.0',
        'shop_seen_total{outcome="left"} 1.0',
        'shop_sold_total{colour="blue",size="1"} 5.0',
        'shop_sold_total{colour="red",size="2"} 1.0',
    ]
    shop.seen["left"] += 1
    assert 'shop_seen_total{outcome="left"} 2.0' in lines(shop)


def test_two_servers_in_one_program_keep_apart() -> None:
    """Each has a registry of its own: a second one with the same names is no error, and counts alone."""
    one, other = Shop(), Shop()
    one.seen["left"] = 9
    assert 'shop_seen_total{outcome="left"} 1.0' in lines(other)
