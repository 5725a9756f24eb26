"""The legacy signaling of ToM for tom-connect: a server, and a client that finds nodes through it, until it can go."""

from __future__ import annotations
