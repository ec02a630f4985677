"""The round over all pods and ports, for what no event tells: a port deleted by hand, a port that belongs to nobody.

Law: one listing of all our ports serves both; a pod is looked at anew only where that listing leaves something to do.  A port
without an owner is removed when it was seen so twice, a grace time apart, by caches that are up to date; a port that is not
ours is never touched.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from podvif.controller.cluster import Cluster, Facts, bound_condition
from podvif.controller.tally import Tally
from podvif.core.pods import Action, Fail, SeenPod, next_action
from podvif.core.ports import TAG, Places, PortDefaults, orphans
from podvif.errors import PodvifError
from podvif.kube.resources import Key
from podvif.model import NeutronPort
from podvif.podvifs import PodVif

_LOG = logging.getLogger(__name__)

_AT_ONCE = 50
"""Pods between two breaths of the event loop."""


class Neutron(Protocol):
    """What a round needs of Neutron (`podvif.neutron.client.Neutron`)."""

    async def our_ports(self, tag: str) -> tuple[NeutronPort, ...]:
        """All ports that podvif has made."""

    async def delete_port(self, port_id: str) -> None:
        """No port of that id any more."""


class Driver(Protocol):
    """Who knows subnets and networks (`podvif.controller.neutron_vif.NeutronPodVIFDriver`)."""

    async def places(self, podvif: PodVif, ports: tuple[NeutronPort, ...]) -> Places:
        """What a decision needs of them."""


class Looks(Protocol):
    """Who looks at pods (`podvif.controller.converge.Converge`)."""

    def look_anew(self, key: Key) -> None:
        """Something is to be done for this one."""

    def settled(self, key: Key, facts: Facts) -> None:
        """This one is as it should be."""


class Sweep:
    """Makes the rounds.

    Args:
        neutron: Neutron.
        cluster: the caches.
        driver: knows subnets and networks.
        looks: looks at pods.
        defaults: [neutron_defaults] as far as they are known.
        leading: whether this controller may delete.
        tally: counts.
        grace: seconds that a port without an owner is left.
        clock: seconds.
    """

    def __init__(
        self,
        neutron: Neutron,
        cluster: Cluster,
        driver: Driver,
        looks: Looks,
        *,
        defaults: Callable[[], PortDefaults],
        leading: Callable[[], bool],
        tally: Tally,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._neutron = neutron
        self._cluster = cluster
        self._driver = driver
        self._defaults = defaults
        self._looks = looks
        self._leading = leading
        self._tally = tally
        self._grace = grace
        self._clock = clock
        self._ownerless: dict[str, float] = {}

    async def run(self, interval: float) -> None:
        """Make a round at once, and then every `interval` seconds; who is not bound yet does not wait for the first one."""
        for key in self._cluster.all_keys():
            if not _is_bound(self._cluster.facts(key)):
                self._looks.look_anew(key)
        while True:
            await self.round()
            await asyncio.sleep(interval)

    async def round(self) -> None:
        """Look at everything once."""
        self._cluster.drop_old_notes()
        trouble = None
        ports: tuple[NeutronPort, ...] = ()
        try:
            ports = await self._neutron.our_ports(TAG)
        except PodvifError as error:
            trouble = error.message
            _LOG.warning("the round sees no ports: %s", error)
        await self._pods(ports, trouble)
        if trouble is None:
            await self._ports(ports)

    async def _pods(self, ports: Iterable[NeutronPort], trouble: str | None) -> None:
        by_device: Mapping[str, list[NeutronPort]] = defaultdict(list)
        for port in ports:
            by_device[port.device_id].append(port)
        for number, key in enumerate(self._cluster.all_keys()):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            facts = self._cluster.facts(key)
            found = await self._decide(facts, by_device, trouble)
            if found is None:
                self._looks.settled(key, facts)
            # Where Neutron is away nobody can do anything for a pod that is bound.
            elif not (trouble and isinstance(found, Fail) and _is_bound(facts)):
                self._looks.look_anew(key)

    async def _decide(
        self, facts: Facts, by_device: Mapping[str, list[NeutronPort]], trouble: str | None
    ) -> Action | Fail | None:
        podvif = facts.podvif
        ports = tuple(by_device.get(podvif.spec.pod_uid, ())) if podvif else ()
        places = await self._driver.places(podvif, ports) if podvif and not trouble else Places()
        seen = SeenPod(facts.pod, podvif, facts.wanted, ports, places, trouble=trouble)
        return next_action(seen, self._defaults())

    async def _ports(self, ports: Iterable[NeutronPort]) -> None:
        if self._cluster.trouble():
            return
        now = self._clock()
        found = orphans(ports, self._cluster.uids(), self._defaults().device_owner)
        since = {port.id: self._ownerless.get(port.id, now) for port in found}
        old = [port for port in found if port.id in self._ownerless and now >= since[port.id] + self._grace]
        self._ownerless = since
        for port in old:
            if not self._leading():
                return
            try:
                await self._neutron.delete_port(port.id)
            except PodvifError as error:
                _LOG.warning("port %s of nobody cannot be deleted: %s", port.id, error)
                continue
            _LOG.info("port %s (%s) belonged to no pod and was deleted", port.id, port.name)
            self._tally.swept += 1
            del self._ownerless[port.id]


def _is_bound(facts: Facts) -> bool:
    condition = bound_condition(facts.podvif) if facts.podvif else None
    return facts.pod is not None and condition is not None and condition.status == "True"
