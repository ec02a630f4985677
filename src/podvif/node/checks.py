"""Every precondition of this node, each a value with its reason and its remedy.

Law: a check looks and changes nothing, never raises for what it finds, and says in one sentence what is so and in another
what to do about it.  STATUS, the daemon's start and `podvif doctor` ask the same functions, so they cannot disagree; what
cannot be known without OVSDB is a warning that says so, since the fault is OVSDB's.
"""

import contextlib
import enum
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from podvif import names
from podvif.core.attach import OVS_TYPE
from podvif.errors import PodvifError
from podvif.host import files, machine
from podvif.host.machine import Machine, PidFile
from podvif.model import Entry, SeenPort, SocketDir, SocketFile, SwitchFacts
from podvif.node.vhostuser import rundirs
from podvif.settings import Settings

_TYPES = frozenset(OVS_TYPE.values())
_SOCKET = re.compile(names.VIF_NAME)
_SHOWN = 5
_MIB = 1 << 20
_WITHOUT_OVSDB = "it cannot be told while OVSDB cannot be asked"


class State(enum.Enum):
    """What a check comes to."""

    OK = "ok"
    WARNING = "warning"
    """Ports can be made, and somebody should look at it."""
    FAILURE = "failure"
    """Ports cannot be made, or cannot be used."""


class Check(msgspec.Struct, frozen=True):
    """One precondition.

    Attributes:
        name: what is looked at.
        state: what it comes to.
        reason: what was found, one sentence.
        remedy: what to do about it; empty when it is ok.
    """

    name: str
    state: State
    reason: str
    remedy: str = ""


class Switch(Protocol):
    """What the checks need of Open vSwitch (`podvif.ovs.switch.Switch`)."""

    def trouble(self) -> str | None:
        """Why OVSDB cannot be asked, None when it can."""

    def facts(self) -> SwitchFacts:
        """The switch's own row."""


class WholeSwitch(Switch, Protocol):
    """What the checks that look at bridges and ports need besides."""

    def ports(self) -> Mapping[str, SeenPort]:
        """All OVS ports by name."""

    def bridge_datapath(self, bridge: str) -> str | None:
        """The bridge's datapath type, None when there is no such bridge."""


def readiness(switch: Switch, settings: Settings) -> Iterator[Check]:
    """What every ADD needs, the nearest to the switch first; each is looked at when it is asked for."""
    yield ovsdb(switch, settings)
    yield vswitchd(settings)
    yield dpdk(switch)
    yield interface_types(switch)
    yield directories(settings)
    yield rename(settings)
    yield from own_directories(settings)


# -- the switch --------------------------------------------------------------------------------------------------------


def ovsdb(switch: Switch, settings: Settings, *, why: str = "", remedy: str = "") -> Check:
    """OVSDB answers at its address; `why` and `remedy` are what somebody else has found out there (`podvif.ovs.probe`)."""
    name, address = "OVSDB", settings.ovsdb_connection
    if why:
        return Check(name, State.FAILURE, f"OVSDB at {address} cannot be reached: {why}", remedy)
    if trouble := switch.trouble():
        return Check(
            name,
            State.FAILURE,
            trouble,
            "start ovsdb-server, or mend [vif_plug_ovs] ovsdb_connection; ovsdb-server's log",
        )
    version = switch.facts().ovs_version
    return Check(name, State.OK, f"{address} answers" + (f", Open vSwitch {version}" if version else ""))


def vswitchd(settings: Settings, *, holds_lock: bool | None = None) -> Check:
    """An ovs-vswitchd works on that database: what it left there says nothing, it stays after its death.

    Args:
        settings: where its pid file may lie.
        holds_lock: whether somebody holds vswitchd's lock in OVSDB, None when nobody has asked.
    """
    name = "ovs-vswitchd"
    found = pid_file(settings)
    remedy = "start it (systemctl start openvswitch-switch), and see its log"
    if holds_lock is False:
        return Check(name, State.FAILURE, "no ovs-vswitchd works on this database: no port can be made", remedy)
    if holds_lock:
        return Check(name, State.OK, "it runs" + (f", process {found.pid}" if found and found.pid else ""))
    if found is None:
        return Check(name, State.WARNING, "whether it runs cannot be told: its pid file is not to be seen from here")
    if not found.alive:
        return Check(name, State.FAILURE, f"ovs-vswitchd has died and left {found.path}: no port can be made", remedy)
    return Check(name, State.OK, "it runs" + (f", process {found.pid}" if found.pid else ""))


def dpdk(switch: Switch) -> Check:
    """DPDK is initialised in ovs-vswitchd."""
    name, facts = "DPDK", switch.facts()
    if switch.trouble():
        return Check(name, State.WARNING, _WITHOUT_OVSDB)
    if facts.dpdk_initialized:
        return Check(name, State.OK, facts.dpdk_version or "it is initialized")
    if facts.other_config.get("dpdk-init") not in {"true", "try"}:
        return Check(
            name,
            State.FAILURE,
            "DPDK is not initialized in ovs-vswitchd: other_config:dpdk-init is not set in this database",
            "is it the right one ([vif_plug_ovs] ovsdb_connection)? Then:"
            " ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true, and restart ovs-vswitchd",
        )
    return Check(
        name,
        State.FAILURE,
        "DPDK is not initialized in ovs-vswitchd although other_config:dpdk-init asks for it",
        "see ovs-vswitchd's log from its last start: mostly there were no hugepages. Then restart it",
    )


def interface_types(switch: Switch) -> Check:
    """ovs-vswitchd knows the interface types of vhost-user ports."""
    name = "interface types"
    if switch.trouble():
        return Check(name, State.WARNING, _WITHOUT_OVSDB)
    if missing := _TYPES - switch.facts().iface_types:
        return Check(
            name,
            State.FAILURE,
            f"ovs-vswitchd does not know the interface type {', '.join(sorted(missing))}: it is not built with DPDK",
            "install a build with DPDK (Debian: openvswitch-switch-dpdk)",
        )
    return Check(name, State.OK, ", ".join(sorted(_TYPES)))


def forwarding_processors(switch: Switch, host: Machine) -> Check:
    """The processors on which ovs-vswitchd forwards packets are there."""
    name = "PMD cores"
    if switch.trouble():
        return Check(name, State.WARNING, _WITHOUT_OVSDB)
    mask = switch.facts().other_config.get("pmd-cpu-mask", "")
    if not mask:
        return Check(
            name, State.OK, "other_config:pmd-cpu-mask is not set: one thread for each NUMA node forwards packets"
        )
    try:
        wanted = _processors(mask)
    except ValueError:
        return Check(
            name,
            State.FAILURE,
            f"other_config:pmd-cpu-mask is {mask!r}, which is no mask in hexadecimal",
            "ovs-vsctl set Open_vSwitch . other_config:pmd-cpu-mask=0x6, say, for processors 1 and 2",
        )
    online = host.online_processors()
    missing = sorted(wanted - online) if online else []
    if missing and not wanted & online:
        return Check(
            name,
            State.FAILURE,
            f"other_config:pmd-cpu-mask={mask} names no processor that is online (those are {_numbers(online)}): no packet is forwarded",
            "ovs-vsctl set Open_vSwitch . other_config:pmd-cpu-mask=…, with processors that are online",
        )
    if missing:
        return Check(
            name,
            State.WARNING,
            f"other_config:pmd-cpu-mask={mask} names processors that are not online: {_numbers(missing)}",
            "correct the mask: fewer threads than you think forward packets",
        )
    return Check(name, State.OK, f"packets are forwarded on processors {_numbers(wanted)}")


def bridges(switch: WholeSwitch, used: Mapping[str, str]) -> Check:
    """The bridges that attachments use or would use have the userspace datapath.

    Args:
        switch: which bridges there are.
        used: the bridges, each with who uses it.
    """
    name = "bridges"
    if switch.trouble():
        return Check(name, State.WARNING, _WITHOUT_OVSDB)
    there = sorted({port.bridge for port in switch.ports().values() if port.bridge} | set(used))
    datapaths = {bridge: switch.bridge_datapath(bridge) for bridge in there}
    wrong = [bridge for bridge in used if datapaths[bridge] not in {None, "netdev"}]
    remedy = (
        "name another bridge in the network configuration, or, if nothing else uses it:"
        " ovs-vsctl set Bridge NAME datapath_type=netdev"
    )
    if wrong:
        found = ", ".join(f"{bridge} ({used[bridge]}) has {datapaths[bridge]}" for bridge in wrong)
        return Check(name, State.FAILURE, f"vhost-user ports need the datapath netdev: {found}", remedy)
    shown = [
        f"{bridge} {datapath}" if datapath else f"{bridge} is made when needed"
        for bridge, datapath in datapaths.items()
    ]
    if not used and datapaths and "netdev" not in datapaths.values():
        return Check(name, State.WARNING, f"no bridge has the datapath netdev: {few(shown)}", remedy)
    return Check(name, State.OK, few(shown) or "none yet: the first ADD makes the one that its network names")


# -- directories -------------------------------------------------------------------------------------------------------


def directories(settings: Settings) -> Check:
    """Both directories of sockets are there."""
    name = "directories"
    for option, path, remedy in (
        ("mount_point", settings.mount_point, "make it, or restart podvif node, which makes it"),
        (
            "ovs_vhu_path",
            settings.ovs_vhu_path,
            "start Open vSwitch, or name the directory in which it makes its sockets",
        ),
    ):
        if not files.is_directory(path):
            return Check(name, State.FAILURE, f"[vhostuser] {option}: directory {path} is missing", remedy)
    return Check(name, State.OK, f"{settings.mount_point} and {settings.ovs_vhu_path}")


def ovs_socket_directory(switch: Switch, settings: Settings) -> Check:
    """ovs_vhu_path is where ovs-vswitchd makes the sockets on which it listens: client mode waits for them there.

    That is its run directory, where its pid file mostly lies too, or other_config:vhost-sock-dir below it.
    """
    name = "ovs_vhu_path"
    found = pid_file(settings)
    if switch.trouble() or found is None:
        why = (
            _WITHOUT_OVSDB
            if found
            else "it cannot be told where ovs-vswitchd makes its sockets: its pid file is not to be seen"
        )
        return Check(name, State.WARNING, why)
    below = switch.facts().other_config.get("vhost-sock-dir", "")
    wanted = os.path.realpath(f"{found.path.rpartition('/')[0]}/{below}")
    if wanted == os.path.realpath(settings.ovs_vhu_path):
        return Check(name, State.OK, f"ovs-vswitchd makes its sockets in {settings.ovs_vhu_path}")
    return Check(
        name,
        State.WARNING,
        f"ovs-vswitchd seems to make its sockets in {wanted}, and [vhostuser] ovs_vhu_path is {settings.ovs_vhu_path}",
        "make them the same: an ADD in client mode waits there in vain",
    )


def rename(settings: Settings) -> Check:
    """A socket can be moved from ovs_vhu_path to mount_point: tried, with a file."""
    name = "rename"
    source, target = settings.ovs_vhu_path, settings.mount_point
    reason = files.why_not_movable(source, target)
    # The file has one name, and a daemon may have been trying at the same moment: what is wrong is wrong the next time too.
    reason = reason and files.why_not_movable(source, target)
    if reason is None:
        return Check(name, State.OK, f"from {source} to {target}")
    across = "EXDEV" in reason
    remedy = (
        "put both on one mount: in a container, under one volume; on a host, below one file system"
        if across
        else "mend the directory: podvif needs to write to both, as root"
    )
    return Check(name, State.FAILURE, reason, remedy)


def own_directories(settings: Settings) -> Iterator[Check]:
    """Where the CSI driver is on: a socket can be moved from ovs_vhu_path to where pods have directories of their own."""
    if not settings.csi_endpoint:
        return
    name, target = "own directories", names.own_directories(settings.run_dir)
    reason = files.why_not_movable(settings.ovs_vhu_path, target)
    reason = reason and files.why_not_movable(settings.ovs_vhu_path, target)
    if reason is None:
        yield Check(name, State.OK, f"{target}, and {names.CSI_DRIVER} at {settings.csi_endpoint}")
        return
    remedy = "restart podvif node, which makes it"
    if "EXDEV" in reason:
        remedy = "put [node] run_dir and [vhostuser] ovs_vhu_path on one mount: in a container, under one volume"
    yield Check(name, State.FAILURE, reason, remedy)


def path_lengths(settings: Settings) -> Check:
    """Sockets in both directories have names that a Unix socket can have; the settings refuse what is longer."""
    paths = [
        names.socket_path(directory, "v" * names.VIF_NAME_LENGTH)
        for directory in (settings.mount_point, settings.ovs_vhu_path)
    ]
    longest = max(len(os.fsencode(path)) for path in paths)
    return Check("path lengths", State.OK, f"{longest} bytes of {names.SUN_PATH_MAX}")


def state_dir(settings: Settings) -> Check:
    """The journal can be written."""
    name, path = "state_dir", settings.state_dir
    if not os.path.lexists(path):
        return Check(name, State.OK, f"{path} is made at the daemon's start")
    remedy = "it has to be a directory that root can write to"
    try:
        found = os.stat(path)  # noqa: PTH116
        probe = f"{path}/.podvif-probe"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(probe)  # noqa: PTH108
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(probe)  # noqa: PTH108
        free = os.statvfs(path)
    except OSError as error:
        reason = f"[node] state_dir {path} cannot be written: {error.strerror}"
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return Check(name, State.FAILURE, reason, "free some space" if full else remedy)
    if free.f_bavail * free.f_frsize < _MIB:
        return Check(name, State.FAILURE, f"the disk of [node] state_dir {path} is full", "free some space")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(found.st_mode)
        return Check(
            name,
            State.WARNING,
            f"[node] state_dir {path} has mode {mode:04o}: not only root may enter",
            f"chmod 700 {path}",
        )
    if spoilt := sorted(entry for entry in listed(f"{path}/attachments") if entry.endswith(".unreadable")):
        return Check(
            name,
            State.WARNING,
            f"files of the journal could not be read and were set aside: {few(spoilt)}",
            f"look at them in {path}/attachments and remove them; their ports are found by their names",
        )
    return Check(name, State.OK, path)


def ownerless_sockets(switch: WholeSwitch, settings: Settings, entries: Iterable[Entry]) -> Check:
    """No vhost-user socket lies in either directory that belongs to no attachment and to no OVS port."""
    name = "sockets without an owner"
    if switch.trouble():
        return Check(name, State.WARNING, _WITHOUT_OVSDB)
    owned = {entry.vif.name for entry in entries} | set(switch.ports())
    paths = {port.vhost_server_path for port in switch.ports().values()}
    found = []
    own = names.own_directories(settings.run_dir)
    owns = [SocketDir(f"{own}/{uid}") for uid in sorted(listed(own))]
    for directory in dict.fromkeys((settings.mount_point, settings.ovs_vhu_path, *owns)):
        for entry in sorted(listed(directory)):
            path = f"{directory.rstrip('/')}/{entry}"
            if _SOCKET.fullmatch(entry) and entry not in owned and path not in paths:
                found.append(path)
    if not found:
        return Check(name, State.OK, "none")
    shown = few([f"{path} ({_life(path, settings)})" for path in found])
    return Check(
        name,
        State.WARNING,
        f"{len(found)} belong to no attachment and no OVS port: {shown}",
        f"podvif removes those in pods' directories that are dead, {settings.sweep_grace:g} s after they lost their owner;"
        " in ovs_vhu_path remove by hand what no running vswitchd listens on",
    )


def _life(path: str, settings: Settings) -> str:
    found = pid_file(settings)
    namespaces = [None, f"/proc/{found.pid}/ns/net"] if found and found.pid else [None]
    try:
        state = files.look_at_socket(path, namespaces)
    except PodvifError:
        return "who listens cannot be seen"
    return "somebody listens" if state is SocketFile.BOUND else "nobody on the host listens"


# -- helpers -----------------------------------------------------------------------------------------------------------


def pid_file(settings: Settings) -> PidFile | None:
    """The pid file of ovs-vswitchd, None when it is not to be seen."""
    return machine.vswitchd(rundirs(settings))


def _processors(mask: str) -> set[int]:
    bits = int(mask, 16)
    return {number for number in range(bits.bit_length()) if bits >> number & 1}


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def few(items: Sequence[str], mark: str = ", ", shown: int = _SHOWN) -> str:
    """The first few of the items, and how many more there are."""
    more = len(items) - shown
    return mark.join(items[:shown]) + (f"{mark.rstrip()} and {more} more" if more > 0 else "")


def listed(directory: str) -> list[str]:
    """The names in a directory, none when it cannot be read."""
    try:
        return os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []
