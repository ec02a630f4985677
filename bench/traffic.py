"""Packets through ports of ours, beside packets through ports made by hand.

Law: one application holds all pairs of ports and sends through one at a time, in turn, for a fraction of a second, so that noise falls on
all.  A second pair made by hand is the control: it says how far two equal pairs lie apart on this machine.  Since a pair keeps
for its life what luck its memory had, the pairs are made anew several times, in another order.  Rules of OpenFlow lead what
one port of a pair sends to the other, the same for every pair, so that no learning of addresses is compared.
"""

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.application import Application
from bench.contenders import PODVIF
from bench.plan import MODES
from bench.raw import Port, port
from bench.rows import Row, Rows
from bench.stage import BRIDGE, Stage
from podvif.lab import programs
from podvif.lab.cni import call
from podvif.lab.process import LabError, output
from podvif.lab.testpmd import read_env

HAND = "by hand (ovs-vsctl)"
CONTROL = "by hand, again"
WARM_UP = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ports of the application.

    Attributes:
        env_file: what the application reads.
        names: of the two ports in OVS.
    """

    env_file: Path
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turns:
    """What is done with the pairs once they stand.

    Attributes:
        mode: theirs.
        whats: who they are, in the order of the application's ports.
        rounds: turns of each.
        seconds: of a turn.
    """

    mode: str
    whats: Sequence[str]
    rounds: int
    seconds: float


def measure(stage: Stage, rows: Rows, builds: int, rounds: int, seconds: float) -> None:
    """Both modes; adds rows of section traffic: million packets per second that both ports of a pair receive.

    Raises:
        LabError: no packet came.
    """
    for mode in MODES:
        for build in range(builds):
            whats = _rotated([PODVIF, HAND, CONTROL], build)
            with contextlib.ExitStack() as parts:
                pairs = {what: parts.enter_context(_pair(stage, mode, what)) for what in whats}
                _connect(stage, pairs.values())
                files = [pair.env_file for pair in pairs.values()]
                application = parts.enter_context(Application(files, stage.folder / "applications"))
                for name in (name for pair in pairs.values() for name in pair.names):
                    stage.ovs.wait_for_link(name)
                turns = Turns(mode, whats, rounds, seconds)
                _take_turns(stage, rows, application, turns)


def _take_turns(stage: Stage, rows: Rows, application: Application, turns: Turns) -> None:
    for number in range(-WARM_UP, turns.rounds):
        for what in _rotated(turns.whats, number):
            rate = application.rate(turns.whats.index(what), turns.seconds, stage.signals) / 1e6
            if number >= 0:
                if not rate:
                    raise LabError(f"no packet came through the ports of {what}, {turns.mode} mode")
                rows.take(Row("traffic", what, "Mpps", stage.maxsleep, turns.mode), rate)


def _rotated(whats: Sequence[str], number: int) -> list[str]:
    first = number % len(whats)
    return [*whats[first:], *whats[:first]]


def _pair(stage: Stage, mode: str, what: str) -> contextlib.AbstractContextManager[Pair]:
    return _ours(stage, mode) if what == PODVIF else _by_hand(stage, mode, 1 + (what == CONTROL))


@contextlib.contextmanager
def _ours(stage: Stage, mode: str) -> Iterator[Pair]:
    """Two interfaces of one container, by the shim; the application gets the pod's own file."""
    container_id, ifnames = secrets.token_hex(32), ("net1", "net2")

    def ask(verb: str, ifname: str) -> None:
        call(
            verb,
            stage.config(mode),
            container_id=container_id,
            netns=stage.box.netns,
            ifname=ifname,
            cni_path=programs.plugin_path(),
        ).checked()

    try:
        for ifname in ifnames:
            ask("ADD", ifname)
        file = stage.pods / f"{container_id}.env"
        told = read_env(file)
        yield Pair(file, tuple(Path(told[f"VHOSTUSER_{number}_SOCKET"]).name for number in (0, 1)))
    finally:
        for ifname in ifnames:
            ask("DEL", ifname)


@contextlib.contextmanager
def _by_hand(stage: Stage, mode: str, number: int) -> Iterator[Pair]:
    """Two ports as a person makes them, and the application's arguments as that person writes them."""
    ports = [port(f"vhuhand{number}{side}", mode, stage.folder) for side in "ab"]
    server = ",server=1" if mode == "server" else ""
    try:
        for each in ports:
            _add(stage, each)
        arguments = " ".join(
            f"--vdev=net_virtio_user{2 * number + end},path={_socket(stage, each)},mac={_mac()}{server},queues=1"
            for end, each in enumerate(ports)
        )
        file = stage.folder / f"by-hand-{mode}-{number}.env"
        file.write_text(f"VHOSTUSER_VDEVS='{arguments}'\n")
        yield Pair(file, tuple(each.name for each in ports))
    finally:
        for each in ports:
            stage.ovs.vsctl("--if-exists", "del-port", BRIDGE, each.name)


def _add(stage: Stage, made: Port) -> None:
    settings = [f"type={made.type}", "mtu_request=1500"]
    settings += [f"options:{key}={value}" for key, value in made.options.items()]
    stage.ovs.vsctl("add-port", BRIDGE, made.name, "--", "set", "Interface", made.name, *settings)


def _socket(stage: Stage, made: Port) -> Path:
    """Where the application finds it."""
    return Path(made.options.get("vhost-server-path", stage.ovs.rundir / made.name))


def _mac() -> str:
    """A new locally administered address."""
    return ":".join(["02", *(f"{octet:02x}" for octet in secrets.token_bytes(5))])


def _connect(stage: Stage, pairs: Iterable[Pair]) -> None:
    """Lead what comes from one port of a pair to the other."""
    interfaces = stage.ovs.interfaces()
    switch = f"unix:{stage.ovs.rundir / BRIDGE}.mgmt"
    for pair in pairs:
        one, other = (interfaces[name]["ofport"] for name in pair.names)
        for source, target in ((one, other), (other, one)):
            flow = f"in_port={source},actions=output:{target}"
            output([programs.require("ovs-ofctl", programs.OVS), "add-flow", switch, flow])
