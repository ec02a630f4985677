"""What an attachment holds of its network's IPAM plugin, and the journal that knows of it.

Law: before a plugin is asked the journal names it, and until everything is given back it still does, so that no lease is
lost by a crash.
"""

import logging
from typing import Protocol

import msgspec

from podvif.core import translate
from podvif.errors import Bug, Refused
from podvif.ipam.delegate import plugin_name
from podvif.model import Addresses, Attachment, Entry, IpamCall
from podvif.node.journal import Journal

_LOG = logging.getLogger(__name__)


class Ipam(Protocol):
    """What leases need of IPAM (`podvif.ipam.delegate.Delegate`)."""

    async def add(self, attachment: Attachment, call: IpamCall) -> Addresses:
        """Reserve addresses."""

    async def remove(self, attachment: Attachment, call: IpamCall) -> None:
        """Give back what the attachment holds."""


class Leases:
    """Reserves and releases, for every kind of port."""

    def __init__(self, journal: Journal, ipam: Ipam) -> None:
        """Take the parts."""
        self._journal = journal
        self._ipam = ipam

    async def reserve(self, attachment: Attachment) -> None:
        """Ask the plugin for addresses and write them into the journal.

        Raises:
            Refused: the plugin has none, or not those that were asked for.
            Retry: it failed and says that a repeat may help.
        """
        _, call = self._entry_with_ipam(attachment)
        addresses = await self._ipam.add(attachment, call)
        if reason := translate.why_not_addresses(call.requested, addresses):
            # The lease is in the journal's care: the entry still names its IPAM, and the rollback releases it.
            raise Refused(f"IPAM plugin {plugin_name(call)}: {reason}", "ask for an address that the network can give")
        # Read again: a DEL may have changed the goal meanwhile, and that is its to say.
        entry, _ = self._entry_with_ipam(attachment)
        self._journal.put(msgspec.structs.replace(entry, addresses=addresses))

    async def release(self, attachment: Attachment) -> None:
        """Give back what the attachment holds.

        Raises:
            Refused: the plugin cannot be run, and has given an address.
            Retry: it failed.
        """
        entry, call = self._entry_with_ipam(attachment)
        try:
            await self._ipam.remove(attachment, call)
        except Refused as error:
            # A plugin that cannot be run now, and that never told us of an address: there is nothing to wait for.
            if entry.addresses is not None:
                raise
            _LOG.info("%s: %s; it had given no address", attachment, error.message)
        entry, _ = self._entry_with_ipam(attachment)
        # If we are killed now the plugin is asked again, which it has to bear (CNI SPEC.md section 2, "DEL").
        self._journal.remember(msgspec.structs.replace(entry, ipam=None, addresses=None))

    def _entry_with_ipam(self, attachment: Attachment) -> tuple[Entry, IpamCall]:
        entry = self._journal.get(attachment)
        if entry is None or entry.ipam is None:
            raise Bug(f"{attachment} has no IPAM in the journal")
        return entry, entry.ipam
