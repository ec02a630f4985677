"""The controller and Neutron's agent as a node meets them: PodVifs that are made and bound, OVS ports that are wired.

Law: they write what the real ones write, with their own field manager, through whatever API server they are given.
"""

from typing import Any

import msgspec

from podvif import names
from podvif.kube.client import Kube, Outcome
from podvif.kube.convert import parse_podvif, render
from podvif.kube.resources import PODS, PODVIFS, Document, Key
from podvif.model import Address
from podvif.podvifs import NODE_LABEL, Condition, Interface, InterfaceState, PodVif, Spec, WantedInterface
from tests.fakes.cluster import DETAILS, NODE, UID
from tests.fakes.kube import FakeKube
from tests.fakes.switch import FakeSwitch

CONTROLLER = "podvif-controller"
_PORTS = "000000"
"""How the UUIDs begin that are Neutron ports here."""

CLIENT = DETAILS | {"vhostuser_mode": "client"}
OVN = {key: value for key, value in DETAILS.items() if key != "bound_drivers"} | {"connectivity": "l2"}


def port_id(number: int) -> str:
    """A Neutron port's UUID."""
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def bound(name: str = "eth0", number: int = 1, **changes: Any) -> Interface:
    """An interface that is bound: what the controller writes of Neutron's port."""
    facts: dict[str, Any] = {
        "port_id": port_id(number),
        "mac": f"fa:16:3e:00:00:{number:02x}",
        "mtu": 1442,
        "ips": (Address(f"10.10.1.{number}/24", "10.10.1.1"),),
        "vif_type": "vhostuser",
        "vif_details": DETAILS,
    }
    return Interface(name=name, state=InterfaceState.BOUND, **facts | changes)


class Controller:
    """Plays the controller for the pods of a namespace.

    Args:
        api: where it writes.
        namespace: of the pods.
        host_paths: what the pods mount from the host; the node's directory of sockets, or they get no socket.
        main: name of the pods' main interface.
    """

    def __init__(self, api: FakeKube | Kube, namespace: str, *host_paths: str, main: str = "eth0") -> None:
        self.api = api
        self._main = main
        self.namespace = namespace
        self._host_paths = host_paths

    def key(self, pod: str = "p") -> Key:
        return Key(self.namespace, pod)

    async def pod(self, pod: str = "p", node: str = NODE) -> str:
        """Make a pod, scheduled; its UID."""
        volumes = [{"name": f"v{number}", "hostPath": {"path": path}} for number, path in enumerate(self._host_paths)]
        mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
        container = {"name": "c", "image": "i", "volumeMounts": mounts}
        spec = {"nodeName": node, "containers": [container], "volumes": volumes}
        made = await self.api.create(
            PODS, {"metadata": {"namespace": self.namespace, "name": pod}, "spec": spec}, "kubelet"
        )
        assert not isinstance(made, Outcome), made
        return str(made["metadata"]["uid"])

    async def make(
        self, *wanted: WantedInterface, pod: str = "p", uid: str = UID, node: str = NODE, **spec: Any
    ) -> None:
        """Make the PodVif; nothing is bound."""
        asked = Spec(node, uid, wanted or (WantedInterface(name=self._main),), self._host_paths, **spec)
        labels = {NODE_LABEL: names.node_label(node)}
        metadata = {"namespace": self.namespace, "name": pod, "labels": labels}
        made = await self.api.create(PODVIFS, {"metadata": metadata, "spec": render(asked)}, CONTROLLER)
        assert not isinstance(made, Outcome), made

    async def bind(self, *interfaces: Interface, pod: str = "p") -> None:
        """Write that all interfaces are bound."""
        await self._status(pod, interfaces or (bound(self._main),), Condition("Bound", "True", "PortsBound"))

    async def fail(self, message: str, *interfaces: Interface, pod: str = "p") -> None:
        """Write that the pod is not bound, and why."""
        await self._status(pod, interfaces, Condition("Bound", "False", "BindingFailed", message))

    async def _status(self, pod: str, interfaces: tuple[Interface, ...], condition: Condition) -> None:
        stamped = msgspec.structs.replace(condition, last_transition_time="2026-11-24T00:00:00Z")
        status = {"interfaces": [render(each) for each in interfaces], "conditions": [render(stamped)]}
        written = await self.api.apply(PODVIFS, self.key(pod), {"status": status}, CONTROLLER, status=True)
        assert not isinstance(written, Outcome), written

    async def delete(self, pod: str = "p") -> None:
        """The pod has ended, and with it its PodVif."""
        await self.api.delete(PODVIFS, self.key(pod))

    async def podvif(self, pod: str = "p") -> PodVif:
        """As it is now."""
        document = await self.api.get(PODVIFS, self.key(pod))
        assert document is not None
        return parse_podvif(document)

    async def annotations(self, pod: str = "p") -> dict[str, str]:
        """The pod's."""
        document: Document | None = await self.api.get(PODS, self.key(pod))
        assert document is not None
        found: dict[str, str] = document["metadata"].get("annotations") or {}
        return found


class Agent:
    """Plays neutron-openvswitch-agent on a fake switch: a port that comes gets a tag.

    Attributes:
        works: whether it does.
    """

    def __init__(self, switch: FakeSwitch) -> None:
        self.works = True
        self._switch = switch
        switch.on_ports(self._changed)

    def _changed(self, ports: frozenset[str]) -> None:
        for name in sorted(ports) if self.works else ():
            self.wire(name)

    def wire(self, name: str, tag: int = 5) -> None:
        """Give a port its tag."""
        port = self._switch.port(name)
        neutrons = port is not None and port.external_ids.get("iface-id", "").startswith(_PORTS)
        if port is not None and neutrons and port.ofport and port.tag in {None, names.DEAD_VLAN}:
            self._switch.add_port(msgspec.structs.replace(port, tag=tag))
