"""Objects of the API server as our frozen values, and our values as objects.

Law: each kind is parsed once, here; what an object says beyond what podvif needs is dropped, so that a cache of thousands of
pods stays small and a change that does not concern podvif is none.
"""

from typing import Any, TypeVar

import msgspec

from podvif.errors import Refused
from podvif.kube.resources import PODVIFS, Document, Resource, key_of
from podvif.model import ClusterPod, Nad
from podvif.podvifs import PodVif, Spec, Status

T = TypeVar("T", bound=msgspec.Struct)


def parse_pod(document: Document) -> ClusterPod:
    """A pod; only hostPath volumes that one of its containers mounts count."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    containers = [*spec.get("containers", ()), *spec.get("initContainers", ()), *spec.get("ephemeralContainers", ())]
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts") or ()}
    volumes = [volume for volume in spec.get("volumes") or () if volume.get("hostPath") and volume["name"] in mounted]
    return ClusterPod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        node_name=spec.get("nodeName", ""),
        host_network=spec.get("hostNetwork", False),
        deleting="deletionTimestamp" in metadata,
        finished=(document.get("status") or {}).get("phase") in {"Succeeded", "Failed"},
        annotations=metadata.get("annotations") or {},
        host_paths=tuple(volume["hostPath"]["path"] for volume in volumes),
    )


def parse_nad(document: Document) -> Nad:
    """A NetworkAttachmentDefinition."""
    metadata = document["metadata"]
    config = (document.get("spec") or {}).get("config") or ""
    return Nad(metadata["namespace"], metadata["name"], metadata.get("annotations") or {}, config)


def parse_podvif(document: Document) -> PodVif:
    """A PodVif.

    Raises:
        Refused: it is not what the CRD's schema would let in.
    """
    metadata = document["metadata"]
    return PodVif(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        spec=_converted(PODVIFS, document, "spec", Spec),
        status=_converted(PODVIFS, document, "status", Status),
        resource_version=metadata.get("resourceVersion", ""),
        generation=metadata.get("generation", 0),
        finalizers=tuple(metadata.get("finalizers") or ()),
        deleting="deletionTimestamp" in metadata,
    )


def render(value: msgspec.Struct) -> Any:
    """A value of `podvif.podvifs` as JSON has it: the spec, the status or a part of them."""
    return msgspec.to_builtins(value)


def _converted(resource: Resource, document: Document, part: str, kind: type[T]) -> T:
    try:
        return msgspec.convert(document.get(part) or {}, kind)
    except msgspec.ValidationError as error:
        raise Refused(
            f"{resource} {key_of(document)}: {part} cannot be read: {error}",
            "delete the object: the controller makes it again",
        ) from error
