"""The decision about kernel ports: a closed table of its own, for the loop that vhost-user ports have.

Law: as in `podvif.core.attach`.  OVSDB does not notice what becomes of the devices, so they are observed themselves; and an
OVS port passes nothing over a host end that was made again under the same name (measured, OVS 3.1), so the port carries
the number of the one it was plugged on, and is made again with it.  The pod's kernel must not leave checksums to the device:
the netdev datapath fills none in, so ping works and TCP and UDP are dead.

The rows, in order, on the way to *attached* (the first that matches is taken):

| observed                                                       | next step                                     |
|----------------------------------------------------------------|-----------------------------------------------|
| OVSDB cannot be asked                                          | fail: try again                               |
| vswitchd lives in another network namespace than the daemon    | fail: it would not find our devices           |
| the bridge is there with a datapath other than netdev          | fail: never flipped                           |
| an OVS port of that name is not ours                           | fail: never touched                           |
| a device with the host end's name is not ours                  | fail: never touched                           |
| a device with the interface's name in the pod is not ours      | fail: never touched                           |
| the pod's namespace is gone                                    | fail                                          |
| IPAM was not asked yet                                         | RESERVE_ADDRESSES                             |
| OVS port with another type, bridge, MAC or VLAN                | UNPLUG                                        |
| VETH: an OVS port whose device is gone, or was made again      | UNPLUG                                        |
| HYBRID: an OVS port, and its Linux bridge is not whole         | UNPLUG                                        |
| the host end is there, and its other end is not where it shall be | REMOVE_PAIR                                |
| no pair                                                        | MAKE_PAIR                                     |
| no OVS port, and vswitchd has not seen the removal of the last | AWAIT_REMOVAL                                 |
| no OVS port                                                    | PLUG                                          |
| recovery, nothing has come for long: OVS could not open the port | UNPLUG (the rows above do the rest)         |
| the Interface has an error, or ofport -1                       | fail with OVS's own words                     |
| vswitchd has not dealt with the port                           | AWAIT_PORT                                    |
| HYBRID: the host end is not in its Linux bridge                | JOIN_LINUX_BRIDGE                             |
| one of the ends lacks something, the pod's one checksums       | SET_UP_PAIR                                   |
| owner marks missing                                            | WRITE_MARKS                                   |
| a Neutron port that the agent has not wired                    | AWAIT_WIRED                                   |
| otherwise                                                      | None: it is attached                          |

Recovery leaves an end alone that the pod has taken down: the interface is the pod's, and so are its reasons.

On the way to *absent*: the pair (if it is ours), the OVS port (likewise), the addresses, the journal's entry.  It asks
nothing of the pod's namespace.  While OVSDB cannot be asked all but the pair stays, as *leaving*.
"""

import ipaddress

from podvif import errors, names
from podvif.core.attach import (
    Fail,
    Link,
    Mend,
    Step,
    Want,
    first_difference,
    foreign_port,
    is_ours,
    is_wired,
    marks_missing,
    refused_by_ovs,
)
from podvif.errors import Bug, Refused, Retry
from podvif.model import Addresses, Goal, PortKind, Route, Seen, SeenDevice, SeenPair, SeenPort

MAIN_TABLE = 254
"""The routing table where a route goes that names none (rt_tables)."""


def next_step(want: Want, seen: Seen) -> Step | Fail | None:
    """The next thing to do for one kernel port, or None when it is as wanted."""
    if want.goal is Goal.LEAVING:
        return _toward_absent(want, seen)
    return _precondition(want, seen) or _toward_attached(want, seen)


def _precondition(want: Want, seen: Seen) -> Fail | None:
    vif, pair = want.vif, pair_of(seen)
    if seen.switch_trouble:
        return Fail(Retry(seen.switch_trouble, "start ovsdb-server, or mend [vif_plug_ovs] ovsdb_connection"))
    if pair.switch_apart:
        return Fail(
            Refused(
                f"ovs-vswitchd runs in another network namespace than podvif: it would not find device {vif.name}",
                "run both in the same one, in Kubernetes with hostNetwork",
                code=errors.IO_FAILURE,
            )
        )
    if seen.bridge_datapath not in {None, "netdev"}:
        return Fail(
            Refused(
                f"bridge {vif.bridge} has the datapath {seen.bridge_datapath!r}: podvif serves bridges with netdev",
                "name another bridge; podvif never changes the datapath of one",
            )
        )
    if seen.port and not is_ours(want, seen.port):
        return foreign_port(vif)
    if pair.host and not host_is_ours(want, pair.host):
        device = names.host_device(vif.port_id)
        return Fail(
            Refused(
                f"network device {device} is there and is not podvif's",
                f"look at it with: ip -details link show {device}",
                code=errors.IO_FAILURE,
            )
        )
    if pair.pod and not _belong_together(pair):
        return Fail(
            Refused(
                f"the sandbox has a network interface called {want.attachment.ifname} already",
                "another plugin made it; give this attachment another name",
                code=errors.INVALID_ENVIRONMENT,
            )
        )
    if not pair.sandbox:
        return Fail(
            Refused(
                f"the network namespace of {want.attachment} is gone",
                "DEL or the sweep removes what is left",
                code=errors.INVALID_NETNS,
            )
        )
    return None


def _toward_attached(want: Want, seen: Seen) -> Step | Fail | None:
    port, pair = seen.port, pair_of(seen)
    if want.reserve and seen.addresses is None:
        return Step.RESERVE_ADDRESSES
    if port and why_not_port(want, port, pair):
        return Step.UNPLUG
    if pair.host is None or pair.pod is None:
        return Step.REMOVE_PAIR if pair.host else Step.MAKE_PAIR
    if port is None:
        return Step.PLUG if seen.settled else Step.AWAIT_REMOVAL
    if port.error or port.ofport == -1:
        return Step.UNPLUG if want.mend is Mend.ANYTHING else refused_by_ovs(want.vif, port)
    if port.ofport is None:
        return Step.AWAIT_PORT
    if want.vif.kind is PortKind.HYBRID and pair.host.master != names.linux_bridge(want.vif.port_id):
        return Step.JOIN_LINUX_BRIDGE
    taken_down = not pair.pod.up and not pair.pod.checksums_left_out
    if why_not_pair(want, seen) and (want.mend is Mend.NOTHING or not taken_down):
        return Step.SET_UP_PAIR
    if marks_missing(want, port):
        return Step.WRITE_MARKS
    return None if is_wired(want.vif, port) else Step.AWAIT_WIRED


def _toward_absent(want: Want, seen: Seen) -> Step | Fail | None:
    pair = pair_of(seen)
    if pair.host and host_is_ours(want, pair.host):
        return Step.REMOVE_PAIR
    if seen.switch_trouble:
        return Fail(Retry(seen.switch_trouble, "the rest is removed as soon as OVSDB can be reached"))
    if seen.port and is_ours(want, seen.port):
        return Step.UNPLUG
    if seen.addresses_held:
        return Step.RELEASE_ADDRESSES
    if seen.journalled:
        return Step.FORGET
    return None


def pair_of(seen: Seen) -> SeenPair:
    """The devices, which an observation of a kernel port always has."""
    if seen.pair is None:
        raise Bug("a kernel port was observed without its devices")
    return seen.pair


def host_is_ours(want: Want, host: SeenDevice) -> bool:
    """Whether the device that has the host end's name was made for this attachment: an end of a pair, with our MAC."""
    return host.peer != 0 and host.mac == names.host_mac(want.attachment)


def _belong_together(pair: SeenPair) -> bool:
    host, pod = pair.host, pair.pod
    return host is not None and pod is not None and (host.peer, pod.peer) == (pod.index, host.index)


def link(want: Want, seen: Seen) -> Link:
    """The state of an attached interface's link, as observed; there is no application to wait for."""
    port = seen.port
    if seen.switch_trouble or port is None or port.ofport in {None, -1} or not is_ours(want, port):
        return Link.NOT_PLUGGED
    if not is_wired(want.vif, port):
        return Link.UNWIRED
    return Link.CONNECTED if port.link_up and pair_of(seen).host else Link.NOT_PLUGGED


def why_not_port(want: Want, port: SeenPort, pair: SeenPair) -> str | None:
    """In which way an OVS port of ours is not the wanted one, or None when it is."""
    vif = want.vif
    compared = (
        ("type", port.type, ""),
        ("bridge", port.bridge, vif.bridge),
        ("iface-id", port.external_ids.get("iface-id"), vif.port_id),
        ("attached-mac", port.external_ids.get("attached-mac"), vif.mac),
        ("VLAN", port.tag, port.tag if vif.neutron else vif.vlan),
    )
    if difference := first_difference(vif, compared):
        return difference
    if vif.kind is PortKind.HYBRID:
        return None if pair.linux_bridge else f"the Linux bridge of OVS port {vif.name} is missing or not whole"
    if pair.host is None or pair.pod is None:
        return f"the pair of network devices of OVS port {vif.name} is gone"
    if port.external_ids.get(names.MARK_DEVICE) != str(pair.host.index):
        return f"network device {vif.name} was made again, and OVS port {vif.name} passes nothing over the new one"
    return None


def why_not_pair(want: Want, seen: Seen) -> str | None:
    """What the two ends of a whole pair lack, or None; what else the pod has given its end is its own business."""
    vif, pair = want.vif, pair_of(seen)
    host, pod, ifname = pair.host, pair.pod, want.attachment.ifname
    if host is None or pod is None:
        return f"the pair of network devices of {want.attachment} is not whole"
    if not host.up or host.mtu != vif.mtu:
        return f"network device {names.host_device(vif.port_id)} is down, or its MTU is not {vif.mtu}"
    if (pod.mac, pod.mtu) != (vif.mac, vif.mtu):
        return f"{ifname} has MAC {pod.mac} and MTU {pod.mtu}, wanted are {vif.mac} and {vif.mtu}"
    if pod.checksums_left_out:
        return f"{ifname} leaves checksums out (tx checksum offload), so TCP and UDP do not pass"
    if not pod.up:
        return f"{ifname} is down"
    addresses = seen.addresses or Addresses()
    if missing := wanted_addresses(addresses) - pod.addresses:
        return f"{ifname} lacks address {min(missing)}"
    kept = {route_key(route) for route in wanted_routes(addresses)} - pod.routes
    if kept:
        return f"{ifname} lacks the route to {min(destination for destination, _, _ in kept)}"
    return None


def wanted_addresses(addresses: Addresses) -> frozenset[str]:
    """The addresses of the pod's end with prefix lengths, as `ipaddress` writes them."""
    return frozenset(str(ipaddress.ip_interface(ip.address)) for ip in addresses.ips)


def wanted_routes(addresses: Addresses) -> tuple[Route, ...]:
    """The routes of the pod's end; one that names no gateway takes its family's, as CNI's own plugins do.

    CNI SPEC.md section 5, "Success"; containernetworking/plugins pkg/ipam ConfigureIface.
    """
    gateways: dict[int, str] = {}
    for ip in addresses.ips:
        if ip.gateway:
            gateways.setdefault(ipaddress.ip_address(ip.gateway).version, ip.gateway)
    return tuple(
        Route(
            str(ipaddress.ip_network(route.dst, strict=False)),
            route.gw or gateways.get(ipaddress.ip_network(route.dst, strict=False).version),
            route.mtu,
            route.advmss,
            route.priority,
            route.table,
            route.scope,
        )
        for route in addresses.routes
    )


def why_not_usable(addresses: Addresses) -> str | None:
    """What of IPAM's answer the kernel cannot be given, or None when all can."""
    try:
        for ip in addresses.ips:
            ipaddress.ip_address(ip.gateway or "::")
        for route in addresses.routes:
            ipaddress.ip_network(route.dst, strict=False)
            ipaddress.ip_address(route.gw or "::")
    except ValueError as error:
        return str(error)
    return None


def route_key(route: Route) -> tuple[str, str | None, int]:
    """A route as `SeenDevice.routes` has it."""
    gateway = str(ipaddress.ip_address(route.gw)) if route.gw else None
    return route.dst, gateway, MAIN_TABLE if route.table is None else route.table


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
            return why_not_port(want, seen.port, pair_of(seen))
        case Step.MAKE_PAIR | Step.REMOVE_PAIR:
            return f"the pair of network devices of {want.attachment} is not whole"
        case Step.AWAIT_PORT | Step.AWAIT_REMOVAL:
            return f"OVS port {want.vif.name} is being made again, and ovs-vswitchd has not come to it yet"
        case Step.AWAIT_WIRED:
            return f"Neutron's agent has not wired OVS port {want.vif.name} of Neutron port {want.vif.port_id}"
        case Step.SET_UP_PAIR:
            return why_not_pair(want, seen)
        case _:
            return f"podvif still has to {step.value} for {want.attachment}"
