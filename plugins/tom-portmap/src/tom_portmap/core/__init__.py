"""When to ask a gateway what, and what its answers mean, sans-IO: answers and `now` in, messages and actions out."""

from __future__ import annotations
