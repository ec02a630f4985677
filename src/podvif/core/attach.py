"""The vhost-user decision: one closed table, and nothing else may decide (`podvif.core.veth` has that of kernel ports).

Law: `next_step` looks at what is wanted and what was observed, and names the one next thing to do, or None when there is
nothing left to do.  It remembers nothing, so it is right after a crash, after a restart of vswitchd, and for the second of
two equal requests, for the same reason.  Every step is idempotent, and after a step has been done its condition no longer
holds, so a walk ends.

The rows, in order, on the way to *attached* (the first that matches is taken):

| observed                                                       | next step                                     |
|----------------------------------------------------------------|-----------------------------------------------|
| OVSDB cannot be asked                                          | fail: try again                               |
| the directory of the pod's sockets is missing                  | fail: the node is wrong                       |
| the bridge is there with a datapath other than netdev          | fail: never flipped                           |
| an OVS port of that name is not ours                           | fail: never touched                           |
| a directory lies at the socket's path                          | fail                                          |
| the pod's own directory has other rights than it should        | MEND_DIRECTORY                                |
| IPAM was not asked yet                                         | RESERVE_ADDRESSES                             |
| APPLICATION listens: a dead socket or no socket lies there, OVS is not connected | REMOVE_STALE_SOCKET         |
| OVS listens: a dead socket lies in its way, and no OVS port stands | REMOVE_STALE_SOCKET                       |
| recovery, OVS listens: a dead socket lies in the way of the next vswitchd | REMOVE_STALE_SOCKET                |
| no OVS port, and vswitchd has not seen the removal of the last | AWAIT_REMOVAL                                 |
| no OVS port                                                    | PLUG                                          |
| OVS port with another type, path, bridge, MAC, MTU or VLAN     | UNPLUG                                        |
| recovery, OVS listens: it could not open the port, a dead socket lies in its way | UNPLUG (the rows above do the rest) |
| recovery, OVS listens: it has the port, and its socket is nowhere | UNPLUG (likewise)                          |
| recovery, nothing has come for long: OVS could not open the port, or listens on neither socket | UNPLUG (likewise) |
| the Interface has an error, or ofport -1                       | fail with OVS's own words                     |
| vswitchd has not dealt with the port                           | AWAIT_PORT                                    |
| a living socket may not be used by whom it should              | MEND_SOCKET                                   |
| OVS listens: a socket at `ovs_vhu_path`                        | TAKE_SOCKET (rename over the pod's name)      |
| OVS listens: no living socket at the pod's name                | AWAIT_SOCKET                                  |
| owner marks missing                                            | WRITE_MARKS                                   |
| the pod's files missing or different                           | WRITE_FILES                                   |
| a Neutron port that the agent has not wired                    | AWAIT_WIRED                                   |
| otherwise                                                      | None: it is attached                          |

On the way to *absent*: the pod's files, the OVS port (if it is ours), the sockets, the addresses, the journal's entry.
While OVSDB cannot be asked this fails with Retry; the entry stays *leaving* and is finished when OVSDB is back.

Whom a socket should serve, and what it takes, `podvif.core.rights` says.  What OVS makes is mended before it is moved: until
then no pod can lay hands on it.

A Neutron port is *wired* when the agent on this node has made it part of its network: ovn-controller says so in external_ids
(ovn-installed), neutron-openvswitch-agent gives it a VLAN of its own (the Port's tag, 4095 while it has none).  It goes from a
pod's former sandbox to its next one, so that a sandbox that leaves does not take along what another has marked as its own.
"""

import enum
from collections.abc import Iterable

import msgspec

from podvif import errors, names
from podvif.core.translate import owner_of
from podvif.errors import PodvifError, Refused, Retry
from podvif.model import Attachment, Goal, Listener, Pod, Seen, SeenPort, SocketFile, Vif

OVS_TYPE = {Listener.OVS: "dpdkvhostuser", Listener.APPLICATION: "dpdkvhostuserclient"}
"""OVS names its own side: it is the client where the application listens (os-vif vif_plug_ovs/ovs.py)."""


class Step(enum.Enum):
    """One idempotent act, or one wait, at the rim."""

    MEND_DIRECTORY = "mend the rights of the pod's directory"
    RESERVE_ADDRESSES = "reserve addresses"
    REMOVE_STALE_SOCKET = "remove stale socket"
    PLUG = "plug"
    UNPLUG = "unplug"
    AWAIT_REMOVAL = "wait for vswitchd to let go of the former port"
    AWAIT_PORT = "wait for vswitchd to take the port"
    MEND_SOCKET = "mend the socket's rights"
    TAKE_SOCKET = "take socket"
    AWAIT_SOCKET = "wait for the socket of vswitchd"
    WRITE_MARKS = "write owner marks"
    WRITE_FILES = "write the pod's files"
    AWAIT_WIRED = "wait for Neutron's agent to wire the port"
    REMOVE_FILES = "remove the pod's files"
    REMOVE_SOCKETS = "remove sockets"
    RELEASE_ADDRESSES = "release addresses"
    FORGET = "forget"
    MAKE_PAIR = "make the pair of devices"
    SET_UP_PAIR = "set up the pair of devices"
    JOIN_LINUX_BRIDGE = "put the host end into its Linux bridge"
    REMOVE_PAIR = "remove the pair of devices"


class Link(enum.Enum):
    """Whether packets can pass, and if not, whose turn it is."""

    NOT_PLUGGED = "not plugged"
    """There is no OVS port, or OVS refused it, or OVSDB cannot be asked."""
    UNWIRED = "not wired"
    """Neutron's agent has not made the port part of its network."""
    WAITING = "waiting for the application"
    """All is there; the application has to listen (server) or to connect (client)."""
    CONNECTED = "connected"
    """Open vSwitch says that the link is up."""
    STALE = "stale"
    """The socket that lies at the pod's name is dead: its maker has ended, and podvif has not mended it yet."""
    GONE = "gone"
    """The sandbox is gone, and DEL has not come."""


class Fail(msgspec.Struct, frozen=True):
    """No step leads on from here; `error` says why and what to do."""

    error: PodvifError


class Mend(enum.Enum):
    """Whether an OVS port that stands may be made again."""

    NOTHING = "nothing"
    """No: an ADD is told of what OVS refuses."""
    CERTAIN = "certain"
    """Where nothing else can help: recovery, at each look."""
    ANYTHING = "anything"
    """Wherever it might: recovery, when no event has come for long."""


class Want(msgspec.Struct, frozen=True):
    """What shall be.

    Attributes:
        attachment: whose.
        goal: `LEAVING` means absent; the other two mean attached.
        vif: the port; of an absent one only the names count.
        pod: goes into the owner marks.
        reserve: the network has an IPAM plugin.
        mend: what recovery may do to a port that stood once.
    """

    attachment: Attachment
    goal: Goal
    vif: Vif
    pod: Pod = Pod()
    reserve: bool = False
    mend: Mend = Mend.NOTHING


def next_step(want: Want, seen: Seen) -> Step | Fail | None:
    """The next thing to do for one vhost-user attachment, or None when it is as wanted."""
    if want.goal is Goal.LEAVING:
        return _toward_absent(want, seen)
    return _precondition(want, seen) or _toward_attached(want, seen)


def _precondition(want: Want, seen: Seen) -> Fail | None:
    vif = want.vif
    if seen.switch_trouble:
        return Fail(Retry(seen.switch_trouble, "start ovsdb-server, or mend [vif_plug_ovs] ovsdb_connection"))
    if not seen.directory:
        if vif.mounted_at is not None:
            message = f"the pod's own directory {vif.directory} is missing"
            remedy = "the volume was unpublished, or somebody has removed it: recreate the pod"
        else:
            message = f"the directory of the pods' sockets {vif.directory} is missing"
            remedy = "make it, or mend [vhostuser] mount_point"
        return Fail(Refused(message, remedy, code=errors.IO_FAILURE))
    if seen.bridge_datapath not in {None, "netdev"}:
        return Fail(
            Refused(
                f"bridge {vif.bridge} has the datapath {seen.bridge_datapath!r}: vhost-user ports need netdev",
                "name another bridge; podvif never changes the datapath of one",
            )
        )
    if seen.port and not is_ours(want, seen.port):
        return foreign_port(vif)
    if SocketFile.DIRECTORY in {seen.pod_socket, seen.ovs_socket}:
        path = vif.socket if seen.pod_socket is SocketFile.DIRECTORY else vif.ovs_socket
        return Fail(Refused(f"a directory lies at {path}", "remove it", code=errors.IO_FAILURE))
    return None


def _toward_attached(want: Want, seen: Seen) -> Step | Fail | None:
    vif, port = want.vif, seen.port
    if preparation := _before_the_port(want, seen):
        return preparation
    if port is None:
        return Step.PLUG if seen.settled else Step.AWAIT_REMOVAL
    if why_not_port(vif, port) or _blocked(want, seen) or _lost(want, seen):
        return Step.UNPLUG
    if port.error or port.ofport == -1:
        return refused_by_ovs(vif, port)
    if port.ofport is None:
        return Step.AWAIT_PORT
    if not seen.socket_mended:
        return Step.MEND_SOCKET
    if vif.listener is Listener.OVS:
        if seen.ovs_socket is SocketFile.BOUND:
            return Step.TAKE_SOCKET
        if seen.pod_socket is not SocketFile.BOUND:
            return Step.AWAIT_SOCKET
    if marks_missing(want, port):
        return Step.WRITE_MARKS
    if not seen.files_current:
        return Step.WRITE_FILES
    return None if is_wired(vif, port) else Step.AWAIT_WIRED


def _before_the_port(want: Want, seen: Seen) -> Step | None:
    if not seen.directory_mended:
        return Step.MEND_DIRECTORY
    if want.reserve and seen.addresses is None:
        return Step.RESERVE_ADDRESSES
    return Step.REMOVE_STALE_SOCKET if _stale(want, seen) else None


def _stale(want: Want, seen: Seen) -> bool:
    if want.vif.listener is Listener.APPLICATION:
        # The application's bind fails on any file there; OVS being connected means that somebody is behind it after all.
        dead = seen.pod_socket in {SocketFile.DEAD, SocketFile.OTHER}
        return dead and not (seen.port and seen.port.status.get("status") == "connected")
    # A name that OVS is going to bind to: when the port is made, or when the next vswitchd starts.
    later = want.mend is not Mend.NOTHING and seen.port is not None and seen.port.ofport != -1
    return _in_the_way(want, seen) and (seen.port is None or later)


def _in_the_way(want: Want, seen: Seen) -> bool:
    return want.vif.listener is Listener.OVS and seen.ovs_socket in {SocketFile.DEAD, SocketFile.OTHER}


def _blocked(want: Want, seen: Seen) -> bool:
    # A vswitchd that was killed before its socket was moved leaves a file that the next one cannot bind to; it tries
    # again only when the port is made again.
    if seen.port is None or seen.port.ofport != -1:
        return False
    return want.mend is Mend.ANYTHING or (want.mend is Mend.CERTAIN and _in_the_way(want, seen))


def _lost(want: Want, seen: Seen) -> bool:
    # Only a port made again brings another socket.  One that is nowhere was removed while OVS listened; a dead one may
    # be of a vswitchd that is not back yet, so it takes patience to know.
    if want.vif.listener is not Listener.OVS or seen.port is None or seen.port.ofport in {None, -1}:
        return False
    sockets = {seen.pod_socket, seen.ovs_socket}
    return (want.mend is not Mend.NOTHING and sockets == {SocketFile.ABSENT}) or (
        want.mend is Mend.ANYTHING and SocketFile.BOUND not in sockets
    )


def _toward_absent(want: Want, seen: Seen) -> Step | Fail | None:
    if seen.files_present:
        return Step.REMOVE_FILES
    if seen.switch_trouble:
        return Fail(Retry(seen.switch_trouble, "the rest is removed as soon as OVSDB can be reached"))
    if seen.port and is_ours(want, seen.port):
        return Step.UNPLUG
    # A socket of a foreign port (a VM's) under our name is not ours to remove either.
    if seen.port is None and _removable_sockets(seen):
        return Step.REMOVE_SOCKETS
    if seen.addresses_held:
        return Step.RELEASE_ADDRESSES
    if seen.journalled:
        return Step.FORGET
    return None


def _removable_sockets(seen: Seen) -> bool:
    # The port is gone, so whatever lies at the pod's name is left over.  At ovs_vhu_path vswitchd removes its own file in
    # its next round; only what a dead vswitchd left there is ours to remove.
    at_pod = seen.pod_socket not in {SocketFile.ABSENT, SocketFile.DIRECTORY}
    return at_pod or seen.ovs_socket is SocketFile.DEAD


def link(want: Want, seen: Seen) -> Link:
    """The state of an attached interface's link, as observed."""
    port = seen.port
    if seen.switch_trouble or port is None or port.ofport in {None, -1} or not is_ours(want, port):
        return Link.NOT_PLUGGED
    if not is_wired(want.vif, port):
        return Link.UNWIRED
    if port.link_up:
        return Link.CONNECTED
    if seen.pod_socket in {SocketFile.DEAD, SocketFile.OTHER}:
        return Link.STALE
    return Link.WAITING


def is_ours(want: Want, port: SeenPort) -> bool:
    """Whether the OVS port was made for this attachment: by its port id, or by our marks."""
    owner = owner_of(port)
    if owner == want.attachment:
        return True
    taken = want.vif.neutron and want.goal is Goal.LEAVING and owner is not None
    return port.external_ids.get("iface-id") == want.vif.port_id and not taken


def is_wired(vif: Vif, port: SeenPort) -> bool:
    """Whether packets of the port reach its network, as far as that is somebody else's business."""
    return (
        not vif.neutron or port.external_ids.get("ovn-installed") == "true" or port.tag not in {None, names.DEAD_VLAN}
    )


def marks_missing(want: Want, port: SeenPort) -> bool:
    """Whether the Interface lacks an owner mark of ours."""
    wanted = names.marks(want.attachment, str(want.pod))
    return any(port.external_ids.get(key) != value for key, value in wanted.items())


def why_not_port(vif: Vif, port: SeenPort) -> str | None:
    """In which way an OVS port of ours is not the wanted one, or None when it is."""
    path = vif.socket if vif.listener is Listener.APPLICATION else None
    compared = (
        ("type", port.type, OVS_TYPE[vif.listener]),
        ("vhost-server-path", port.vhost_server_path, path),
        ("bridge", port.bridge, vif.bridge),
        ("iface-id", port.external_ids.get("iface-id"), vif.port_id),
        ("attached-mac", port.external_ids.get("attached-mac"), vif.mac),
        ("VLAN", port.tag, port.tag if vif.neutron else vif.vlan),
        ("mtu_request", port.mtu_request, vif.mtu),
    )
    return first_difference(vif, compared)


def first_difference(vif: Vif, compared: Iterable[tuple[str, object, object]]) -> str | None:
    """The first in which an OVS port is not as wanted, of so many (what, has, wants); None when there is none."""
    for what, has, wants in compared:
        if has != wants:
            return f"OVS port {vif.name} has {what} {has}, wanted is {wants}"
    return None


def foreign_port(vif: Vif) -> Fail:
    """Why nothing is done where a port of somebody else has the name."""
    return Fail(
        Refused(
            f"OVS port {vif.name} is there and is not podvif's",
            f"look at it with: ovs-vsctl list Interface {vif.name}",
        )
    )


def refused_by_ovs(vif: Vif, port: SeenPort) -> Fail:
    """Open vSwitch's own words on a port that it could not open."""
    words = port.error or "it could not be opened (ofport -1)"
    return Fail(
        Refused(
            f"Open vSwitch refused port {vif.name} on bridge {vif.bridge}: {words}",
            "ovs-vswitchd's log says more",
            code=errors.IO_FAILURE,
        )
    )


def why_not_attached(want: Want, seen: Seen) -> str | None:
    """CHECK's answer: what is not as it should be, or None when all is."""
    step = next_step(want, seen)
    match step:
        case None:
            return None
        case Fail(error=error):
            return error.message
        case Step.PLUG:
            return f"OVS port {want.vif.name} is missing"
        case Step.UNPLUG if seen.port:
            return why_not_port(want.vif, seen.port)
        case Step.AWAIT_PORT | Step.AWAIT_REMOVAL:
            return f"OVS port {want.vif.name} is being made again, and ovs-vswitchd has not come to it yet"
        case Step.AWAIT_SOCKET:
            return f"the socket {want.vif.socket} is missing or dead, and vswitchd has made no new one"
        case Step.TAKE_SOCKET:
            return f"the socket of {want.vif.name} lies at {want.vif.ovs_socket} and not in the pod's directory"
        case Step.AWAIT_WIRED:
            return f"Neutron's agent has not wired OVS port {want.vif.name} of Neutron port {want.vif.port_id}"
        case Step.REMOVE_STALE_SOCKET:
            if want.vif.listener is Listener.OVS:
                return f"OVS port {want.vif.name} is missing, and a dead socket lies at {want.vif.ovs_socket}"
            return f"a dead socket lies at {want.vif.socket}: the application cannot listen there"
        case _:
            return f"podvif still has to {step.value} for {want.attachment}"
