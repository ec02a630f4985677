"""The drivers of all kinds of ports, as the one world that the loop converges in.

Law: whoever observes or acts says what he wants, and its kind says who does it.
"""

from collections.abc import Coroutine
from typing import Any

from podvif.core.attach import Step, Want
from podvif.host.machine import PidFile
from podvif.model import PortKind, Seen
from podvif.node.converge import World
from podvif.node.guard import Guard
from podvif.node.journal import Journal
from podvif.node.leases import Ipam
from podvif.node.veth import Devices, VIFKernelDriver
from podvif.node.vhostuser import Switch, VIFVHostUserDriver
from podvif.settings import Settings


class Drivers:
    """One driver for each kind of port, and what both know of vswitchd."""

    def __init__(self, switch: Switch, journal: Journal, ipam: Ipam, settings: Settings, devices: Devices) -> None:
        """Make the drivers; nothing is asked of the parts yet."""
        self._vhost_user = VIFVHostUserDriver(switch, journal, ipam, settings)
        self._kernel = VIFKernelDriver(switch, journal, ipam, devices, self._vhost_user.switch_netns)

    @property
    def guard(self) -> Guard:
        """Whose the directories and sockets of the pods are."""
        return self._vhost_user.guard

    def observe(self, want: Want) -> Seen:
        """The facts, now."""
        return self._of(want).observe(want)

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        """One idempotent act."""
        await self._of(want).do(want, step, seen)

    def wait(self, want: Want, step: Step, seen: Seen) -> Coroutine[Any, Any, None]:
        """Return when the fact that `step` waits for may have changed since `seen`."""
        return self._of(want).wait(want, step, seen)

    def vswitchd(self) -> PidFile | None:
        """What the pid file of ovs-vswitchd says; None when there is none."""
        return self._vhost_user.vswitchd()

    def switch_netns(self) -> str | None:
        """Path of the namespace that vswitchd was started in; None when it is ours, or nothing is known of it."""
        return self._vhost_user.switch_netns()

    def clear_the_way(self) -> None:
        """Remove what a vswitchd that has ended left where the next one binds; the caller knows that none runs.

        Raises:
            Retry: an I/O error.
            Refused: a directory lies there.
        """
        self._vhost_user.clear_the_way()

    def _of(self, want: Want) -> World:
        return self._vhost_user if want.vif.kind is PortKind.VHOST_USER else self._kernel
