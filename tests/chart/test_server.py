"""The chart before a real API server: every object is good, and an uninstall leaves what is meant to stay."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.lab.kube import KubeApi
from tests.chart.helm import NAMESPACE, Helm
from tests.chart.objects import Objects
from tests.chart.test_values import NEUTRON, STANDALONE

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
VALUES = EXAMPLES / "values-neutron.yaml"

EVERYTHING: dict[str, Any] = {
    "policy": {"enabled": True, "forbidMountPoint": True, "exemptNamespaces": ["kube-system", "multus"]},
    "monitoring": {
        "expose": True,
        "serviceMonitor": {"enabled": True},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "networks": [
        {"name": "dpdk-net", "namespace": "default", "config": {"type": "podvif-cni", "bridge": "br-dpdk"}},
        {"name": "fast", "kuryr": {"subnetId": "b56c76a1-a0af-4638-b000-c9a1d6a3ed64"}},
    ],
    "apiServer": {"host": "192.0.2.1"},
    "image": {"pullSecrets": ["registry"]},
}


@pytest.mark.parametrize(
    "values",
    [
        STANDALONE,
        NEUTRON,
        EVERYTHING,
        NEUTRON | EVERYTHING,
        {"csi": {"enabled": False}},
        msgspec.yaml.decode(VALUES.read_text()),
    ],
    ids=[
        "standalone",
        "neutron",
        "standalone and everything",
        "neutron and everything",
        "without CSI",
        "the example's",
    ],
)
def test_server_takes_every_object(helm: Helm, objects: Objects, values: dict[str, Any]) -> None:
    """The server takes each object, with no field that it does not know; pods of the templates too."""
    for document in helm.rendered(values):
        objects.apply(document, dry=True)
        if document["kind"] in {"DaemonSet", "Deployment"}:
            template = document["spec"]["template"]
            spec = template["spec"] | {"serviceAccountName": "default"}
            about = template["metadata"] | {"name": "p", "namespace": NAMESPACE}
            objects.apply({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}, dry=True)


@pytest.mark.parametrize("file", sorted({*EXAMPLES.glob("*.yaml")} - {VALUES}), ids=lambda file: file.stem)
def test_examples(objects: Objects, file: Path) -> None:
    """The server takes each example, in a namespace with the PodSecurity that it asks for."""
    for text in file.read_text().split("\n---\n"):
        document = msgspec.yaml.decode(text, type=dict[str, Any])
        document["metadata"].setdefault("namespace", "default")
        objects.apply(document, dry=document["kind"] != "Namespace")


def test_install_and_uninstall(helm: Helm, api: KubeApi, objects: Objects) -> None:
    """An install, an upgrade and an uninstall leave the CRD alone, since the record of Neutron ports hangs on it."""
    config = ("--kubeconfig", str(api.kubeconfig))
    values = NEUTRON | {"policy": {"enabled": True}}
    made = [
        document
        for document in helm.rendered(values)
        if "helm.sh/hook" not in document["metadata"].get("annotations", {})
    ]
    for verb, given in (("install", values), ("upgrade", values | {"config": {"node": {"add_timeout": 60}}})):
        done = helm.run(verb, given, *config)
        assert done.returncode == 0, done.stderr
        assert all(objects.get(document) for document in made)

    done = helm.plain("uninstall", "podvif", "--namespace", NAMESPACE, *config)

    assert done.returncode == 0, done.stderr
    left = [document["kind"] for document in made if objects.get(document)]
    assert left == ["CustomResourceDefinition"]
