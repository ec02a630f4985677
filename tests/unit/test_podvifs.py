"""The custom resource's form on the wire."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from podvif.model import Address, Dns, Route
from podvif.podvifs import (
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    Condition,
    Interface,
    InterfaceState,
    Spec,
    Status,
    WantedInterface,
)

UID = "0f3c2a6e-52f1-4d0b-9a55-3f8f0c1d2e3f"


def test_keys_are_written_as_kubernetes_writes_them() -> None:
    """Keys are camel case, podUID as in the rest of Kubernetes, and what is not said is left out."""
    spec = Spec(node_name="n1", pod_uid=UID, interfaces=(WantedInterface(name="eth0"),))

    written = msgspec.json.decode(msgspec.json.encode(spec))

    assert written == {"nodeName": "n1", "podUID": UID, "interfaces": [{"name": "eth0"}]}


def test_which_pod() -> None:
    """A spec is of the pod with its UID; of a static pod, by the UID that the runtime has."""
    assert [Spec("n1", UID).is_of(uid) for uid in (UID, "other", "")] == [True, False, False]
    assert [Spec("n1", UID, runtime_uid="static").is_of(uid) for uid in (UID, "static", "")] == [False, True, False]


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


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"subnetId": "mysubnet"}, "subnetId"),
        ({"networkId": "A56C76A1-a0af-4638-b000-c9a1d6a3ed64"}, "networkId"),
        ({"mac": "FA:16:3E:00:00:01"}, "mac"),
    ],
)
def test_values_are_in_one_form(changes: dict[str, str], path: str) -> None:
    """UUIDs and MACs are written in lower case, so that they can be compared; anything else is refused with its path."""
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{path}"):
        msgspec.convert({"name": "eth0", **changes}, type=WantedInterface)
    assert msgspec.convert({"name": "eth0", path: ""}, type=WantedInterface) == WantedInterface(name="eth0")


CRD = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "crds" / "podvifs.podvif.io.yaml").read_text())
(CRD_VERSION,) = CRD["spec"]["versions"]
SCHEMA = CRD_VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every schema in a schema."""
    yield schema
    for inner in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        yield from nodes(inner)


def test_schema_is_structural() -> None:
    """The CRD's schema is what the API server takes: a type everywhere, no reference, no union, no default."""
    for node in nodes(SCHEMA):
        assert isinstance(node["type"], str), node
        assert not node.keys() & {"$ref", "$defs", "anyOf", "title", "default", "additionalProperties"}, node


def test_schema_knows_every_key() -> None:
    """What podvif writes is not pruned: the schema has each key of an object in which everything is said."""
    route = Route("0.0.0.0/0", "10.0.0.1", 1, 1, 1, 1, 1)
    dns = Dns(("10.0.0.2",), "x", ("x",), ("ndots:1",))
    uuid, mac = "a56c76a1-a0af-4638-b000-c9a1d6a3ed64", "fa:16:3e:00:00:01"
    wanted = WantedInterface("eth1", uuid, uuid, "ns/nad", delegated=True, mac=mac, ips=("10.0.0.5",))
    interface = Interface(
        "eth1", InterfaceState.BOUND, uuid, mac, 1500, (Address("10.0.0.5/24", "10.0.0.1"),), (route,), dns, "vhostuser",
        {"vhostuser_mode": "server"}, "m",
    )  # fmt: skip
    whole = {
        "spec": Spec("n1", UID, (wanted,), ("/run/vhostuser",), "static"),
        "status": Status((interface,), (Condition("Bound", "True", "r", "m", "2026-11-24T12:00:00Z", 1),)),
    }
    for part, value in whole.items():
        assert keys(msgspec.json.decode(msgspec.json.encode(value))) == keys_of(SCHEMA["properties"][part])


def keys(value: Any, path: str = "") -> set[str]:
    """Paths of all keys of a JSON value; a free-form object is one key."""
    match value:
        case dict() if not path.endswith("vifDetails"):
            return {found for key, inner in value.items() for found in {f"{path}.{key}", *keys(inner, f"{path}.{key}")}}
        case list():
            return {found for inner in value for found in keys(inner, path)}
    return set()


def keys_of(schema: dict[str, Any], path: str = "") -> set[str]:
    """Likewise of a schema."""
    found = keys_of(schema["items"], path) if "items" in schema else set()
    for key, inner in schema.get("properties", {}).items():
        found |= {f"{path}.{key}", *keys_of(inner, f"{path}.{key}")}
    return found


def test_crd() -> None:
    """The CRD is PodVif's, with a status of its own, lists that are maps, and a spec that does not change."""
    names = CRD["spec"]["names"]
    assert CRD["metadata"]["name"] == f"{PLURAL}.{GROUP}"
    assert (CRD["spec"]["group"], CRD["spec"]["scope"]) == (GROUP, "Namespaced")
    assert (names["kind"], names["plural"], names["shortNames"]) == (KIND, PLURAL, ["pvif"])
    assert (CRD_VERSION["name"], CRD_VERSION["subresources"]) == (VERSION, {"status": {}})
    assert CRD_VERSION["selectableFields"] == [{"jsonPath": ".spec.nodeName"}]
    spec, status = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]
    assert spec["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
    for listed, key in (
        (spec["properties"]["interfaces"], "name"),
        (status["properties"]["interfaces"], "name"),
        (status["properties"]["conditions"], "type"),
    ):
        assert (listed["x-kubernetes-list-type"], listed["x-kubernetes-list-map-keys"]) == ("map", [key])


def test_every_field_is_explained() -> None:
    """Each field of spec, of status and of an interface has its meaning in the CRD (`kubectl explain`)."""
    spec, status = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]
    for node in (spec, status, spec["properties"]["interfaces"]["items"], status["properties"]["interfaces"]["items"]):
        assert all(field.get("description") for field in node["properties"].values())
