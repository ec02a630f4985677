"""Pairs of network devices: one end on the host, one in a pod's namespace, by netlink.

Law: looks are cheap enough for the event loop (`podvif.host.rtnetlink`); what changes something is pyroute2's, which cannot be
called where an event loop runs: a worker thread does it.  A pair is made whole, in one message: both names, MACs and MTUs, and
the pod's end in its namespace already; what lies there under one of the names refuses it, and is never touched.  Whatever
concerns the pod's namespace is done by a thread that has entered it (`podvif.host.netns`), never with pyroute2's own `netns=`,
which forks the daemon.  The pod's end gets its checksums filled in before it is up, so that no packet leaves it without.  The
host end is cut off from the node's own kernel before it is up: that sees each frame which OVS sees, and would answer a pod
beside all that OVS has been told.
"""

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from podvif import errors
from podvif.errors import PodvifError, Refused, Retry
from podvif.host import netns
from podvif.host.rtnetlink import Kernel
from podvif.model import Pair, Route, SeenDevice

_NODAD = 0x2  # IFA_F_NODAD of linux/if_addr.h: IPAM answers for it that nobody else has the address
_SIOCETHTOOL = 0x8946  # linux/sockios.h
_GTXCSUM, _STXCSUM = 0x16, 0x17  # ETHTOOL_… of linux/ethtool.h
_GONE = frozenset({errno.ENODEV, errno.ENOENT})


# -- looking -----------------------------------------------------------------------------------------------------------


def look_at(name: str) -> SeenDevice | None:
    """The device called `name` in our own namespace, None when there is none.

    Raises:
        Retry: the kernel does not say.
    """
    with _door(f"network device {name} cannot be looked at"), Kernel() as kernel:
        return _end(kernel, name)


def look_into(namespace: str, name: str) -> SeenDevice | None:
    """The device called `name` in the namespace at that path, with addresses, routes and checksums; None: not there.

    Raises:
        Retry: the namespace cannot be entered, or the kernel does not say.
    """

    def look() -> SeenDevice | None:
        with Kernel() as kernel:
            found = _end(kernel, name)
            if found is None:
                return None
            return msgspec.structs.replace(
                found,
                checksums_left_out=_leaves_checksums_out(name),
                addresses=frozenset(kernel.addresses(found.index)),
                routes=frozenset(kernel.routes(found.index)),
            )

    with _door(f"interface {name} of {namespace} cannot be looked at"):
        return netns.inside(namespace, look)


def _end(kernel: Kernel, name: str) -> SeenDevice | None:
    found = kernel.device(name)
    if found is None:
        return None
    peer, master = found.link if found.kind == "veth" else 0, kernel.device(found.master) if found.master else None
    return SeenDevice(found.index, found.mac, found.mtu, found.up, peer, master=master.name if master else None)


def _leaves_checksums_out(name: str) -> bool:
    return _ethtool(name, _GTXCSUM, 0) != 0


def _ethtool(name: str, command: int, value: int) -> int:
    """One request of SIOCETHTOOL with a struct ethtool_value, in the thread's namespace; returns the value."""
    request = array("I", [command, value])
    where, _ = request.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP", name.encode(), where))
    return request[1]


# -- doing -------------------------------------------------------------------------------------------------------------


def make(pair: Pair) -> None:
    """Make a pair; both ends are down.

    Raises:
        Refused: a device has one of the names already, the kernel makes no such device, or the namespace is our own.
        Retry: the namespace is gone.
    """
    if netns.same(pair.namespace, "/proc/self/ns/net"):
        raise Refused(
            f"CNI_NETNS {pair.namespace} is the network namespace of the node itself",
            "a pod in it has the node's own interfaces",
            code=errors.INVALID_ENVIRONMENT,
        )
    with _door(f"the pair {pair.host} and {pair.ifname} in {pair.namespace} cannot be made"):
        descriptor = os.open(pair.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            peer = {"ifname": pair.ifname, "address": pair.mac, "mtu": pair.mtu, "net_ns_fd": descriptor}
            with IPRoute() as link:
                link.link("add", kind="veth", ifname=pair.host, address=pair.host_mac, mtu=pair.mtu, peer=peer)
        finally:
            os.close(descriptor)


def set_up(pair: Pair, addresses: Iterable[str], routes: Sequence[Route]) -> None:
    """Give both ends of a pair what they lack; what is there already stays, and so does what the pod has added.

    Args:
        pair: as it shall be.
        addresses: with prefix lengths.
        routes: each with its gateway, if it has one.

    Raises:
        Refused: the kernel takes an address or a route not.
        Retry: one of the ends is gone.
    """
    wanted, ifname, namespace = set(addresses), pair.ifname, pair.namespace

    def pod_end() -> None:
        if any(":" in address for address in wanted):
            _allow_ipv6(ifname)
        with Kernel() as kernel, IPRoute() as link:
            found = kernel.device(ifname)
            if found is None:
                raise Retry(f"interface {ifname} of {namespace} is gone")
            if (found.mac, found.mtu) != (pair.mac, pair.mtu):
                link.link("set", index=found.index, address=pair.mac, mtu=pair.mtu)
            _ethtool(ifname, _STXCSUM, 0)
            link.link("set", index=found.index, state="up")
            for address in sorted(wanted - set(kernel.addresses(found.index))):
                _add_address(link, found.index, address)
            for route in routes:
                _add_route(link, found.index, route)

    with _door(f"network device {pair.host} cannot be set up"), IPRoute() as own:
        _cut_off(pair.host)
        own.link("set", index=_index(pair.host), mtu=pair.mtu, state="up")
    with _door(f"interface {ifname} of {namespace} cannot be set up"):
        netns.inside(namespace, pod_end)


def _cut_off(host: str) -> None:
    """Keep the node's kernel from taking frames of a host end: no IPv6 on it, and no source is believed to be behind it.

    Strict reverse path filtering (Linux ip-sysctl.rst, "rp_filter") drops all of IPv4, ARP's requests too, on a device
    that no route leads to.
    """
    for setting in (f"ipv6/conf/{host}/disable_ipv6", f"ipv4/conf/{host}/rp_filter"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{setting}", "w") as file:  # noqa: PTH123  a kernel without IPv6 has none
            file.write("1")


def _allow_ipv6(ifname: str) -> None:
    """Some runtimes turn IPv6 off in a namespace until somebody has an address for it (CNI's own plugins do this too)."""
    with open(f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6", "r+") as setting:  # noqa: PTH123
        if setting.read().strip() != "0":
            setting.seek(0)
            setting.write("0")


def _add_address(link: IPRoute, index: int, address: str) -> None:
    interface = ipaddress.ip_interface(address)
    given: dict[str, Any] = {"index": index, "address": str(interface.ip), "prefixlen": interface.network.prefixlen}
    if interface.version == 6:
        given["flags"] = _NODAD
    else:
        given["broadcast"] = str(interface.network.broadcast_address)
    with _door(f"address {address} cannot be given", there_already=True):
        link.addr("add", **given)


def _add_route(link: IPRoute, index: int, route: Route) -> None:
    given: dict[str, Any] = {"dst": route.dst, "oif": index}
    optional = {"gateway": route.gw, "priority": route.priority, "table": route.table, "scope": route.scope}
    given |= {key: value for key, value in optional.items() if value is not None}
    metrics = {key: value for key, value in (("mtu", route.mtu), ("advmss", route.advmss)) if value is not None}
    if metrics:
        given["metrics"] = metrics
    with _door(f"the route to {route.dst} cannot be made", there_already=True):
        link.route("add", **given)


def join(host: str, bridge: str) -> None:
    """Put the host end into a Linux bridge; it is in it already: fine.

    Raises:
        Retry: one of the two is gone.
    """
    with _door(f"network device {host} cannot be put into {bridge}"), IPRoute() as link:
        link.link("set", index=_index(host), master=_index(bridge))


def remove(host: str, index: int) -> None:
    """Remove a pair by its host end, which the kernel does with both; gone already is fine.

    Args:
        host: its name, for the message.
        index: its number: whoever has made another device of that name meanwhile keeps it.

    Raises:
        Retry: the kernel does not.
    """
    with _door(f"network device {host} cannot be removed", gone=True), IPRoute() as link:
        link.link("del", index=index)


def _index(name: str) -> int:
    with Kernel() as kernel:
        found = kernel.device(name)
    if found is None:
        raise Retry(f"network device {name} is gone")
    return found.index


@contextlib.contextmanager
def _door(what: str, *, there_already: bool = False, gone: bool = False) -> Iterator[None]:
    """Translate what pyroute2 and the kernel raise."""
    try:
        yield
    except PodvifError:
        raise
    except NetlinkError as error:
        if (there_already and error.code == errno.EEXIST) or (gone and error.code in _GONE):
            return
        words = os.strerror(error.code)
        if error.code in _GONE:
            raise Retry(f"{what}: {words}") from error
        raise Refused(f"{what}: {words}", _REMEDIES.get(error.code, ""), code=errors.IO_FAILURE) from error
    except OSError as error:
        raise Retry(f"{what}: {error.strerror}") from error


_REMEDIES = {
    errno.EEXIST: "a device has that name already: remove it, or give the attachment another name",
    errno.EOPNOTSUPP: "load the kernel's module: modprobe veth",
    errno.EPERM: "podvif has to run as root (CAP_NET_ADMIN)",
    errno.ENETUNREACH: "the route's gateway has to be in a subnet of the interface's addresses",
}
