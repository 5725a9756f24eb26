"""Look-ups as metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tom_connect.discovery import SourceCounts, metrics_text


def test_prometheus_reads_what_was_counted() -> None:
    """Its own parser gives every count back, by source, also of a source with a name that must be escaped."""
    odd = 'a "quoted" \\ name\nof two lines'
    counts = {"dht": SourceCounts(asked=5, found=3, first=2, nothing=1, failed=1), odd: SourceCounts(asked=1)}
    read = {
        (sample.name, sample.labels["source"]): sample.value
        for family in text_string_to_metric_families(metrics_text(counts))
        for sample in family.samples
    }
    fields = ("asked", "found", "first", "nothing", "failed")
    assert read == {
        (f"tom_connect_discovery_{field}_total", source): getattr(counted, field)
        for source, counted in counts.items()
        for field in fields
    }


def test_without_look_ups_there_are_no_metrics() -> None:
    """A textfile collector then finds an empty file, which is no error."""
    assert metrics_text({}) == ""
