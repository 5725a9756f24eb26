"""Meeting where no path leads yet: calls that are left at places that both ends know (`tom_rendezvous`)."""

from __future__ import annotations

from tom_connect.rendezvous.service import RendezvousService, Steps

__all__ = ["RendezvousService", "Steps"]
