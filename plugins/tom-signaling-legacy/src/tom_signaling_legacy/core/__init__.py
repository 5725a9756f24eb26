"""The protocol without I/O: what messages are, what a server makes of them, and what a client does."""

from __future__ import annotations
