"""A port of the home router opened for an endpoint, by PCP, NAT-PMP or UPnP, for tom-connect."""

from __future__ import annotations
