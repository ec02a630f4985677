"""[neutron_defaults], with its names looked up in Neutron.

Law: a name that Neutron does not know is no reason to stop: pods say what is wrong, and it is asked for again.
"""

import asyncio
from typing import Protocol

import msgspec

from podvif.core.ports import PortDefaults
from podvif.errors import Refused
from podvif.model import NeutronSubnet
from podvif.settings import ControllerSettings


class Finder(Protocol):
    """What it takes to know what a name stands for (`podvif.neutron.client.Neutron`)."""

    device_owner: str

    async def find_subnet(self, name_or_id: str) -> NeutronSubnet:
        """A subnet by its name or UUID."""

    async def find_security_group(self, name_or_id: str, project_id: str | None = None) -> str:
        """UUID of a security group by its name or UUID."""


class Defaults:
    """What every port is asked for with.

    Attributes:
        known: as far as is known; a subnet that was not found yet is there under the name that it was given.
        refused: why that name stands for no subnet, by the name.
    """

    def __init__(self, neutron: Finder, settings: ControllerSettings) -> None:
        self._neutron = neutron
        self._groups = settings.pod_security_groups
        self.refused: dict[str, Refused] = {}
        self._complete = False
        self._looking = asyncio.Lock()
        self.known = PortDefaults(
            device_owner=neutron.device_owner,
            pod_subnet=settings.pod_subnet,
            project_id=settings.project or None,
            tags=settings.resource_tags,
        )

    async def look_up(self) -> None:
        """Look up what is not known yet; nothing once all is.

        Raises:
            Retry: Neutron cannot be asked.
            Refused: there is no such security group, or more than one; a subnet that is missing shows where it is used.
        """
        if self._complete:
            return
        async with self._looking:  # many pods come at once, and one answer is for all
            if not self._complete:
                await self._look_up()

    async def _look_up(self) -> None:
        self.refused = {}
        if self.known.pod_subnet:
            try:
                subnet = await self._neutron.find_subnet(self.known.pod_subnet)
                self.known = msgspec.structs.replace(self.known, pod_subnet=subnet.id)
            except Refused as error:
                self.refused = {self.known.pod_subnet: error}
        if self._groups and self.known.security_groups is None:
            project = self.known.project_id
            groups = [await self._neutron.find_security_group(name, project) for name in self._groups]
            self.known = msgspec.structs.replace(self.known, security_groups=tuple(groups))
        self._complete = not self.refused
