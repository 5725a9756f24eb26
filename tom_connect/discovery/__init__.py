"""Finding others through the discovery plugins, and telling the world where we are through the publishers."""

from tom_connect.discovery.health import SourceCounts
from tom_connect.discovery.known import KnownRecords
from tom_connect.discovery.lookup import Lookup, SourceOutcome
from tom_connect.discovery.merging import merged
from tom_connect.discovery.metrics import metrics_text
from tom_connect.discovery.nodesfile import NodesFile
from tom_connect.discovery.publishing import PublishService
from tom_connect.discovery.service import DiscoveryService
from tom_connect.discovery.statistics import keep_statistics, read_statistics

__all__ = [
    "DiscoveryService",
    "KnownRecords",
    "Lookup",
    "NodesFile",
    "PublishService",
    "SourceCounts",
    "SourceOutcome",
    "keep_statistics",
    "merged",
    "metrics_text",
    "read_statistics",
]
