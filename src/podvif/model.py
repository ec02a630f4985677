"""The vocabulary: frozen values that every part of podvif speaks in.

Law: a value here has one meaning and one unit, is immutable, and does nothing.  `SocketDir` and `SocketPath` are types of
their own because one string with both meanings is how Kuryr's client mode came to fail.
"""

import enum
from typing import Any, NewType

import msgspec

SocketDir = NewType("SocketDir", str)
"""A directory that holds sockets, absolute."""

SocketPath = NewType("SocketPath", str)
"""One socket's file, absolute; at most `names.SUN_PATH_MAX` bytes."""


class Listener(enum.Enum):
    """Who creates the vhost-user socket and listens on it.

    Neutron, os-vif and the specification name the mode of the *application*: their "client" is `OVS` here, their "server"
    is `APPLICATION`.  Open vSwitch names its own side, the other way round.  `podvif.core.translate` is where the words
    change.
    """

    OVS = "ovs"
    APPLICATION = "application"


class Goal(enum.Enum):
    """What the journal says an attachment is on its way to."""

    ATTACHING = "attaching"
    """ADD has begun and has not answered: if the daemon dies now the runtime has an error, so this goes to absent."""
    ATTACHED = "attached"
    """ADD has succeeded."""
    LEAVING = "leaving"
    """DEL has begun and is not finished."""


class Attachment(msgspec.Struct, frozen=True, order=True):
    """One interface of one sandbox: the unit of ADD, CHECK, DEL and GC (CNI SPEC.md, "GC")."""

    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.container_id}:{self.ifname}"


class PortKind(enum.Enum):
    """What stands on the node for a port."""

    VHOST_USER = "vhost-user"
    """os-vif's VIFVHostUser: a socket, no network interface."""
    VETH = "veth"
    """os-vif's VIFOpenVSwitch: a pair, its host end in the integration bridge."""
    HYBRID = "hybrid"
    """os-vif's VIFBridge: a pair, and a Linux bridge between it and the integration bridge."""


class Vif(msgspec.Struct, frozen=True):
    """A port as it shall stand on this node: a vhost-user port, or a kernel port (a pair of network devices).

    Attributes:
        port_id: UUID, the Interface's iface-id in OVSDB.
        name: the OVS port's name: `vhu`, `tap` (VETH) or `qvo` (HYBRID) and the first 11 characters of the port id.
        mac: of the application's end, or the pod's end of a pair; lower case with colons.
        mtu: bytes of layer 3.
        bridge: name of the OVS bridge, datapath netdev.
        listener: who creates the socket; of a kernel port it says nothing.
        socket: where the application finds or makes it (in the pod's directory); empty for a kernel port.
        ovs_socket: where OVS makes it when OVS listens; empty for a kernel port.
        queues: queue pairs; the application asks for them, OVS follows.
        vlan: access VLAN (Port tag), or None for untagged; of a Neutron port it says nothing.
        neutron: it is a Neutron port: the agent on this node wires it, and its VLAN is the agent's business.
        kind: what the port is; a journal of an older podvif knows vhost-user ports only.
        isolated: until neutron-openvswitch-agent has wired it, it must see no frame: without a tag it would see every VLAN's.
        mounted_at: where the pod has mounted its own directory, in which the socket lies; None in the shared directory, which
            pods mount where the host has it.
    """

    port_id: str
    name: str
    mac: str
    mtu: int
    bridge: str
    listener: Listener
    socket: SocketPath
    ovs_socket: SocketPath
    queues: int = 1
    vlan: int | None = None
    neutron: bool = False
    kind: PortKind = PortKind.VHOST_USER
    isolated: bool = False
    mounted_at: SocketDir | None = None

    @property
    def directory(self) -> SocketDir:
        """The directory that holds the socket and the files that describe it."""
        return SocketDir(self.socket.rpartition("/")[0])


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address of an interface: CIDR, and the gateway of its subnet if there is one."""

    address: str
    gateway: str | None = None


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """A route as CNI 1.1 has it; `dst` is a CIDR, `gw` an address."""

    dst: str
    gw: str | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class Dns(msgspec.Struct, frozen=True, omit_defaults=True):
    """Resolver settings, all optional (CNI SPEC.md section 5, "dns")."""

    nameservers: tuple[str, ...] = ()
    domain: str | None = None
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Addresses(msgspec.Struct, frozen=True, omit_defaults=True):
    """What IPAM gave an attachment; empty when the network has no IPAM."""

    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


class Pod(msgspec.Struct, frozen=True):
    """The pod as the runtime named it in CNI_ARGS; empty strings where it did not (cri-dockerd sends no uid)."""

    namespace: str = ""
    name: str = ""
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.name else ""


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who may use a directory of a pod's own and the sockets that Open vSwitch makes for it; root and vswitchd may anyway.

    Attributes:
        uid: the pod's user (runAsUser), who owns both; 0 where it is not known.
        gid: the pod's group (fsGroup), None where it has none.
    """

    uid: int = 0
    gid: int | None = None


class Account(msgspec.Struct, frozen=True):
    """As whom a process acts on files.

    Attributes:
        uid: its user on the file system.
        gid: its group likewise.
        groups: further groups; a vswitchd that was started with --user has none.
        everywhere: rights of files mean nothing to it (CAP_DAC_OVERRIDE).
    """

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    everywhere: bool = False


class Rights(msgspec.Struct, frozen=True):
    """Owner, mode and access control list of a file (acl(5)); permissions are 4 read, 2 write, 1 search.

    Attributes:
        uid: who owns it.
        gid: its group.
        mode: the twelve bits of chmod(2) as they are without a list: the group's own, not the mask.
        users: permissions of further users, by uid in rising order.
        groups: of further groups likewise.
        mask: what all of `users`, `groups` and the file's group have at most; None without a list.
        label: its SELinux context, empty for none.
    """

    uid: int
    gid: int
    mode: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    mask: int | None = None
    label: str = ""


class Volume(msgspec.Struct, frozen=True):
    """A volume that kubelet had published for a pod: what no mount table tells, and so the node's record of it.

    Attributes:
        id: kubelet's name for it.
        target: where kubelet wants it, absolute.
        pod: whose.
        mounted_at: where its containers mount it.
        service_account: the pod's, for people.
        read_only: its containers may not write.
        user: uid that its containers run as, where the pod says it to us; 0 where it does not.
        fs_group: gid that the pod's containers have beside their own; None where the pod says none.
        created: seconds since the epoch.
    """

    id: str
    target: str
    pod: Pod
    mounted_at: SocketDir
    service_account: str = ""
    read_only: bool = False
    user: int = 0
    fs_group: int | None = None
    created: float = 0.0


class IpamCall(msgspec.Struct, frozen=True):
    """What it takes to call a network's IPAM plugin again when nothing but the journal is left.

    Attributes:
        config: the whole network configuration, as the plugin gets it on stdin.
        path: directories to find the plugin in (CNI_PATH).
        netns: CNI_NETNS of the ADD.
        args: CNI_ARGS of the ADD, unparsed.
        requested: the addresses that somebody asked for; IPAM has to give them.
    """

    config: dict[str, Any]
    path: tuple[str, ...]
    netns: str
    args: str
    requested: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """What we intend for one attachment: the journal's record.

    Attributes:
        attachment: the key.
        network: name of the CNI network.
        goal: where the attachment is going.
        vif: the port that shall stand.
        netns: path of the sandbox's network namespace, as CNI_NETNS had it.
        netns_inode: its inode, to tell a namespace from another one under the same path; 0 if unknown.
        pod: for people.
        ipam: how to call IPAM, while an address may be held; None when the network has no IPAM or all was released.
        addresses: what IPAM gave, None until it answered; of a Neutron port what Neutron gave.
        created: seconds since the epoch.
        leader: name of the interface with whose ADD this one comes and with whose DEL it goes; empty for its own.
        access: whose the directory of its socket is, where the pod has one of its own; None in the shared mount_point.
    """

    attachment: Attachment
    network: str
    goal: Goal
    vif: Vif
    netns: str = ""
    netns_inode: int = 0
    pod: Pod = Pod()
    ipam: IpamCall | None = None
    addresses: Addresses | None = None
    created: float = 0.0
    leader: str = ""
    access: Access | None = None

    @property
    def asked_by(self) -> Attachment:
        """The attachment that the runtime knows of: this one, or the leader."""
        return Attachment(self.attachment.container_id, self.leader or self.attachment.ifname)


class SocketFile(enum.Enum):
    """What lies at a socket's path."""

    ABSENT = "absent"
    BOUND = "bound"
    """A socket that some process is bound to."""
    DEAD = "dead"
    """A socket that nobody is bound to: its process has ended."""
    OTHER = "other"
    """Something that is no socket: a file, a link, a FIFO."""
    DIRECTORY = "directory"


class SeenPort(msgspec.Struct, frozen=True):
    """An OVS port and its Interface row, as read from OVSDB.

    `ofport` is None until vswitchd has dealt with the row and -1 when it could not; `error` is vswitchd's own sentence.
    """

    name: str
    bridge: str | None
    type: str
    external_ids: dict[str, str]
    vhost_server_path: str | None = None
    ofport: int | None = None
    error: str | None = None
    mtu_request: int | None = None
    tag: int | None = None
    link_up: bool = False
    status: dict[str, str] = {}


class SwitchFacts(msgspec.Struct, frozen=True):
    """The Open_vSwitch row: what this switch is, and how far vswitchd has come with the configuration."""

    dpdk_initialized: bool = False
    iface_types: frozenset[str] = frozenset()
    ovs_version: str = ""
    dpdk_version: str = ""
    next_cfg: int = 0
    cur_cfg: int = 0
    other_config: dict[str, str] = {}


class Pair(msgspec.Struct, frozen=True):
    """A pair as it shall be.

    Attributes:
        host: name of the host end, in the daemon's own namespace.
        host_mac: its MAC.
        namespace: path of the pod's namespace.
        ifname: name of the pod's end.
        mac: its MAC.
        mtu: bytes of layer 3, of both.
    """

    host: str
    host_mac: str
    namespace: str
    ifname: str
    mac: str
    mtu: int


class SeenDevice(msgspec.Struct, frozen=True):
    """One end of a pair, as the kernel shows it; the last three fields are asked for at the pod's end only.

    Attributes:
        index: its number in its namespace, which no later device gets.
        mac: lower case with colons.
        mtu: bytes of layer 3.
        up: administratively.
        peer: number of the other end, 0 where the device is no end of a pair.
        master: name of the Linux bridge that it is in.
        checksums_left_out: its kernel leaves checksums for a device to fill in.
        addresses: with prefix lengths, as `ipaddress` writes them.
        routes: destination, gateway (None where there is none) and table of every route over it.
    """

    index: int
    mac: str
    mtu: int
    up: bool
    peer: int
    master: str | None = None
    checksums_left_out: bool = False
    addresses: frozenset[str] = frozenset()
    routes: frozenset[tuple[str, str | None, int]] = frozenset()


class SeenPair(msgspec.Struct, frozen=True):
    """The devices of a kernel port.

    Attributes:
        switch_apart: vswitchd lives in another network namespace than the daemon, where it finds none of our devices.
        sandbox: the pod's namespace is there, and is the one of the ADD.
        host: the device that has the host end's name.
        pod: the device that has the interface's name in the pod; not looked for on the way to absent.
        linux_bridge: HYBRID: the Linux bridge and both ends of its way to OVS are there.
    """

    switch_apart: bool
    sandbox: bool
    host: SeenDevice | None
    pod: SeenDevice | None
    linux_bridge: bool = False


class Seen(msgspec.Struct, frozen=True):
    """The facts about one attachment, each observed from its owner just now.

    Attributes:
        switch_trouble: why OVSDB cannot be asked, or None when it can; the port facts below count only then.
        directory: the directory of the pod's sockets exists.
        bridge_datapath: datapath_type of the wanted bridge, None when there is no such bridge.
        port: the OVS port of the wanted name.
        settled: vswitchd has seen the removal of the last OVS port of that name.
        pod_socket: what lies at `vif.socket`.
        ovs_socket: what lies at `vif.ovs_socket`.
        addresses: what IPAM gave, None when it was not asked yet.
        addresses_held: IPAM may hold a lease for us.
        files_current: the pod's files say what they should; not looked at, and False, before vswitchd has taken the port.
        files_present: at least one of the files that belong to this attachment is there.
        journalled: the journal has an entry.
        pair: a kernel port's devices; None for a vhost-user port, and only a vhost-user port has sockets and files.
        directory_mended: the pod's own directory has the rights that it should have; looked at on the way to attached.
        socket_mended: the living socket may be used by whom it should; True where there is none, or nobody needs a right.
    """

    switch_trouble: str | None
    directory: bool
    bridge_datapath: str | None
    port: SeenPort | None
    settled: bool
    pod_socket: SocketFile
    ovs_socket: SocketFile
    addresses: Addresses | None
    addresses_held: bool
    files_current: bool
    files_present: bool
    journalled: bool
    pair: SeenPair | None = None
    directory_mended: bool = True
    socket_mended: bool = True


# -- what Kubernetes says (source = cluster) ---------------------------------------------------------------------------


class ClusterPod(msgspec.Struct, frozen=True):
    """A pod as the API server shows it: what podvif needs of it.

    Attributes:
        namespace: of the pod.
        name: of the pod.
        uid: of this very pod; another pod of the same name has another.
        node_name: where it was scheduled to, empty while it was not.
        host_network: it lives in the node's own network.
        deleting: it has a deletionTimestamp; its containers may run until its grace is over.
        finished: its phase is Succeeded or Failed: no container of it will run again.
        annotations: all of them.
        host_paths: paths of the hostPath volumes that its containers mount.
    """

    namespace: str
    name: str
    uid: str
    node_name: str = ""
    host_network: bool = False
    deleting: bool = False
    finished: bool = False
    annotations: dict[str, str] = {}
    host_paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Nad(msgspec.Struct, frozen=True):
    """A NetworkAttachmentDefinition; `config` is spec.config as it stands there, empty where there is none."""

    namespace: str
    name: str
    annotations: dict[str, str] = {}
    config: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# -- what Neutron says (source = cluster) ------------------------------------------------------------------------------


class FixedIp(msgspec.Struct, frozen=True):
    """One address of a Neutron port: the subnet's UUID and an address without a prefix length."""

    subnet_id: str
    address: str


class NeutronPort(msgspec.Struct, frozen=True):
    """A port as the networking API shows it (api-ref "Ports", extension "Port binding").

    Attributes:
        id: UUID.
        name: for people.
        network_id: UUID of its network.
        device_id: who uses it; for our ports the pod's UID.
        device_owner: what kind of user that is.
        mac: lower case with colons.
        fixed_ips: its addresses, in Neutron's order.
        status: ACTIVE, DOWN, BUILD or ERROR.
        host_id: binding:host_id, the node.
        vif_type: binding:vif_type; `unbound` and `binding_failed` are no ports that can be plugged.
        vif_details: binding:vif_details as it came.
        tags: its tags, empty where the extension is missing.
        revision: revision_number, 0 where the extension is missing.
        port_security: port_security_enabled.
        created: created_at, RFC 3339 in UTC; empty where the extension is missing.
    """

    id: str
    network_id: str
    mac: str
    name: str = ""
    device_id: str = ""
    device_owner: str = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    status: str = ""
    host_id: str = ""
    vif_type: str = "unbound"
    vif_details: dict[str, Any] = {}
    tags: frozenset[str] = frozenset()
    revision: int = 0
    port_security: bool = True
    created: str = ""


class NeutronSubnet(msgspec.Struct, frozen=True):
    """A subnet's facts (api-ref "Subnets"): `cidr` with prefix length, `gateway` None where it has none."""

    id: str
    network_id: str
    cidr: str
    gateway: str | None = None
    routes: tuple[Route, ...] = ()
    nameservers: tuple[str, ...] = ()


class NeutronNetwork(msgspec.Struct, frozen=True):
    """A network's facts (api-ref "Networks"); `mtu` in bytes of layer 3, its subnets by UUID."""

    id: str
    mtu: int
    subnet_ids: tuple[str, ...] = ()


class PortRequest(msgspec.Struct, frozen=True):
    """A Neutron port as the controller wants it.

    Attributes:
        network_id: UUID.
        host_id: the pod's node, as Neutron's agents name it.
        device_id: the pod's UID.
        device_owner: [neutron] device_owner.
        name: for people, at most 255 characters.
        subnet_ids: an address of each; empty lets Neutron choose.
        mac: asked for, or None.
        ips: addresses asked for.
        security_groups: UUIDs; None leaves the project's default.
        tags: what makes the port ours, and says which interface of the pod it is for.
        project_id: whose, or None for the credentials' own.
    """

    network_id: str
    host_id: str
    device_id: str
    device_owner: str
    name: str
    subnet_ids: tuple[str, ...] = ()
    mac: str | None = None
    ips: tuple[str, ...] = ()
    security_groups: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    project_id: str | None = None
