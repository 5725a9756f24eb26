"""The bytes of PCP, NAT-PMP, SSDP and the SOAP of UPnP gateways, sans-IO."""

from __future__ import annotations
