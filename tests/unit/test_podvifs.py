"""The custom resource's form on the wire."""

import msgspec
import pytest

from podvif.podvifs import Interface, InterfaceState, Spec, Status, WantedInterface

UID = "0f3c2a6e-52f1-4d0b-9a55-3f8f0c1d2e3f"


def test_keys_are_written_as_kubernetes_writes_them() -> None:
    """Keys are camel case, podUID as in the rest of Kubernetes, and what is not said is left out."""
    spec = Spec(node_name="n1", pod_uid=UID, interfaces=(WantedInterface(name="eth0"),))

    written = msgspec.json.decode(msgspec.json.encode(spec))

    assert written == {"nodeName": "n1", "podUID": UID, "interfaces": [{"name": "eth0"}]}


def test_a_status_comes_back_as_it_was_written() -> None:
    """A status survives the way to the API server and back."""
    status = Status(interfaces=(Interface(name="eth0", state=InterfaceState.BOUND, mtu=1442, vif_type="vhostuser"),))

    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


def test_keys_of_a_newer_version_are_ignored() -> None:
    """An older node reads the object of a newer controller."""
    assert msgspec.convert({"interfaces": [], "later": 1}, type=Status) == Status()


def test_a_long_interface_name_is_refused_with_its_path() -> None:
    """A name that the kernel would not take is refused where the object is read, with the field's path."""
    with pytest.raises(msgspec.ValidationError, match=r"\$\.interfaces\[0\]\.name"):
        msgspec.convert({"nodeName": "n1", "podUID": UID, "interfaces": [{"name": "x" * 16}]}, type=Spec)
