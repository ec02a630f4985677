"""A user, a scheduler and a kubelet of a private API server: pods as objects, and what comes of them.

Law: nothing here is podvif's: requests are plain HTTPS with the administrator's token, as kubectl makes them.  What has to come
is waited for by a watch, with a deadline.
"""

import contextlib
import http.client
import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from podvif.lab.kube import KubeApi
from podvif.lab.process import LabError

Document = dict[str, Any]

CRD = Path(__file__).parents[3] / "deploy" / "crds" / "podvifs.podvif.io.yaml"
"""The custom resource as it is shipped; it belongs to the source tree."""

SOON = 60.0
"""Seconds after which something that comes by itself counts as not coming."""

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SPEC = {"type": "object", "properties": {"config": {"type": "string"}}}
# Of the Network Plumbing Working Group's multi-network specification, as far as anybody reads it.
_NADS: Document = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
    "spec": {
        "group": "k8s.cni.cncf.io",
        "scope": "Namespaced",
        "names": {
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "kind": "NetworkAttachmentDefinition",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC}}},
            }
        ],
    },
}


class ApiError(LabError):
    """The API server answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Cluster:
    """One namespace of a private API server.

    Args:
        api: the server.
        namespace: made by `prepare`.

    Attributes:
        namespace: as given.
    """

    def __init__(self, api: KubeApi, namespace: str = "lab") -> None:
        self.namespace = namespace
        self._api = api
        self._trust = ssl.create_default_context(cafile=str(api.certificate))
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._podvifs = f"/apis/podvif.io/v1alpha1/namespaces/{namespace}/podvifs"
        self._nads = f"/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions"

    def prepare(self, *, podvif: bool = True) -> None:
        """Install the custom resources, wait until they are served, and make the namespace.

        Args:
            podvif: whether PodVif is among them; the chart brings its own.

        Raises:
            LabError: the CRD of PodVif is not there (podvif is not run from its source tree), or the server refuses it.
        """
        if podvif:
            self._make_podvifs()
        self._make(_CRDS, json.dumps(_NADS).encode())
        self._until_served(_NADS["metadata"]["name"], self._nads)
        about = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self._make("/api/v1/namespaces", json.dumps(about).encode())

    def _make_podvifs(self) -> None:
        if not CRD.is_file():
            raise LabError(f"{CRD} is not there: a private cluster needs podvif's source tree")
        self._make(_CRDS, CRD.read_bytes(), "application/yaml")
        self._until_served("podvifs.podvif.io", self._podvifs)

    # -- the user, the scheduler, the kubelet ---------------------------------------------------------------------------

    def create_pod(self, name: str, *, node: str, host_path: str = "", networks: str = "") -> str:
        """A pod that was scheduled; returns its UID.

        Args:
            name: of the pod.
            node: that it was scheduled to.
            host_path: a directory of the node that its container mounts; empty for none.
            networks: its annotation k8s.v1.cni.cncf.io/networks.
        """
        container: Document = {"name": "app", "image": "app"}
        spec: Document = {"nodeName": node, "containers": [container]}
        if host_path:
            container["volumeMounts"] = [{"name": "sockets", "mountPath": "/var/run/vhostuser"}]
            spec["volumes"] = [{"name": "sockets", "hostPath": {"path": host_path}}]
        annotations = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
        metadata = {"name": name, "annotations": annotations}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        return str(self._ask("POST", self._pods, json.dumps(pod).encode())["metadata"]["uid"])

    def create_nad(self, name: str, subnet: str) -> None:
        """A NetworkAttachmentDefinition in Kuryr's way: an additional interface in a Neutron subnet."""
        self._create_nad(name, {"openstack.org/kuryr-config": json.dumps({"subnetId": subnet})}, {})

    def create_delegated_nad(self, name: str, config: Document) -> None:
        """A NetworkAttachmentDefinition in Multus's way: the network configuration that a delegate is called with."""
        self._create_nad(name, {}, {"config": json.dumps(config)})

    def _create_nad(self, name: str, annotations: dict[str, str], spec: Document) -> None:
        about = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
        nad = {**about, "metadata": {"name": name, "annotations": annotations}, "spec": spec}
        self._ask("POST", self._nads, json.dumps(nad).encode())

    def delete_pod(self, name: str) -> None:
        """A user deletes a pod: it is marked, and stands until its kubelet has stopped it."""
        self._ask("DELETE", f"{self._pods}/{name}")

    def finish_pod(self, name: str) -> None:
        """The kubelet has stopped a pod: its object is gone."""
        self._ask("DELETE", f"{self._pods}/{name}?gracePeriodSeconds=0")

    def delete_podvif(self, name: str) -> None:
        """A user deletes a PodVif by hand."""
        self._ask("DELETE", f"{self._podvifs}/{name}")

    def cni_args(self, name: str, uid: str) -> str:
        """CNI_ARGS for a pod as containerd has them."""
        return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}"

    # -- what came of it -----------------------------------------------------------------------------------------------

    def podvifs(self) -> list[Document]:
        """All PodVifs of the namespace."""
        return list(self._ask("GET", self._podvifs)["items"])

    def pod(self, name: str) -> Document:
        """A pod."""
        return self._ask("GET", f"{self._pods}/{name}")

    def wait_for_condition(self, name: str, kind: str, status: str = "True", timeout: float = SOON) -> Document:
        """Wait until a PodVif has a condition (Bound, Plugged, Connected) with this status; returns the PodVif."""

        def holds(podvif: Document | None) -> bool:
            return conditions_of(podvif or {}).get(kind) == status

        return self._until(self._podvifs, name, holds, f"PodVif {name} is {kind}={status}", timeout) or {}

    def wait_for_podvif(self, name: str, holds: Callable[[Document], bool], what: str) -> Document:
        """Wait until a PodVif is so; returns it."""
        found = self._until(self._podvifs, name, lambda podvif: podvif is not None and holds(podvif), what)
        return found or {}

    def wait_for_annotation(self, name: str, annotation: str, timeout: float = SOON) -> str:
        """Wait until a pod has an annotation; returns its text."""

        def holds(pod: Document | None) -> bool:
            return annotation in ((pod or {}).get("metadata", {}).get("annotations") or {})

        pod = self._until(self._pods, name, holds, f"pod {name} has the annotation {annotation}", timeout) or {}
        return str(pod["metadata"]["annotations"][annotation])

    def wait_until_gone(self, name: str, timeout: float = SOON) -> None:
        """Wait until there is no PodVif of this name."""
        self._until(self._podvifs, name, lambda podvif: podvif is None, f"PodVif {name} is gone", timeout)

    def left(self) -> list[str]:
        """PodVifs and pods that still stand, each as a short text."""
        pods = self._ask("GET", self._pods)["items"]
        named = [("PodVif", each) for each in self.podvifs()] + [("pod", each) for each in pods]
        return [f"{kind} {self.namespace}/{each['metadata']['name']}" for kind, each in named]

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Document:
        connection, answer = self._request(method, path, body, kind, timeout=30.0)
        try:
            return dict(json.loads(answer.read()))
        finally:
            connection.close()

    def _request(
        self, method: str, path: str, body: bytes | None, kind: str, timeout: float
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(
            self._api.address, self._api.port, timeout=timeout, context=self._trust
        )
        with contextlib.ExitStack() as unless_answered:
            unless_answered.callback(connection.close)
            headers = {"Authorization": f"Bearer {self._api.token}", "Content-Type": kind, "Accept": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if answer.status >= http.HTTPStatus.BAD_REQUEST:
                raise ApiError(answer.status, answer.read().decode(errors="replace"))
            unless_answered.pop_all()
        return connection, answer

    def _until_served(self, crd: str, path: str) -> None:
        """Wait until objects of a custom resource can be had: right after it is established the server makes their storage."""
        self._until(_CRDS, crd, _is_established, f"CRD {crd} is served")
        deadline = time.monotonic() + SOON
        while True:
            try:
                self._ask("GET", path)
            except ApiError as error:
                if error.status != http.HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # it tells nobody when it is done
            else:
                return

    def _make(self, path: str, body: bytes, kind: str = "application/json") -> None:
        """Create, unless it is there."""
        try:
            self._ask("POST", path, body, kind)
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise

    def _until(
        self,
        path: str,
        name: str,
        holds: Callable[[Document | None], bool],
        what: str,
        timeout: float = SOON,
    ) -> Document | None:
        """Wait until the object of that name (None: there is none) is so, and return it."""
        deadline = time.monotonic() + timeout
        query = {"fieldSelector": f"metadata.name={name}"}
        seen: Document | None = None
        while (left := deadline - time.monotonic()) > 0:
            listed = self._ask("GET", f"{path}?{urllib.parse.urlencode(query)}")
            seen = next(iter(listed["items"]), None)
            if holds(seen):
                return seen
            window = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
            for seen in self._watch(path, {**query, **window, "timeoutSeconds": str(int(left) + 1)}, left):
                if holds(seen):
                    return seen
                if time.monotonic() > deadline:
                    break
        raise LabError(f"{what}: not within {timeout:g} s; it is {json.dumps((seen or {}).get('status'))}")

    def _watch(self, path: str, query: Mapping[str, str], timeout: float) -> Iterator[Document | None]:
        """The object as it changes, None when it is deleted; ends with the stream or after so many silent seconds."""
        connection, answer = self._request("GET", f"{path}?{urllib.parse.urlencode(query)}", None, "", timeout)
        try:
            for line in answer:
                event = json.loads(line)
                if event["type"] in {"ADDED", "MODIFIED", "DELETED"}:
                    yield None if event["type"] == "DELETED" else event["object"]
        except TimeoutError:
            return
        finally:
            connection.close()


def conditions_of(document: Mapping[str, Any]) -> dict[str, str]:
    """The status of each condition of an object, by its type."""
    return {each["type"]: each["status"] for each in (document.get("status") or {}).get("conditions") or []}


def _is_established(crd: Document | None) -> bool:
    return conditions_of(crd or {}).get("Established") == "True"
