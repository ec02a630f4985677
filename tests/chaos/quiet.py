"""Quiet points: everything runs again, nobody is asked anything, and the world has to come to be as the model says.

Law: what should be is waited for, with a deadline, because recovery takes its time; what must never be, a foreign port
touched or a text seen in part, is a fault at once.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

from podvif.host import files
from podvif.lab.ovs_client import Row
from podvif.lab.testpmd import Testpmd
from podvif.model import SocketFile
from tests.chaos.model import FaultError, Interface, Pod, State
from tests.chaos.world import World
from tests.chaos.zygote import CONNECTED

_LOOK = 0.05
PACKETS = 100

_TRACEBACK = re.compile(r"Traceback.*(\n.*){1,30}")

Standing = list[tuple[Pod, Interface]]


def make_quiet(world: World, traffic: bool) -> None:  # noqa: FBT001  a step's arguments are positions
    """Bring everything back, wait until all is as it should be, and prove it.

    Raises:
        FaultError: it is not.
    """
    for disk in sorted(world.full):
        world.free(disk)
    order = ("ovsdb", "vswitchd", "daemon") if world.way_is_clear() else ("ovsdb", "daemon", "vswitchd")
    for part in order:
        if part not in world.up:
            world.start(part)
    world.join()
    for pod in world.pods:
        for interface in pod.interfaces:
            if interface.state is State.UNSURE:
                _delete(world, pod, interface)
    standing = [
        (pod, interface) for pod in world.pods for interface in pod.interfaces if interface.state is State.PRESENT
    ]
    for pod, interface in standing:
        assert pod.box is not None
        if interface.number not in world.applications.running:
            path = world.pods_folder / pod.port(interface)
            world.applications.start(interface.number, interface.mode, pod.box.netns, path)
    _await_right(world, standing)
    _watched(world)
    if traffic and world.up:
        _prove_traffic(world, standing)
        _await_right(world, standing)
        _watched(world)
    world.ghosts.clear()
    if found := _TRACEBACK.search(world.daemon.log.read_text(errors="replace")):
        raise FaultError(f"the daemon's log has a traceback:\n{found[0]}")


def _delete(world: World, pod: Pod, interface: Interface) -> None:
    world.applications.kill(interface.number)
    deadline = time.monotonic() + world.patience
    while True:
        code, _, text = world.answer(world.shim("DEL", interface.config, pod, interface.ifname), "DEL")
        if not code:
            interface.state = State.ABSENT
            return
        if time.monotonic() > deadline:
            raise FaultError(f"DEL at a quiet point fails: {text}")
        time.sleep(_LOOK)


def _await_right(world: World, standing: Standing) -> None:
    deadline = time.monotonic() + world.patience
    while True:
        world.check_alive()
        late = time.monotonic() > deadline
        wrong = list(_wrong(world, standing)) or list(_failing(world, standing))
        if not wrong:
            return
        if late:
            raise FaultError(f"not within {world.patience:g} s of quiet:\n" + "\n".join(f"  {each}" for each in wrong))
        time.sleep(_LOOK)


def _watched(world: World) -> None:
    assert world.watch is not None
    if seen := world.watch.violations([Path(vm.path) for vm in world.foreign]):
        raise FaultError("\n".join(seen))


def _failing(world: World, standing: Standing) -> Iterator[str]:
    for pod, interface in standing:
        config = {**interface.config, "prevResult": interface.result}
        code, _, text = world.answer(world.shim("CHECK", config, pod, interface.ifname), "CHECK")
        if code:
            yield f"CHECK of {pod.port(interface)} ({interface.mode}): {text}"


def _wrong(world: World, standing: Standing) -> Iterator[str]:
    rows = world.ovs.interfaces()
    namespace = f"/proc/{world.ovs.vswitchd_pid}/ns/net"
    yield from _wrong_ports(world, standing, rows)
    for pod, interface in standing:
        yield from _wrong_interface(world, pod, interface, rows.get(pod.port(interface)), namespace)
    yield from _wrong_files(world, standing)
    for vm in world.foreign:
        if vm.number is not None and world.applications.state(vm.number) != CONNECTED:
            yield f"the VM at {vm.path} is not connected"


def _wrong_ports(world: World, standing: Standing, rows: dict[str, Row]) -> Iterator[str]:
    foreign = {vm.port for vm in world.foreign}
    wanted = foreign | {pod.port(interface) for pod, interface in standing}
    there = {name for name in rows if name.startswith("vhu")}
    yield from (f"OVS port {name} is missing" for name in sorted(wanted - there))
    yield from (f"OVS port {name} is left behind" for name in sorted(there - wanted))
    yield from (
        f"the foreign OVS port {name} has become {rows[name]}"
        for name in sorted(foreign & there)
        if set(rows[name]["external_ids"]) != {"iface-id", "vm-uuid"}
    )


def _wrong_interface(world: World, pod: Pod, interface: Interface, row: Row | None, namespace: str) -> Iterator[str]:
    port = pod.port(interface)
    what = f"{port} ({interface.mode})"
    assert pod.box is not None
    if row is not None and (row["error"] or row["ofport"] in {None, -1}):
        yield f"OVS port {what}: ofport {row['ofport']}, error {row['error']}"
    looker = namespace if interface.mode == "client" else str(pod.box.netns)
    seen = files.look_at_socket(str(world.pods_folder / port), [looker])
    if seen is not SocketFile.BOUND:
        yield f"socket {what} is {seen.value}"
    if world.applications.state(interface.number) != CONNECTED:
        yield f"the application of {what} is not connected"


def _wrong_files(world: World, standing: Standing) -> Iterator[str]:
    wanted = {"pods": set(world.alien), "ovs": set(), "journal": set()}
    addresses = set()
    for vm in world.foreign:
        wanted["pods" if Path(vm.path).parent == world.pods_folder else "ovs"].add(vm.port)
    for pod, interface in standing:
        container, ifname = pod.attachment(interface).container_id, interface.ifname
        wanted["pods"] |= {f"{container}.json", f"{container}.env", f"{container}-{ifname}", pod.port(interface)}
        wanted["journal"].add(f"{container}:{ifname}.attached.json")
        addresses |= {ip["address"].partition("/")[0] for ip in interface.result.get("ips", [])}
        yield from _wrong_texts(world, pod, interface)
    folders = {"pods": world.pods_folder, "ovs": world.sockets, "journal": world.daemon.journal}
    for where, folder in folders.items():
        there = {path.name for path in folder.iterdir()}
        yield from (f"{folder}/{name} is missing" for name in sorted(wanted[where] - there))
        yield from (f"{folder}/{name} is left behind" for name in sorted(there - wanted[where]))
    held = {path.name for path in world.leases.glob("chaos/10.*")}
    yield from (f"lease {each} is lost" for each in sorted(addresses - held))
    yield from (f"lease {each} is left behind" for each in sorted(held - addresses))


def _wrong_texts(world: World, pod: Pod, interface: Interface) -> Iterator[str]:
    attachment = pod.attachment(interface)
    try:
        document = json.loads((world.pods_folder / f"{attachment.container_id}.json").read_text())
        sockets = {each["ifname"]: each["socket"] for each in document["interfaces"]}
    except (OSError, ValueError) as error:
        yield f"files of {attachment}: {error}"
        return
    wanted = {
        each.ifname: str(world.pods_folder / pod.port(each)) for each in pod.interfaces if each.state is State.PRESENT
    }
    if sockets != wanted:
        yield f"{attachment.container_id}.json says {sockets}, not {wanted}"


def _prove_traffic(world: World, standing: Standing) -> None:
    """Real applications in place of two light ones: what one sends has to arrive at the other."""
    by_pod = {id(pod): (pod, interface) for pod, interface in standing}
    pair = list(by_pod.values())[-2:]
    if len(pair) < 2:
        return
    for _, interface in pair:
        world.applications.kill(interface.number)
    _await_free(world, pair)
    (sender_pod, sender), (receiver_pod, receiver) = pair
    with (
        _testpmd(world, receiver_pod, receiver) as arriving,
        _testpmd(world, sender_pod, sender, to=str(receiver.result["interfaces"][-1]["mac"])),
    ):
        arriving.wait_for_rx(world.patience, packets=PACKETS)
    world.proofs += 1
    _await_free(world, pair)
    for pod, interface in pair:
        assert pod.box is not None
        path = world.pods_folder / pod.port(interface)
        world.applications.start(interface.number, interface.mode, pod.box.netns, path)


def _await_free(world: World, pair: Standing) -> None:
    """Wait until an application that listens can begin: the socket of the last one has been removed."""
    deadline = time.monotonic() + world.patience
    for pod, interface in pair:
        path = world.pods_folder / pod.port(interface)
        while interface.mode == "server" and path.exists():
            if time.monotonic() > deadline:
                raise FaultError(f"{path}, whose application was killed, is still there after {world.patience:g} s")
            time.sleep(_LOOK)


def _testpmd(world: World, pod: Pod, interface: Interface, to: str = "") -> Testpmd:
    assert pod.box is not None
    container = pod.box.container_id
    document = json.loads((world.pods_folder / f"{container}.json").read_text())
    index = [each["ifname"] for each in document["interfaces"]].index(interface.ifname)
    return Testpmd(
        world.pods_folder / f"{container}.env",
        world.folder / "testpmd",
        netns=pod.box.name,
        forward="txonly" if to else "rxonly",
        eth_peer=to,
        interface=index,
    )
