"""A relay that carries encrypted datagrams between nodes, for tom-connect and for iroh."""

from __future__ import annotations
