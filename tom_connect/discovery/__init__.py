"""Finding others through the discovery plugins, and telling the world where we are through the publishers."""

from tom_connect.discovery.lookup import Lookup, SourceOutcome
from tom_connect.discovery.publishing import PublishService

__all__ = ["Lookup", "PublishService", "SourceOutcome"]
