"""What runs at each node of a campaign: it measures others, lets itself be measured, and takes requests."""

from __future__ import annotations
