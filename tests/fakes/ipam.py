"""An IPAM plugin in memory that behaves as host-local does: one lease for each attachment, and no second one."""

from collections.abc import Callable, Mapping
from typing import Any

from podvif.errors import Refused
from podvif.ipam.delegate import Delegate
from podvif.model import Address, Addresses, Attachment, IpamCall


class FakeIpam(Delegate):
    """Leases outlive the daemon.

    Attributes:
        leases: what is leased, by attachment.
        calls: the verbs that were called, in order.
        before_act: called with each verb before it happens; raise from it to make it fail.
    """

    def __init__(self) -> None:
        super().__init__(timeout=1)
        self.leases: dict[Attachment, str] = {}
        self.calls: list[str] = []
        self.before_act: Callable[[str], None] = lambda _: None
        self._next = 2

    async def add(self, attachment: Attachment, call: IpamCall) -> Addresses:
        self._called("ADD")
        if attachment in self.leases:
            raise Refused(f"IPAM plugin fake failed to ADD: {attachment} has {self.leases[attachment]} already")
        address = self.leases[attachment] = f"10.1.0.{self._next}"
        self._next += 1
        return Addresses(ips=(Address(f"{address}/24", gateway="10.1.0.1"),))

    async def remove(self, attachment: Attachment, call: IpamCall) -> None:
        self._called("DEL")
        self.leases.pop(attachment, None)

    async def check(self, attachment: Attachment, call: IpamCall, previous: Mapping[str, Any]) -> None:
        self._called("CHECK")
        if attachment not in self.leases:
            raise Refused(f"IPAM plugin fake failed to CHECK: {attachment} has no lease")

    async def collect(self, call: IpamCall) -> None:
        self._called("GC")

    def _called(self, verb: str) -> None:
        self.before_act(verb)
        self.calls.append(verb)
