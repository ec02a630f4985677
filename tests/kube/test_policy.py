"""The admission policy of deploy/policy, as a real API server applies it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.errors import Refused
from podvif.kube.client import Outcome
from podvif.kube.resources import NAMESPACES, PODS, Document, Key, Resource, key_of
from tests.kube.worlds import MANAGER, SECONDS, RealWorld

FILE = Path(__file__).parents[2] / "deploy" / "policy" / "hostpath.yaml"

VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
_GROUP = ("admissionregistration.k8s.io", "v1")
POLICIES = Resource(*_GROUP, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
BINDINGS = Resource(*_GROUP, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False)
KINDS = {resource.kind: resource for resource in (POLICIES, BINDINGS)}

CONTAINERS = [{"name": "c", "image": "i"}]
WORDS = "reaches what podvif keeps apart"


def pod(world: RealWorld, name: str, *paths: str, namespace: str = "", account: str = "") -> Document:
    """A pod with hostPath volumes."""
    spec: dict[str, Any] = {
        "containers": CONTAINERS,
        "volumes": [{"name": f"v{number}", "hostPath": {"path": path}} for number, path in enumerate(paths)],
    }
    if account:
        spec["serviceAccountName"] = account
    return {"metadata": {"name": name, "namespace": namespace or world.namespace}, "spec": spec}


async def why_not(world: RealWorld, document: Document, resource: Resource = PODS) -> str | None:
    """The server's words when it refuses to create an object; None when it has created it, which is undone."""
    try:
        made = await world.kube.create(resource, document, MANAGER)
    except Refused as error:
        return error.message
    assert not isinstance(made, Outcome), made
    await world.kube.delete(resource, key_of(made))
    if made["metadata"].get("finalizers"):  # nobody is here who would see that the volume is not in use
        await world.kube.merge(resource, key_of(made), {"metadata": {"finalizers": None}}, MANAGER)
    return None


async def until(world: RealWorld, document: Document, resource: Resource = PODS, *, admitted: bool) -> None:
    """Ask until an object is admitted, or is not: no event says when a policy has come into effect."""
    async with asyncio.timeout(SECONDS):
        while (WORDS not in (await why_not(world, document, resource) or "")) is not admitted:  # noqa: ASYNC110  see above
            await asyncio.sleep(0.05)


Edit = Callable[[str], str]


@contextlib.asynccontextmanager
async def policy(world: RealWorld, edit: Edit = lambda text: text) -> AsyncIterator[None]:
    """The policies in effect, as an administrator has edited them, and out of it afterwards."""
    documents = [msgspec.yaml.decode(text, type=Document) for text in edit(FILE.read_text()).split("\n---\n")]
    refused = [(pod(world, "probe", "/run/podvif"), PODS), (volume("probe", "hostPath", "/run/podvif"), VOLUMES)]
    try:
        for document in documents:
            await world.kube.apply(KINDS[document["kind"]], key_of(document), document, MANAGER)
        for case in refused:
            await until(world, *case, admitted=False)
        yield
    finally:
        for document in reversed(documents):
            await world.kube.delete(KINDS[document["kind"]], key_of(document))
        for case in refused:
            await until(world, *case, admitted=True)


@pytest.fixture
async def guarded(real: RealWorld) -> AsyncIterator[RealWorld]:
    """The server with the policies in effect as they are shipped."""
    async with policy(real):
        yield real


def volume(name: str, source: str, path: str) -> Document:
    """A PersistentVolume."""
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}
    spec: dict[str, Any] = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], source: {"path": path}}
    if source == "local":
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    return {"metadata": {"name": name}, "spec": spec}


REFUSED = [
    "/",
    "//",
    "/.",
    "/run",
    "/run/",
    "/var",
    "/var/run",
    "//var//run/",
    "/var/./run",
    "/run/podvif",
    "/var/run/podvif",
    "/var/run/podvif/",
    "/run/./podvif/pods",
    "/var/run//podvif/pods/0b6f1a64-5b0e-4a52-9d3c-0123456789ab",
    "/run/podvif/cni.sock",
    "/var/lib",
    "/var/lib/podvif/attachments",
    "/run/openvswitch/db.sock",
    "/var/lib/kubelet",
    "/var/lib/kubelet/pods/0b6f1a64-5b0e-4a52-9d3c-0123456789ab/volumes/kubernetes.io~csi/vhostuser/mount",
    "/proc/1/root/run/podvif",
    "/proc/self/root",
    "/proc/thread-self/cwd",
    "/dev/fd/5",
]
ADMITTED = [
    "/var/run/vhostuser",
    "/run/vhostuser/",
    "/dev/hugepages",
    "/dev",
    "/proc",
    "/proc/sys/net",
    "/sys",
    "/run/podvif-of-somebody-else",
    "/var/run/pod",
    "/runs",
    "/var/lib/kubelet/device-plugins",
    "/home/run/podvif",
]


async def test_paths(guarded: RealWorld) -> None:
    """A hostPath at, above or below what is kept apart is refused, however it is written, and no other is."""
    found = {path: await why_not(guarded, pod(guarded, "p", "/etc/hostname", path)) for path in REFUSED + ADMITTED}

    assert {path for path, words in found.items() if words} == set(REFUSED)
    for path in REFUSED:
        assert WORDS in (found[path] or ""), found[path]
        assert "csi.podvif.io" in (found[path] or "")


async def test_backsteps(guarded: RealWorld) -> None:
    """A path that goes up again is refused, by the policy or by the server itself."""
    for path in ("/var/run/../run/podvif", "/tmp/../run/podvif", "/run/vhostuser/../podvif", "/.."):
        assert re.search(rf"{WORDS}|must not contain '\.\.'", await why_not(guarded, pod(guarded, "p", path)) or "")


async def test_no_host_path(guarded: RealWorld) -> None:
    """Pods without a hostPath are nobody's business."""
    inline = pod(guarded, "inline")
    inline["spec"]["volumes"] = [{"name": "v", "csi": {"driver": "csi.podvif.io"}}]
    for document in (pod(guarded, "plain"), inline, {**pod(guarded, "p"), "spec": {"containers": CONTAINERS}}):
        assert await why_not(guarded, document) is None


async def test_exceptions(real: RealWorld) -> None:
    """Pods of exempted namespaces and service accounts may; a service account of the same name elsewhere may not."""
    path = "/var/run/podvif"
    await real.kube.apply(NAMESPACES, Key("", "kube-system"), {}, MANAGER)

    def edit(text: str) -> str:
        assert "['kube-system/podvif-node']" in text
        return text.replace("['kube-system/podvif-node']", f"['{real.namespace}/agent', 'kube-system/other']")

    async with policy(real, edit):
        assert await why_not(real, pod(real, "p", path, namespace="kube-system")) is None
        assert await why_not(real, pod(real, "p", path, account="agent")) is None
        assert WORDS in (await why_not(real, pod(real, "p", path, account="other")) or "")
        assert WORDS in (await why_not(real, pod(real, "p", path)) or "")


async def test_mount_point(real: RealWorld) -> None:
    """Where the shared directory is added, it is refused like the others."""
    shared = pod(real, "p", "/var/run/vhostuser")

    def edit(text: str) -> str:
        assert text.count("['/var/run/podvif',") == 2
        return text.replace("['/var/run/podvif',", "['/var/run/podvif', '/var/run/vhostuser',")

    assert await why_not(real, shared) is None
    async with policy(real, edit):
        assert WORDS in (await why_not(real, shared) or "")


async def test_persistent_volumes(guarded: RealWorld) -> None:
    """A PersistentVolume leads there no more than a hostPath does."""
    for source in ("hostPath", "local"):
        assert WORDS in (await why_not(guarded, volume("v", source, "/var/run//podvif/"), VOLUMES) or "")
        assert await why_not(guarded, volume("v", source, "/mnt/disk"), VOLUMES) is None


async def test_exempted_user(guarded: RealWorld) -> None:
    """Whom the policy exempts may make such a volume."""
    document = msgspec.yaml.decode(FILE.read_text().split("\n---\n")[2], type=Document)
    assert document["metadata"]["name"] == "persistentvolumes.podvif.io"
    for variable in document["spec"]["variables"]:
        if variable["name"] == "exemptUsers":
            variable["expression"] = "['somebody', 'admin']"
    await guarded.kube.apply(POLICIES, key_of(document), document, MANAGER)
    await until(guarded, volume("v", "local", "/run/podvif"), VOLUMES, admitted=True)


async def test_others_do_not_get_in_by_an_ephemeral_container(guarded: RealWorld) -> None:
    """An ephemeral container adds no volume to a pod that has none."""
    key = Key(guarded.namespace, "p")
    await guarded.kube.create(PODS, pod(guarded, "p"), MANAGER)
    volumes = {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/run/podvif"}}]}}
    try:
        with pytest.raises(Refused):
            await guarded.kube.merge(PODS, key, volumes, MANAGER)
    finally:
        await guarded.kube.delete(PODS, key)
