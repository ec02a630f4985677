"""What may happen at a step of the walk: a table of actions, each with how often it is taken and what it can be done to.

Law: a step is a name and numbers, so that a history can be printed, and walked again with some of its steps left out.  An
action lists what it can be done to now; a step that is not on that list any more is passed over.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from podvif import names
from tests.chaos.model import Interface, Pod, State
from tests.chaos.quiet import make_quiet
from tests.chaos.world import World
from tests.chaos.zygote import TRYING

Argument = int | str | bool
Arguments = tuple[Argument, ...]


@dataclass(frozen=True)
class Step:
    """One step of a history."""

    name: str
    arguments: Arguments = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Action:
    """One kind of step.

    Attributes:
        weight: how often it is taken, beside the others that are possible.
        possible: what it can be done to now.
        do: do it.
        sweeps: it leaves something without an owner, so that only a daemon with quick rounds can mend it.
    """

    weight: float
    possible: Callable[[World], Iterable[Arguments]]
    do: Callable[..., None]
    sweeps: bool = False


def _interfaces(world: World, *states: State) -> Iterator[tuple[int, int, Pod, Interface]]:
    for number, pod in enumerate(world.pods):
        for index, interface in enumerate(pod.interfaces):
            if interface.state in states:
                yield number, index, pod, interface


def _here(world: World, number: int, index: int) -> tuple[Pod, Interface]:
    pod = world.pods[number]
    return pod, pod.interfaces[index]


# -- verbs ---------------------------------------------------------------------------------------------------------------


def _addable(world: World) -> Iterator[Arguments]:
    waits = world.up != {"daemon", "vswitchd", "ovsdb"} and "daemon" in world.up
    for number, index, _, interface in _interfaces(world, State.ABSENT):
        if interface.quiet:
            for mode in ("server", "client"):
                for ipam in (True, False):
                    yield from (
                        (number, index, mode, ipam, background) for background in ((True,) if waits else (True, False))
                    )


def _add(world: World, *arguments: Argument) -> None:
    number, index, mode, ipam, background = arguments
    pod, interface = _here(world, int(number), int(index))
    if pod.box is None:
        pod.box = world.make_box()
    interface.config = world.network(str(mode), ipam=bool(ipam))
    call = world.begin("ADD", pod, interface)
    if not background:
        world.conclude(interface, call)


def _standing(world: World) -> Iterator[Arguments]:
    return ((number, index) for number, index, _, each in _interfaces(world, State.PRESENT) if each.quiet)


def _calm(world: World) -> bool:
    return world.up == {"daemon", "vswitchd", "ovsdb"}


def _repeat_add(world: World, number: int, index: int) -> None:
    pod, interface = _here(world, number, index)
    call = world.begin("ADD", pod, interface)
    if _calm(world):
        world.conclude(interface, call)


def _deletable(world: World) -> Iterator[Arguments]:
    for number, index, pod, interface in _interfaces(world, State.PRESENT, State.UNSURE, State.ABSENT):
        if pod.box is not None and interface.config:
            yield number, index, True
            if interface.quiet:
                yield number, index, False


def _del(world: World, number: int, index: int, background: bool) -> None:  # noqa: FBT001  a step's arguments are positions
    pod, interface = _here(world, number, index)
    # A container ends before its sandbox; where it is not waited for, nobody may come to listen behind DEL's back.
    last = not background and world.applications.state(interface.number) != TRYING
    if not last:
        world.applications.kill(interface.number)
    call = world.begin("DEL", pod, interface)
    if not background:
        world.conclude(interface, call)
    world.applications.kill(interface.number)


def _check(world: World, number: int, index: int) -> None:
    pod, interface = _here(world, number, index)
    process = world.shim("CHECK", {**interface.config, "prevResult": interface.result}, pod, interface.ifname)
    world.answer(process, f"CHECK of {interface.ifname}")


def _collectable(world: World) -> Iterator[Arguments]:
    return _standing(world) if _calm(world) else iter(())


def _gc(world: World, number: int, index: int) -> None:
    pod, interface = _here(world, number, index)
    world.applications.kill(interface.number)
    valid = [
        {"containerID": other.box.container_id, "ifname": each.ifname}
        for other, each in world.valid()
        if each is not interface and other.box is not None
    ]
    config = {**world.network("server", ipam=False), "cni.dev/valid-attachments": valid}
    code, _, _ = world.answer(world.shim("GC", config, None, ""), "GC")
    del pod
    interface.state = State.UNSURE if code else State.ABSENT


def _joinable(world: World) -> Iterator[Arguments]:
    busy = any(interface.calls for pod in world.pods for interface in pod.interfaces)
    return iter([()] if busy and _calm(world) else [])


def _retirable(world: World) -> Iterator[Arguments]:
    return ((number,) for number, pod in enumerate(world.pods) if pod.box is not None and pod.idle)


def _retire(world: World, number: int) -> None:
    pod = world.pods[number]
    assert pod.box is not None
    world.remove_box(pod.box)
    world.empty(pod)


def _vanishable(world: World) -> Iterator[Arguments]:
    for number, pod in enumerate(world.pods):
        if pod.box is not None and not pod.idle and all(each.quiet for each in pod.interfaces):
            yield (number,)


def _vanish(world: World, number: int) -> None:
    world.vanish(world.pods[number])


# -- applications --------------------------------------------------------------------------------------------------------


def _startable(world: World) -> Iterator[Arguments]:
    for number, index, _, interface in _interfaces(world, State.PRESENT):
        if interface.quiet and interface.number not in world.applications.running:
            yield number, index


def start_application(world: World, number: int, index: int) -> None:
    """Start the application of an interface."""
    pod, interface = _here(world, number, index)
    assert pod.box is not None
    path = world.pods_folder / pod.port(interface)
    world.applications.start(interface.number, interface.mode, pod.box.netns, path)


def _running(world: World) -> Iterator[Arguments]:
    for number, index, _, interface in _interfaces(world, State.PRESENT, State.UNSURE):
        if interface.number in world.applications.running:
            yield number, index


def _kill_application(world: World, number: int, index: int) -> None:
    world.applications.kill(_here(world, number, index)[1].number)


def _restart_application(world: World, number: int, index: int) -> None:
    _kill_application(world, number, index)
    if _here(world, number, index)[1].state is State.PRESENT:
        start_application(world, number, index)


# -- files and ports -----------------------------------------------------------------------------------------------------


def _remove_socket(world: World, number: int, index: int) -> None:
    pod, interface = _here(world, number, index)
    (world.pods_folder / pod.port(interface)).unlink(missing_ok=True)
    if interface.mode == "server":
        world.applications.kill(interface.number)  # who removes what he listens on does not listen any more


def _unmoved(world: World) -> Iterator[Arguments]:
    for number, index, pod, interface in _interfaces(world, State.PRESENT):
        if interface.quiet and interface.mode == "client" and (world.sockets / pod.port(interface)).exists():
            yield number, index


def _remove_unmoved(world: World, number: int, index: int) -> None:
    pod, interface = _here(world, number, index)
    (world.sockets / pod.port(interface)).unlink(missing_ok=True)


def _files_of(world: World) -> Iterator[Arguments]:
    for number, index in _standing(world):
        for kind in ("json", "env", "interface"):
            yield number, index, kind


def _file(world: World, number: int, index: int, kind: str) -> Path:
    pod, interface = _here(world, number, index)
    attachment = pod.attachment(interface)
    found = {
        "json": names.sandbox_json(attachment.container_id),
        "env": names.sandbox_env(attachment.container_id),
        "interface": names.attachment_file(attachment),
    }
    return world.pods_folder / found[kind]


def _remove_file(world: World, number: int, index: int, kind: str) -> None:
    _file(world, number, index, kind).unlink(missing_ok=True)


def _spoil_file(world: World, number: int, index: int, kind: str) -> None:
    world.spoil(_file(world, number, index, kind))


def _garbage(world: World) -> Iterator[Arguments]:
    del world
    return ((kind,) for kind in ("json", "env", "interface", "temporary", "socket", "alien"))


def _with_ovsdb(world: World) -> Iterator[Arguments]:
    return _standing(world) if "ovsdb" in world.up else iter(())


def _del_port(world: World, number: int, index: int) -> None:
    pod, interface = _here(world, number, index)
    world.ovs.vsctl("--no-wait", "--if-exists", "del-port", pod.port(interface))


# -- what holds everything -----------------------------------------------------------------------------------------------


def _endable(world: World) -> Iterator[Arguments]:
    for part in sorted(world.up):
        yield part, True
        yield part, False


def _end(world: World, part: str, nicely: bool) -> None:  # noqa: FBT001  as above
    world.end(part, nicely=nicely)


def _down(world: World) -> Iterator[Arguments]:
    for part in ("ovsdb", "vswitchd", "daemon"):
        if part not in world.up and (part != "vswitchd" or ("ovsdb" in world.up and world.way_is_clear())):
            yield (part,)


def _start(world: World, part: str) -> None:
    world.start(part)


def _fillable(world: World) -> Iterator[Arguments]:
    return ((disk,) for disk in sorted({"run", "state"} - world.full))


def _always(world: World) -> Iterator[Arguments]:
    del world
    return iter([()])


def _quiet(_world: World) -> Iterator[Arguments]:
    return iter([(True,), (False,)])


ACTIONS: dict[str, Action] = {
    "add": Action(16, _addable, _add),
    "repeat_add": Action(3, _standing, _repeat_add),
    "del": Action(12, _deletable, _del),
    "check": Action(12, _standing, _check),
    "gc": Action(1, _collectable, _gc),
    "join": Action(4, _joinable, lambda world: world.join()),
    "retire": Action(3, _retirable, _retire),
    "vanish": Action(1.5, _vanishable, _vanish, sweeps=True),
    "start_application": Action(12, _startable, start_application),
    "kill_application": Action(5, _running, _kill_application),
    "restart_application": Action(6, _running, _restart_application),
    "remove_socket": Action(3, _standing, _remove_socket),
    "remove_unmoved": Action(3, _unmoved, _remove_unmoved),
    "remove_file": Action(4, _files_of, _remove_file),
    "spoil_file": Action(3, _files_of, _spoil_file),
    "garbage": Action(3, _garbage, lambda world, kind: world.garbage(kind), sweeps=True),
    "del_port": Action(3, _with_ovsdb, _del_port),
    "orphan_port": Action(
        1, lambda world: [()] if "ovsdb" in world.up else [], lambda world: world.orphan_port(), sweeps=True
    ),
    "end": Action(2.5, _endable, _end),
    "start": Action(12, _down, _start),
    "fill": Action(0.7, _fillable, lambda world, disk: world.fill(disk)),
    "free": Action(4, lambda world: [(disk,) for disk in sorted(world.full)], lambda world, disk: world.free(disk)),
    "reboot": Action(0.3, _always, lambda world: world.reboot(), sweeps=True),
    "quiet": Action(0, _quiet, make_quiet),
}
"""All that can happen.  The walk itself takes `quiet`, every so many steps."""
