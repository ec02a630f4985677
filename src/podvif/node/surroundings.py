"""The rest of what a node needs: memory, rights, the runtime's side of CNI, and what the running daemon says of itself.

Law: as in `podvif.node.checks`: a check looks, changes nothing, and says what is so and what to do.  Nothing here is asked
for an ADD; `podvif doctor` shows it.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from podvif import names
from podvif.host import files, machine, netns, rights
from podvif.host.machine import Machine
from podvif.model import Entry, Goal, PortKind
from podvif.node.checks import Check, State, Switch, few, listed, pid_file
from podvif.node.journal import parse_entry
from podvif.settings import Settings

CNI_DIRECTORY = "/etc/cni/net.d"
PLUGIN = "podvif-cni"

_OWN_NETNS = "/proc/self/ns/net"

_SENTENCES = 2
"""How many broken attachments a line describes: each is a sentence with a path in it, and podvif status has them all."""

_GIB, _MIB = 1 << 20, 1 << 10  # in KiB, as the kernel says a hugepage's size


def user() -> Check:
    """Whoever looks may see everything."""
    uid = os.geteuid()
    if uid == 0:
        return Check("user", State.OK, "root")
    return Check("user", State.WARNING, f"uid {uid}: what only root may see counts as missing below", "run it as root")


# -- the machine -------------------------------------------------------------------------------------------------------


def hugepages(switch: Switch, host: Machine) -> Check:
    """There are hugepages, and some are left for applications."""
    name = "hugepages"
    pages = [found for found in host.hugepages() if found.total]
    running = not switch.trouble() and switch.facts().dpdk_initialized
    if not pages:
        return Check(
            name,
            State.WARNING if running else State.FAILURE,
            "this machine has no hugepages: DPDK's memory, which vhost-user shares, lies in them",
            "hugepages=1024 on the kernel's command line, or sysctl vm.nr_hugepages=1024; then restart ovs-vswitchd",
        )
    shown = ", ".join(f"{found.free} of {found.total} with {_size(found.size_kib)}" for found in pages)
    if not any(found.free for found in pages):
        return Check(
            name,
            State.WARNING,
            f"no hugepage is free ({shown}): no further application can start",
            "reserve more of them",
        )
    return Check(name, State.OK, f"free: {shown}")


def access(settings: Settings, host: Machine) -> Check:
    """ovs-vswitchd may go into the pods' directory, and finds the same one there as we do."""
    name, path = "access of ovs-vswitchd", settings.mount_point
    found = pid_file(settings)
    who = host.identity(found.pid) if found and found.pid else None
    if found is None or found.pid is None or who is None:
        return Check(name, State.WARNING, "it cannot be told: the process of ovs-vswitchd is not to be seen from here")
    if files.is_directory(path) and host.seen_by(found.pid, path) is False:
        return Check(
            name,
            State.FAILURE,
            f"ovs-vswitchd (process {found.pid}) does not see this machine's {path}: it runs in a container without it",
            f"mount {path} there, at the same path",
        )
    if who.passes_everywhere():
        return Check(name, State.OK, f"it runs as {who.name} and may open every socket")
    if closed := machine.why_not_reachable(who, path):
        return Check(
            name,
            State.FAILURE,
            f"ovs-vswitchd runs as {who.name} and may not enter {closed}: in server mode it reaches no application's socket",
            f"chmod o+x {closed}, or run ovs-vswitchd as root",
        )
    if files.is_directory(path) and not rights.has_lists(path):
        return Check(
            name,
            State.FAILURE,
            f"ovs-vswitchd runs as {who.name}, and {path} lies on a file system without access control lists: podvif cannot"
            " open applications' sockets to it",
            "use one that has them (tmpfs, ext4, xfs), or run ovs-vswitchd as root",
        )
    return Check(name, State.OK, f"it runs as {who.name}: podvif opens each application's socket to it")


def kernel_ports(
    settings: Settings, entries: Iterable[Entry], installed: Sequence[tuple[str, list[dict[str, Any]]]]
) -> Iterator[Check]:
    """Where somebody wants kernel ports, ovs-vswitchd finds their devices: it shares our network namespace."""
    name = "kernel ports"
    asked = any(plugin.get("portType") == "veth" for _, plugins in installed for plugin in plugins)
    if not asked and all(entry.vif.kind is PortKind.VHOST_USER for entry in entries):
        return
    found = pid_file(settings)
    if found is None or found.pid is None:
        yield Check(
            name, State.WARNING, "it cannot be told where ovs-vswitchd looks for their devices: it does not run"
        )
    elif netns.same(f"/proc/{found.pid}/ns/net", _OWN_NETNS):
        yield Check(name, State.OK, "ovs-vswitchd runs in this network namespace and finds their devices")
    else:
        yield Check(
            name,
            State.FAILURE,
            f"ovs-vswitchd (process {found.pid}) runs in another network namespace: it finds no device of a veth pod",
            "run podvif node and ovs-vswitchd in the same one, in Kubernetes with hostNetwork",
        )


def selinux(settings: Settings, host: Machine) -> Check:
    """SELinux does not stand between pods, sockets and ovs-vswitchd."""
    name, mode = "SELinux", host.selinux()
    if mode is None:
        return Check(name, State.OK, "not in use, as far as can be seen from here")
    verb = "denies" if mode == "enforcing" else "logs, and would deny,"
    return Check(
        name,
        State.WARNING,
        f"SELinux is {mode}: without a rule it {verb} pods and ovs-vswitchd the sockets in {settings.mount_point}",
        f"semanage fcontext -a -t container_file_t '{settings.mount_point}(/.*)?' and restorecon -R {settings.mount_point};"
        " ausearch -m avc tells what ovs-vswitchd is denied",
    )


# -- the runtime's side ------------------------------------------------------------------------------------------------


def parse_cni(configurations: Sequence[tuple[str, bytes]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The plugins of each configuration, [] for one that is none."""
    return [(path, _plugins(data)) for path, data in configurations]


def cni_configuration(installed: Sequence[tuple[str, list[dict[str, Any]]]], settings: Settings) -> Check:
    """A configuration that names podvif is the one that the runtime takes: the first in lexical order."""
    name = "CNI configuration"
    ours = [(path, plugin) for path, plugins in installed for plugin in plugins if plugin.get("type") == PLUGIN]
    if not installed:
        return Check(
            name,
            State.WARNING,
            f"{CNI_DIRECTORY} has none: no pod gets a network from this runtime",
            f"install one that names {PLUGIN}, or Multus with a NetworkAttachmentDefinition that does",
        )
    first, plugins = installed[0]
    if not plugins:
        return Check(name, State.WARNING, f"{first} is the first and is no CNI configuration", "correct or remove it")
    for path, plugin in ours:
        socket = str(plugin.get("daemonSocket", names.DEFAULT_CNI_SOCKET))
        if os.path.realpath(socket) != os.path.realpath(settings.cni_socket):
            return Check(
                name,
                State.WARNING,
                f"{path} reaches the daemon at {socket}, and [node] cni_socket is {settings.cni_socket}",
                "make daemonSocket and cni_socket the same",
            )
    kind = str(plugins[0].get("type"))
    if kind == PLUGIN:
        return Check(name, State.OK, f"{first} is the first and names {PLUGIN}")
    if ours:
        return Check(
            name,
            State.WARNING,
            f"{ours[0][0]} names {PLUGIN} and is not what the runtime takes: that is {first}, plugin {kind}",
            f"give it a name that sorts before {first.rpartition('/')[2]}, unless Multus is to find it there",
        )
    if kind.startswith("multus"):
        return Check(
            name, State.OK, f"{first} is the first and names {kind}: {PLUGIN} comes by NetworkAttachmentDefinition"
        )
    return Check(
        name,
        State.WARNING,
        f"{first} is the first and names {kind}; none names {PLUGIN}",
        f"install one that does, or Multus with a NetworkAttachmentDefinition that names {PLUGIN}",
    )


def plugin_version(installed: Mapping[str, str], seen: str, ours: str) -> Check:
    """The executables that runtimes call are of the daemon's version.

    Args:
        installed: version by path; empty where an executable does not say one.
        seen: the version of the one that called the daemon last, empty when none has or there is no daemon.
        ours: of the daemon.
    """
    name = "CNI plugin"
    if not installed:
        return Check(
            name,
            State.WARNING,
            f"{PLUGIN} is in none of the directories of CNI plugins",
            "install it there, by rename; in Kubernetes the DaemonSet does",
        )
    other = [
        f"{path} is {version or 'of an unknown version'}" for path, version in installed.items() if version != ours
    ]
    if seen and seen != ours and seen not in installed.values():
        other.append(f"the last one that called the daemon was {seen}")
    if other and ours:  # a podvif that runs from its source has no version
        return Check(
            name,
            State.WARNING,
            f"podvif is {ours}, and {few(other)}",
            "install both from one package, and restart podvif node",
        )
    return Check(name, State.OK, few([f"{path}, version {version}" for path, version in installed.items()]))


# -- what the running daemon knows -------------------------------------------------------------------------------------


def daemon(about: Mapping[str, Any] | None, settings: Settings, ours: str, *, why: str = "") -> Check:
    """The daemon runs, in this version and with this configuration.

    Args:
        about: what it says of itself (`podvif.node.about.about`), None when it does not answer.
        settings: what it should run with.
        ours: the installed version.
        why: why it does not answer.
    """
    name = "podvif node"
    if about is None:
        stopped = not os.path.lexists(settings.cni_socket)
        return Check(
            name,
            State.WARNING if stopped else State.FAILURE,
            f"it does not run: nothing is at {settings.cni_socket}, no CNI call is answered"
            if stopped
            else f"{settings.cni_socket} is there, and podvif node does not answer: {why}",
            "start it, or give the --config-file that it runs with" if stopped else "start it again, and see its log",
        )
    if about.get("version") != ours:
        return Check(
            name,
            State.WARNING,
            f"version {about.get('version')} runs, version {ours} is installed",
            "restart podvif node",
        )
    mine = msgspec.to_builtins(settings)
    theirs = about.get("settings", {})
    differing = [
        f"{key} = {theirs[key]} and not {mine[key]}" for key in mine if theirs.get(key, mine[key]) != mine[key]
    ]
    if differing:
        return Check(
            name,
            State.WARNING,
            f"it runs with {few(differing)}",
            "restart it, or give the --config-file that it runs with",
        )
    where = f", metrics at http://{about['metrics']}/metrics" if about.get("metrics") else ""
    return Check(name, State.OK, f"{f'version {ours}' if ours else 'it'} answers at {settings.cni_socket}{where}")


def apiserver(known: Mapping[str, Any]) -> Check:
    """The daemon follows this node's PodVifs, as `podvif status` has it."""
    name = "API server"
    if trouble := known["trouble"]:
        return Check(
            name,
            State.FAILURE,
            f"the PodVifs of node {known['node']} are not being followed: {trouble}",
            "no new pod gets a port: look at the API server, at [kubernetes] kubeconfig and at the rights of its user",
        )
    shown = f"{known['podvifs']} PodVifs of node {known['node']} are followed at {known['server']}"
    return Check(name, State.OK, shown)


def attachments(status: Mapping[str, Any]) -> Check:
    """What is attached is as it should be, as `podvif status` has it."""
    name = "attachments"
    items: list[dict[str, Any]] = status["attachments"]
    wrong = [f"{_who(item)}: {item['trouble']}" for item in items if item["trouble"]]
    wrong += [
        f"{_who(item)}: {item['link']}" for item in items if not item["trouble"] and item["link"] in {"stale", "gone"}
    ]
    leaving = [_who(item) for item in items if item["goal"] == Goal.LEAVING.value]
    if wrong:
        return Check(
            name,
            State.WARNING,
            f"{len(wrong)} of {len(items)} are not as they should be: {few(wrong, '; ', _SENTENCES)}",
            "podvif mends them when it can: look again with podvif status --watch, and at the daemon's log",
        )
    if leaving:
        return Check(
            name,
            State.WARNING,
            f"{len(leaving)} are leaving and not gone: {few(leaving)}",
            "look at the daemon's log for what keeps them",
        )
    return Check(name, State.OK, f"{len(items)}, all as they should be" if items else "none")


# -- helpers -----------------------------------------------------------------------------------------------------------


def read_journal(state_dir: str) -> list[Entry]:
    """The entries of the journal, read beside a daemon that may be writing: nothing is mended or set aside."""
    found = []
    directory = names.journal_directory(state_dir)
    for name in sorted(listed(directory)):
        if name.startswith(".") or not name.endswith(".json"):
            continue
        with contextlib.suppress(msgspec.MsgspecError):
            found.append(parse_entry(name, files.read_text(directory, name) or ""))
    return found


def used_bridges(
    entries: Iterable[Entry], installed: Sequence[tuple[str, list[dict[str, Any]]]], asked: Iterable[str]
) -> dict[str, str]:
    """The bridges that attachments use or would use, each with who that is."""
    used = dict.fromkeys(asked, "asked for")
    for path, plugins in installed:
        for plugin in plugins:
            if plugin.get("type") == PLUGIN:
                used.setdefault(str(plugin.get("bridge", "br-int")), path)
    for entry in entries:
        if entry.network:
            used.setdefault(entry.vif.bridge, f"network {entry.network}")
    return used


def _plugins(data: bytes) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return []
    listed = document.get("plugins", [document]) if isinstance(document, dict) else []
    return (
        [plugin for plugin in listed if isinstance(plugin, dict) and "type" in plugin]
        if isinstance(listed, list)
        else []
    )


def _size(kib: int) -> str:
    for unit, size in (("GiB", _GIB), ("MiB", _MIB)):
        if kib >= size:
            return f"{kib // size} {unit}"
    return f"{kib} KiB"


def _who(item: Mapping[str, Any]) -> str:
    return f"{item['pod'] or item['container_id'][:13]} {item['ifname']}"
