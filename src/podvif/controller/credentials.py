"""What the credentials for Neutron may not do, said at start instead of by the first pod.

Law: it is said and never fatal: what they may do still is done, and it is asked again until nothing is missing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from podvif.controller.defaults import Defaults
from podvif.controller.voice import Recorder
from podvif.errors import PodvifError
from podvif.kube.events import Level, Regarding
from podvif.kube.resources import LEASES, Document, Key, Resource
from podvif.model import NeutronSubnet

_LOG = logging.getLogger(__name__)

REASON = "NeutronCredentials"
AGAIN = 300.0
"""Seconds after which it is asked again what was missing; a Neutron that cannot be asked is asked sooner."""


class Neutron(Protocol):
    """Who knows (`podvif.neutron.client.Neutron`)."""

    async def subnet(self, subnet_id: str) -> NeutronSubnet:
        """A subnet's facts."""

    async def why_not_allowed(self, network_id: str = "") -> str | None:
        """What the credentials lack, or None."""


class Getter(Protocol):
    """Reading one object."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """The object, or None."""


class Credentials:
    """Asks, and says it by an event of the controller's Lease, which is the one object that stands for it.

    Attributes:
        missing: what they lack, as far as is known.
    """

    def __init__(
        self,
        neutron: Neutron,
        defaults: Defaults,
        api: Getter,
        recorder: Recorder,
        *,
        lease: Key,
        leading: Callable[[], bool],
    ) -> None:
        self.missing: str | None = None
        self._neutron = neutron
        self._defaults = defaults
        self._api = api
        self._recorder = recorder
        self._lease = lease
        self._leading = leading

    async def watch(self, seconds: float = AGAIN) -> None:
        """Ask until nothing is missing."""
        while not await self._ask():  # noqa: ASYNC110  Neutron tells nobody that a role was given
            await asyncio.sleep(seconds)

    async def _ask(self) -> bool:
        """Whether they may do all that is needed."""
        try:
            await self._defaults.look_up()
            subnet = self._defaults.known.pod_subnet
            network = (await self._neutron.subnet(subnet)).network_id if subnet else ""
            self.missing = await self._neutron.why_not_allowed(network)
        except PodvifError as error:
            self.missing = error.message
        if self.missing is None:
            _LOG.info("the credentials for Neutron may do what is needed")
            return True
        _LOG.error("Neutron: %s", self.missing)
        await self._say(self.missing)
        return False

    async def _say(self, what: str) -> None:
        try:
            lease = await self._api.get(LEASES, self._lease)
        except PodvifError:
            return  # it stands in the log
        if lease and self._leading():
            about = Regarding(LEASES, self._lease, lease["metadata"]["uid"])
            await self._recorder.record(about, Level.WARNING, REASON, "AskNeutron", what)
