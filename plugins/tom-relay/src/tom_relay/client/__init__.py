"""The relay client: it carries the core's datagrams through relays."""

from __future__ import annotations
