"""Objects become values."""

import pytest

from podvif.errors import Refused
from podvif.kube.convert import parse_nad, parse_pod, parse_podvif, render
from podvif.model import Address, ClusterPod, Nad
from podvif.podvifs import Condition, Interface, InterfaceState, Spec, Status, WantedInterface

UUID = "0b6f1a64-5b0e-4a52-9d3c-0123456789ab"
META = {"namespace": "ns", "name": "p1", "uid": "u1", "resourceVersion": "7", "labels": {"a": "b"}}


def test_pod() -> None:
    """A pod that runs: what podvif needs of it, and only the hostPath volumes that a container of any kind mounts."""
    volumes = [
        {"name": "sockets", "hostPath": {"path": "/var/run/vhostuser"}},
        {"name": "early", "hostPath": {"path": "/early"}},
        {"name": "nobody's", "hostPath": {"path": "/nobody"}},
        {"name": "empty", "emptyDir": {}},
    ]
    spec = {
        "nodeName": "n1",
        "volumes": volumes,
        "containers": [{"name": "app", "volumeMounts": [{"name": "sockets"}, {"name": "empty"}]}, {"name": "side"}],
        "initContainers": [{"name": "init", "volumeMounts": [{"name": "early"}]}],
    }
    pod = parse_pod({"metadata": META | {"annotations": {"k": "v"}}, "spec": spec, "status": {"phase": "Running"}})
    assert pod == ClusterPod(
        "ns", "p1", "u1", "n1", annotations={"k": "v"}, host_paths=("/var/run/vhostuser", "/early")
    )


def test_pod_without_anything() -> None:
    """A pod that has just been made has no node, no annotation and no volume."""
    assert parse_pod({"metadata": META, "spec": {"containers": [{"name": "app"}]}}) == ClusterPod("ns", "p1", "u1")


@pytest.mark.parametrize(("phase", "finished"), [("Pending", False), ("Succeeded", True), ("Failed", True)])
def test_pod_ends(phase: str, finished: bool) -> None:  # noqa: FBT001  a table
    """A pod is finished by its phase, and deleting by its mark."""
    metadata = META | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    pod = parse_pod({"metadata": metadata, "spec": {"hostNetwork": True}, "status": {"phase": phase}})
    assert (pod.finished, pod.deleting, pod.host_network) == (finished, True, True)


def test_nad() -> None:
    """A NAD's configuration is the text that stands there; one without spec has none."""
    assert parse_nad({"metadata": META, "spec": {"config": "{"}}) == Nad("ns", "p1", config="{")
    assert parse_nad({"metadata": META | {"annotations": {"a": "b"}}}) == Nad("ns", "p1", {"a": "b"})


def test_podvif() -> None:
    """What is rendered of a PodVif is what is read of it."""
    spec = Spec("n1", "u9", (WantedInterface("eth0", subnet_id=UUID), WantedInterface("net1", delegated=True)), ("/a",))
    interface = Interface(
        "eth0", InterfaceState.BOUND, UUID, "fa:16:3e:00:00:01", 1450, (Address("10.0.0.5/24", "10.0.0.1"),)
    )
    status = Status((interface,), (Condition("Bound", "True", "Bound"),))
    metadata = META | {"generation": 1, "finalizers": ["podvif.io/ports"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    vif = parse_podvif({"metadata": metadata, "spec": render(spec), "status": render(status)})
    assert (vif.spec, vif.status, vif.resource_version) == (spec, status, "7")
    assert (vif.finalizers, vif.deleting, vif.uid, vif.generation) == (("podvif.io/ports",), True, "u1", 1)


def test_unreadable_podvif() -> None:
    """A PodVif that is not as the CRD has it is refused with its name and the field."""
    with pytest.raises(Refused, match=r"ns/p1: spec cannot be read: .*nodeName"):
        parse_podvif({"metadata": META, "spec": {"nodeName": 1, "podUID": "u"}})
