"""The kinds of objects that podvif speaks of, and how to find them.

Law: a kind is named here once, with its group and version; nothing else builds a path of the API.
"""

from typing import Any

import msgspec

from podvif import podvifs

Document = dict[str, Any]
"""An object as the API server's JSON has it."""


class Resource(msgspec.Struct, frozen=True):
    """One kind.

    Attributes:
        group: API group, empty for the core group.
        version: of the group.
        plural: the name in paths.
        kind: the name in documents.
        namespaced: whether its objects live in namespaces.
        builtin: Kubernetes' own: its status subresource looks at metadata.uid and takes annotations too, which that of a
            custom resource does not (measured).
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    builtin: bool = False

    @property
    def api_version(self) -> str:
        """As `apiVersion` of a document has it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS = Resource("", "v1", "pods", "Pod", builtin=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
NADS = Resource("k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition")
PODVIFS = Resource(podvifs.GROUP, podvifs.VERSION, podvifs.PLURAL, podvifs.KIND)


class Key(msgspec.Struct, frozen=True, order=True):
    """Which object of a kind; `namespace` is empty for kinds that live in none."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(document: Document) -> Key:
    """The key of an object."""
    metadata = document["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


class Where(msgspec.Struct, frozen=True):
    """Which objects of a kind a list or a watch is about.

    Attributes:
        namespace: only this one; empty for all.
        labels: a label selector as kubectl has it, for instance `podvif.io/node=n1`.
        fields: a field selector, for instance `spec.nodeName=n1`.
    """

    namespace: str = ""
    labels: str = ""
    fields: str = ""
