"""What a large cluster costs the controller, which lists all of it when it begins to lead."""

import contextlib
import http.client
import itertools
import json
import ssl
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from podvif.kube.resources import PODVIFS, Document
from podvif.lab.cluster import Cluster
from podvif.lab.controller import Controller
from podvif.lab.kube import KubeApi
from podvif.model import NeutronPort
from tests.fakes.neutron import FakeCloud
from tests.fakes.neutron_http import NeutronServer
from tests.kube.conftest import why_not_real

NODE = "n1"
PODS = 5000
BYTES_MAX = 200e6
"""What design and docs/bench.md promise for so many."""

NAMESPACE = "many"


class Crowd:
    """Pods, PodVifs and ports in large numbers, each like the ones that a controller has made for one pod."""

    def __init__(self, api: KubeApi, cloud: FakeCloud, podvif: Document) -> None:
        self._api = api
        self._cloud = cloud
        (self._port,) = cloud.all_ports.values()
        # What the API server has added is no part of what a client writes.
        metadata = {key: podvif["metadata"][key] for key in ("labels", "finalizers", "ownerReferences")}
        self._name = podvif["metadata"]["name"]
        self._uid = podvif["spec"]["podUID"]
        self._like = json.dumps({**podvif, "metadata": {**metadata, "name": self._name}})

    def make(self, numbers: range) -> None:
        """Make those of these numbers, over one connection."""
        trust = ssl.create_default_context(cafile=str(self._api.certificate))
        with contextlib.closing(http.client.HTTPSConnection(self._api.address, self._api.port, context=trust)) as to:
            for number in numbers:
                self._make(to, number)

    def _make(self, to: http.client.HTTPSConnection, number: int) -> None:
        name = f"p{number}"
        containers = [{"name": "app", "image": "app"}]
        pod = {"metadata": {"name": name}, "spec": {"nodeName": NODE, "containers": containers}}
        uid = self._ask(to, "POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)["metadata"]["uid"]
        port = self._another(number, uid)
        text = self._like.replace(f'"{self._name}"', f'"{name}"').replace(self._uid, uid)
        for old, new in zip(_marks(self._port), _marks(port), strict=True):
            assert old in text
            text = text.replace(old, new)
        document = json.loads(text)
        path = f"/apis/{PODVIFS.api_version}/namespaces/{NAMESPACE}/{PODVIFS.plural}"
        made = self._ask(to, "POST", path, document)
        self._ask(to, "PUT", f"{path}/{name}/status", {**made, "status": document["status"]})

    def _another(self, number: int, uid: str) -> NeutronPort:
        ip = msgspec.structs.replace(self._port.fixed_ips[0], address=f"10.10.{100 + number // 250}.{1 + number % 250}")
        mac = f"fa:16:3f:00:{number >> 8:02x}:{number & 255:02x}"
        about = {"device_id": uid, "mac": mac, "fixed_ips": (ip,), "name": f"{NAMESPACE}/p{number}:eth0"}
        port_id = str(uuid.uuid4())
        details = json.loads(json.dumps(self._port.vif_details).replace(self._port.id[:11], port_id[:11]))
        port = msgspec.structs.replace(self._port, id=port_id, vif_details=details, **about)
        self._cloud.add_port(port)
        return port

    def _ask(self, to: http.client.HTTPSConnection, method: str, path: str, document: Document) -> Document:
        headers = {"Authorization": f"Bearer {self._api.token}", "Content-Type": "application/json"}
        to.request(method, path, json.dumps(document), headers)
        answer = to.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return dict(json.loads(text))


def _marks(port: NeutronPort) -> tuple[str, ...]:
    """What tells the PodVif of this port from another one's; the longer before what it begins with."""
    return port.id, port.id[:11], port.mac, port.fixed_ips[0].address


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """A server of its own: a controller serves all pods, and nobody else's test shall wait for so many to be removed."""
    if reason := why_not_real():
        pytest.skip(reason)
    with KubeApi(tmp_path) as api:
        yield api


@pytest.mark.timeout(300)
def test_five_thousand_pods(api: KubeApi, tmp_path: Path) -> None:
    """With 5,000 pods and PodVifs, and after two rounds over all their ports, the controller has never had more than 200 MB."""
    cluster, cloud = Cluster(api, NAMESPACE), FakeCloud(hosts={NODE: "server"})
    cluster.prepare()
    cloud.make_network("10.10.0.0/16", "pods")
    with NeutronServer(cloud) as neutron:
        more = {
            "neutron_defaults": {"pod_subnet": "pods"},
            "controller": {"resync_interval": "1", "sweep_grace": "0.5", "lease_namespace": NAMESPACE},
        }
        process = Controller(tmp_path / "c", kubeconfig=api.kubeconfig, neutron=neutron.options, more=more)
        with process:
            cluster.create_pod("p0", node=NODE)
            crowd = Crowd(api, cloud, cluster.wait_for_condition("p0", "Bound"))
        with ThreadPoolExecutor(8) as threads:
            for _ in threads.map(crowd.make, (range(1 + first, PODS, 8) for first in range(8))):
                pass
        ports = set(cloud.all_ports)
        (any_port,) = itertools.islice(cloud.all_ports.values(), 1)
        cloud.add_port(msgspec.structs.replace(any_port, id="0-nobodys", device_id=str(uuid.uuid4())))
        process.start()
        try:
            deadline = time.monotonic() + 100
            while "0-nobodys" in cloud.all_ports:  # the second round that has seen it removes it
                assert time.monotonic() < deadline
                time.sleep(0.1)
            cluster.create_pod("late", node=NODE)
            cluster.wait_for_condition("late", "Bound")
            peak = process.peak_rss_kib() * 1024
        finally:
            process.stop()

    print(f"memory of the controller at most: {peak / 1e6:.0f} MB with {PODS} pods")
    assert neutron.creations == 2
    assert ports < set(cloud.all_ports)
    assert peak <= BYTES_MAX
