"""Measurement campaigns: populations of tom-connect nodes, measured phase by phase, with records and a report."""

from __future__ import annotations
