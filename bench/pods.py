"""Pods that are created at once in a cluster: how long their sandboxes take, beside the same with the reference bridge plugin.

Law: a sandbox takes as long as kubelet waits for it: from the entry of the runtime's call RunPodSandbox to its return, as
containerd's own log has both with nanoseconds.  Kubelet's metric of the same call is a histogram, whose buckets double, and a
pod's conditions have whole seconds.  All contenders stand on one node, one after the other and then the other way round; each
turn begins with a pod that is not counted, by which it is seen that the runtime has taken the contender's network.  What
Multus adds is in the floor of what goes through Multus.  `python -m bench.pods` runs this part alone.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.rows import Row, Rows
from podvif.lab import image, ovs
from podvif.lab.hugepages import hugepages
from podvif.lab.node import DpdkNode, podvif_on, switch_of
from podvif.lab.onenode import OneNode, bridge, why_not_here
from podvif.lab.process import LabError
from podvif.lab.signals import Signals

Document = dict[str, Any]

_SOON = 60.0
_LOOK_AGAIN = 0.2
_CALL = re.compile(
    r'time="(?P<time>[^"]+)" level=\w+ msg="RunPod[sS]andbox for &PodSandboxMetadata\{Name:(?P<pod>[^,]+),.*?\}'
    r"(?P<end> returns sandbox id| failed)?"
)
"""A line of containerd's log, at the beginning of the call or at its end."""


@dataclass(frozen=True, slots=True)
class Contender:
    """What pods get.

    Attributes:
        what: as tables call it.
        floor: with which of the others it is compared; empty for a floor.
        main: the main network, a conflist with a name of its own; Multus is in charge of it where pods ask for networks.
        networks: what pods ask for beside it.
    """

    what: str
    floor: str
    main: Mapping[str, Any]
    networks: str = ""


def _addresses(third: int) -> Document:
    return {"type": "host-local", "ranges": [[{"subnet": f"10.79.{third}.0/24"}]]}


def _podvif(third: int, **keys: Any) -> Document:
    return {"type": "podvif-cni", "bridge": "br-dpdk", "ipam": _addresses(third), **keys}


def _alone(name: str, plugin: Document) -> Document:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}


BRIDGE, TWICE = "bridge", "bridge, and a bridge by Multus"
CONTENDERS = (
    Contender(BRIDGE, "", bridge() | {"name": "plain"}),
    Contender("podvif, a kernel port", BRIDGE, _alone("kernel", _podvif(1, portType="veth"))),
    Contender("podvif, vhost-user in mode client", BRIDGE, _alone("socket", _podvif(2, vhostuserMode="client"))),
    Contender(TWICE, "", bridge(), "second"),
    Contender("bridge, and podvif in mode client by Multus", TWICE, bridge(), "dpdk"),
)
NETWORKS = {
    "second": {"type": "bridge", "bridge": "cni1", "ipam": _addresses(3)},
    "dpdk": _podvif(4, vhostuserMode="client"),
}
"""What pods may ask for: the plugin's configuration by the name of a NetworkAttachmentDefinition."""


def _definition(name: str) -> Document:
    config = json.dumps({"cniVersion": "1.0.0", "name": name, **NETWORKS[name]})
    about = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    return about | {"metadata": {"name": name}, "spec": {"config": config}}


def _pod(name: str, networks: str) -> Document:
    """The least that kubelet runs: its one container sleeps."""
    container = {"name": "app", "image": image.PAUSE, "imagePullPolicy": "Never"}
    annotations = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
    spec = {"dnsPolicy": "Default", "automountServiceAccountToken": False, "containers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {**spec, "terminationGracePeriodSeconds": 1},
    }


class Storms:
    """Pods that come at once, and go."""

    def __init__(self, node: DpdkNode) -> None:
        self._node = node
        self._cluster = node.cluster
        self._log = node.machine.folder / "containerd.log"
        self._results = node.machine.path("/var/lib/cni") / "results"
        self._made = 0
        for name in NETWORKS:
            self._cluster.apply(_definition(name))

    def prepare(self, contender: Contender) -> None:
        """Have the runtime use a contender's network, as a pod shows that is gone afterwards.

        Raises:
            LabError: it does not.
        """
        multus = bool(contender.networks)
        self._cluster.put_network(contender.main, multus=multus)
        name = "multus" if multus else contender.main["name"]
        deadline = time.monotonic() + _SOON
        while time.monotonic() < deadline:
            (pod,) = self._make(contender, 1)
            sandbox = self._cluster.runtime.sandbox_of("default", pod)
            taken = (self._results / f"{name}-{sandbox}-eth0").exists()
            self._delete([pod])
            if taken:
                return
        raise LabError(f"containerd has not taken network {name} within {_SOON:g} s; look at {self._log}")

    def storm(self, contender: Contender, pods: int) -> tuple[list[float], float]:
        """Make pods at once: the seconds of each sandbox, and of all from the first call to the last return; they are gone then.

        Raises:
            LabError: a sandbox failed, or pods did not become ready.
        """
        names = self._make(contender, pods)
        calls = self._calls(names)
        self._delete(names)
        took = [ended - began for began, ended in calls]
        return took, max(ended for _, ended in calls) - min(began for began, _ in calls)

    def _make(self, contender: Contender, pods: int) -> list[str]:
        names = [f"p{self._made + number}" for number in range(pods)]
        self._made += pods
        items = [_pod(name, contender.networks) for name in names]
        self._cluster.apply({"apiVersion": "v1", "kind": "List", "items": items})
        self._cluster.wait_ready(*names, timeout=180)
        return names

    def _delete(self, names: Sequence[str]) -> None:
        self._cluster.delete(*names, timeout=180)
        deadline = time.monotonic() + _SOON
        while (
            left := self._node.left()
        ):  # a sandbox that has ended stays with containerd until kubelet's next look, in a minute
            if time.monotonic() > deadline:
                raise LabError(f"pods are gone and this stands: {', '.join(left[:5])}")
            time.sleep(_LOOK_AGAIN)

    def _calls(self, names: Iterable[str]) -> list[tuple[float, float]]:
        """When each pod's call began and ended, by containerd's clock."""
        times: dict[str, list[float]] = {name: [] for name in names}
        for line in self._log.read_text(errors="replace").splitlines():
            found = _CALL.search(line)
            if found is None or found["pod"] not in times:
                continue
            if found["end"] == " failed":
                raise LabError(f"a sandbox failed: {line}")
            times[found["pod"]].append(datetime.fromisoformat(found["time"]).timestamp())
        if strange := [name for name, moments in times.items() if len(moments) != 2]:
            raise LabError(f"{self._log} does not have one beginning and one end of RunPodSandbox for {strange[0]}")
        return [(began, ended) for began, ended in times.values()]


def measure(rows: Rows, folder: Path, pods: int, turns: int, namespaces: list[str], *, signals: Signals) -> None:
    """Adds rows of section pods, and the name of the machine's network namespace as soon as there is one.

    Raises:
        LabError: a part is missing or did not do what it should.
        Interrupted: by a signal.
    """
    if reason := why_not_here():
        raise LabError(reason)
    with (
        hugepages(ovs.PAGES),
        OneNode(folder, network=bridge(), multus=True) as cluster,
        switch_of(cluster.machine) as switch,
        podvif_on(cluster, switch) as node,
    ):
        namespaces.append(cluster.machine.box.name)
        storms = Storms(node)
        for turn in range(turns):
            for contender in CONTENDERS if turn % 2 == 0 else reversed(CONTENDERS):
                signals.check()
                storms.prepare(contender)
                sandboxes, all_of_them = storms.storm(contender, pods)
                for seconds in sandboxes:
                    rows.take(Row("pods", contender.what, "s", standing=pods), seconds)
                rows.take(Row("pods", contender.what, "s for all", standing=pods), all_of_them)


def floor_of(row: Row, rows: Rows) -> Row | None:
    """What a row is compared with."""
    floor = next(contender.floor for contender in CONTENDERS if contender.what == row.what)
    return rows.one("pods", what=floor, unit=row.unit, standing=row.standing)


def main() -> None:
    """This part alone: pods and turns may be given."""
    given = sys.argv[1:3]
    pods, turns = (int(argument) for argument in [*given, *("30", "2")[len(given) :]])
    rows, signals = Rows(), Signals()
    with signals.taken(), tempfile.TemporaryDirectory(prefix="podvif-bench-") as folder:
        try:
            measure(rows, Path(folder), pods, turns, [], signals=signals)
        except LabError as error:
            sys.exit(f"not measured: {error}")
    for row in rows.of("pods"):
        found, floor = row.spread, floor_of(row, rows)
        ratios = f", x floor {found.p50 / floor.spread.p50:.2f} and {found.p99 / floor.spread.p99:.2f}" if floor else ""
        print(f"{row.what}, {row.standing}: {found.n} x p50 {found.p50:.2f}, p99 {found.p99:.2f} {row.unit}{ratios}")


if __name__ == "__main__":
    main()
