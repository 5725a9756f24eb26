"""The networks that a campaign measures in: this machine's loopback, a lab of namespaces, and far-away responders."""

from __future__ import annotations
