"""Where the node learns what a port shall be.

Law: a source turns a request into a journal entry or refuses it, and touches nothing while it does; what it was told goes
into the entry, so that nobody has to ask again.
"""

import time

import msgspec

from podvif import errors
from podvif.core import translate
from podvif.core.cni import Request
from podvif.errors import Refused
from podvif.host import netns
from podvif.model import Entry, Goal, IpamCall, PortKind
from podvif.settings import Settings


class Standalone:
    """The CNI configuration says what the port is, a CNI IPAM plugin says which addresses it has."""

    def __init__(self, settings: Settings) -> None:
        """Take the node's directories from the settings."""
        self._settings = settings

    def entry(self, request: Request) -> Entry:
        """What an ADD asks for, on its way to be attached.

        Raises:
            Refused: the configuration, the namespace or the interface name cannot be served.
        """
        network = translate.parse_network(request.config)
        vif = translate.vif_from_network(request, network, self._settings.mount_point, self._settings.ovs_vhu_path)
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
        # A kernel port's own interface is there at a repeat: its table knows it from a foreign one.
        if vif.kind is PortKind.VHOST_USER and netns.has_interface(request.netns, attachment.ifname):
            raise Refused(
                f"the sandbox has a network interface called {attachment.ifname} already",
                "another plugin made it; give this attachment another name",
                code=errors.INVALID_ENVIRONMENT,
            )
        return Entry(
            attachment=attachment,
            network=request.network,
            goal=Goal.ATTACHING,
            vif=vif,
            netns=request.netns,
            netns_inode=inode,
            pod=request.pod,
            ipam=ipam,
            created=time.time(),
        )

    def leaving(self, request: Request) -> Entry:
        """What a DEL of an attachment that the journal does not know has to remove: everything with a name of ours."""
        attachment = request.expect_attachment()
        vif = translate.vif_by_name(
            attachment,
            self._settings.mount_point,
            self._settings.ovs_vhu_path,
            translate.kind_by_name(request.config),
        )
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


def source_of(settings: Settings) -> Standalone:
    """The source that [node] source names.

    Raises:
        Refused: there is none of that name.
    """
    if settings.source != "standalone":
        raise Refused(f"[node] source = {settings.source} is not in this version", "set [node] source = standalone")
    return Standalone(settings)


def _for_ipam(config: dict[str, object]) -> dict[str, object]:
    """The configuration as the plugin gets it now and later: without the result of a call that is over."""
    return {key: value for key, value in config.items() if key != "prevResult"}


def same_intent(one: Entry, other: Entry) -> bool:
    """Whether two ADDs of one attachment ask for the same."""
    fresh = {"goal": Goal.ATTACHING, "addresses": None, "created": 0.0}
    return msgspec.structs.replace(one, **fresh) == msgspec.structs.replace(other, **fresh)
