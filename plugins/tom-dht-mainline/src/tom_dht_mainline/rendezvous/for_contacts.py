"""Being reachable for contacts: a mailbox that nobody else knows of, named in what is left for each of them."""

from __future__ import annotations

import asyncio
import os

from tom_connect.abc import Call
from tom_dht_mainline.core.rendezvous.callee import TARGET_SIZE, Callee
from tom_dht_mainline.core.rendezvous.contacts import Kind
from tom_dht_mainline.core.rendezvous.invitation import Invitation
from tom_dht_mainline.service import DhtService

from .reachable import Reachable


class ReachableForContacts(Reachable):
    """One mailbox for all contacts, drawn at random: one more to poll, however many they are."""

    def __init__(self, service: DhtService, calls: asyncio.Queue[Call | None]) -> None:
        super().__init__(service, calls, _drawn())

    def network_changed(self) -> None:
        """Draw another mailbox: who is near it would see that two addresses are one node's."""
        self._callee = _drawn()
        self._moved.set()
        self._changed.set()

    async def _put(self, invitation: Invitation) -> None:
        await self._service.contacts.put(Kind.INVITATION, invitation.encode())


def _drawn() -> Callee:
    return Callee(os.urandom(TARGET_SIZE), os.urandom)


__all__ = ["ReachableForContacts"]
