"""Where the node learns what a port shall be.

Law: a source turns a request into journal entries or refuses it, and touches nothing while it does; what it was told goes
into the entries, so that nobody has to ask again.  `podvif.node.cluster` is the source for pods with Neutron ports.
"""

import time
from typing import Protocol

import msgspec

from podvif import errors
from podvif.core import translate
from podvif.core.cni import Request
from podvif.errors import Refused
from podvif.host import netns
from podvif.model import Access, Attachment, Entry, Goal, IpamCall, Pod, PortKind, SocketDir, Vif, Volume
from podvif.settings import Settings


class Source(Protocol):
    """What the verbs need of a source."""

    async def entries(self, request: Request) -> list[Entry]:
        """What an ADD asks for, on its way to be attached; first the interface that it names."""

    def leaving(self, request: Request) -> Entry:
        """What a DEL of an attachment that the journal does not know has to remove."""

    def unwanted(self, attachment: Attachment) -> None:
        """An ADD of the attachment that still waits for an answer need not go on."""

    def why_not(self) -> str | None:
        """Why no ADD could be served, one sentence; None when one could."""

    def trouble(self) -> str | None:
        """Why what it says may be old, one sentence; None when it is not."""


class Volumes(Protocol):
    """What the sources need of the pods' volumes (`podvif.node.volumes.Volumes`)."""

    def of_pod(self, pod: Pod) -> Volume | None:
        """The volume that a pod has; None when it has none."""

    def directory_of(self, volume: Volume) -> SocketDir:
        """The directory behind a volume."""


def access_of(volume: Volume) -> Access:
    """Whose the directory behind a volume is: kubelet says the pod's group, and the pod itself its user."""
    return Access(volume.user, volume.fs_group)


class Standalone:
    """The CNI configuration says what the port is, a CNI IPAM plugin says which addresses it has."""

    def __init__(self, settings: Settings, volumes: Volumes) -> None:
        """Take the directories that pods share from the settings, and their own from the volumes."""
        self._settings = settings
        self._volumes = volumes

    async def entries(self, request: Request) -> list[Entry]:
        """What an ADD asks for, on its way to be attached: one interface.

        Raises:
            Refused: the configuration, the namespace or the interface name cannot be served.
        """
        network = translate.parse_network(request.config)
        vif = translate.vif_from_network(request, network, self._settings.mount_point, self._settings.ovs_vhu_path)
        volume = self._volumes.of_pod(request.pod)
        if volume:
            vif = translate.in_own_directory(vif, self._volumes.directory_of(volume), volume)
        requested = translate.requested_ips(request, network)
        ipam = None
        if translate.has_ipam(network):
            ipam = IpamCall(
                config=_for_ipam(request.config),
                path=request.path,
                netns=request.netns,
                args=request.raw_args,
                requested=requested,
            )
        elif requested:
            raise Refused(
                f"address {requested[0]} was asked for and network {request.network} has no IPAM",
                "add an ipam plugin to the network configuration, or ask for no address",
            )
        attachment = request.expect_attachment()
        inode = netns.inode(request.netns)
        refuse_existing(request.netns, attachment.ifname, vif)
        return [
            Entry(
                attachment=attachment,
                network=request.network,
                goal=Goal.ATTACHING,
                vif=vif,
                netns=request.netns,
                netns_inode=inode,
                pod=request.pod,
                ipam=ipam,
                created=time.time(),
                access=access_of(volume) if volume else None,
            )
        ]

    def leaving(self, request: Request) -> Entry:
        """What a DEL of an attachment that the journal does not know has to remove: everything with a name of ours."""
        attachment = request.expect_attachment()
        vif = translate.vif_by_name(
            attachment,
            self._settings.mount_point,
            self._settings.ovs_vhu_path,
            translate.kind_by_name(request.config),
        )
        if volume := self._volumes.of_pod(request.pod):
            vif = translate.in_own_directory(vif, self._volumes.directory_of(volume))
        ipam = None
        match request.config.get("ipam"):
            case {"type": str(name)} if name:
                ipam = IpamCall(
                    config=_for_ipam(request.config), path=request.path, netns=request.netns, args=request.raw_args
                )
        return Entry(
            attachment=attachment,
            network=request.network,
            goal=Goal.LEAVING,
            vif=vif,
            netns=request.netns,
            pod=request.pod,
            ipam=ipam,
            created=time.time(),
        )

    def unwanted(self, attachment: Attachment) -> None:
        """Nothing waits here."""

    def why_not(self) -> None:
        """It needs nobody."""

    def trouble(self) -> None:
        """It never is old."""


def refuse_existing(path: str, ifname: str, vif: Vif) -> None:
    """Refuse an interface that the sandbox has already.

    A kernel port's own interface is there at a repeat: its table knows it from a foreign one.

    Raises:
        Refused: it has; CNI code 4.
    """
    if vif.kind is PortKind.VHOST_USER and netns.has_interface(path, ifname):
        raise Refused(
            f"the sandbox has a network interface called {ifname} already",
            "another plugin made it; give this attachment another name",
            code=errors.INVALID_ENVIRONMENT,
        )


def _for_ipam(config: dict[str, object]) -> dict[str, object]:
    """The configuration as the plugin gets it now and later: without the result of a call that is over."""
    return {key: value for key, value in config.items() if key != "prevResult"}


def same_intent(one: Entry, other: Entry) -> bool:
    """Whether two ADDs of one attachment ask for the same."""
    fresh = {"goal": Goal.ATTACHING, "addresses": None, "created": 0.0}
    return msgspec.structs.replace(one, **fresh) == msgspec.structs.replace(other, **fresh)
