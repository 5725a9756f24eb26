"""What a campaign is, without I/O: scenarios, pairs, steps, statistics, records, and what nodes are asked."""

from __future__ import annotations
