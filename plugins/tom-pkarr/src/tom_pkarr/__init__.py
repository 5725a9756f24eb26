"""Pkarr relays and DNS for tom-connect: finding nodes by them, publishing to them, and hosting a relay."""

from __future__ import annotations
