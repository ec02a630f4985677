"""The caches, and what is known beyond them."""

import asyncio
from typing import Any

import msgspec
import pytest

from podvif.controller.cluster import NOTE_SECONDS, Cluster, Facts, kept_pod, signature
from podvif.core.networks import NETWORKS
from podvif.errors import PodvifError, Refused, Retry
from podvif.kube.convert import parse_podvif
from podvif.kube.resources import NADS, PODVIFS, Document, Key
from podvif.podvifs import Condition, PodVif, Status
from tests.fakes.cluster import ETH0, ETH1, cluster_pod, pod_vif
from tests.fakes.controller import NODE, Stage

P = Key("ns", "p")
FIRST = {"metadata": {"namespace": "ns", "name": "p"}, "spec": {"nodeName": NODE, "podUID": "u"}}


@pytest.fixture
async def cluster(stage: Stage) -> Any:
    """Caches that follow the stage's API server."""
    made = Cluster(stage.kube, cluster_network=True, prefix="eth", clock=asyncio.get_running_loop().time)
    following = asyncio.ensure_future(made.run())
    await made.listed()
    yield made
    following.cancel()


def document(**spec: Any) -> Document:
    metadata = {"namespace": "ns", "name": "p", "uid": "u", "annotations": {NETWORKS: "fast", "other": "x" * 1000}}
    return {"metadata": metadata, "spec": {"nodeName": NODE} | spec}


def test_kept() -> None:
    """Of a pod that may be served what podvif reads is kept, and of others nothing."""
    pod = kept_pod(document())
    assert pod is not None
    assert pod.annotations == {NETWORKS: "fast"}
    assert kept_pod(document(hostNetwork=True)) is None
    assert kept_pod(document(nodeName="")) is None
    assert kept_pod(document() | {"status": {"phase": "Succeeded"}}) is None


PLUGGED = Condition("Plugged", "True", "Plugged")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Facts(cluster_pod(), pod_vif(resource_version="8"), (ETH0,)), True),
        (Facts(cluster_pod(), pod_vif(status=Status((), (PLUGGED,))), (ETH0,)), True),
        (Facts(cluster_pod(), pod_vif(status=Status((), (Condition("Bound", "True", "x"),))), (ETH0,)), False),
        (Facts(cluster_pod(), pod_vif(deleting=True), (ETH0,)), False),
        (Facts(cluster_pod(), pod_vif(finalizers=()), (ETH0,)), False),
        (Facts(cluster_pod(), pod_vif(uid="another"), (ETH0,)), False),
        (Facts(cluster_pod(deleting=True), pod_vif(), (ETH0,)), False),
        (Facts(cluster_pod(), pod_vif(), (ETH0, ETH1)), False),
        (Facts(cluster_pod(), pod_vif(), Refused("x")), False),
        (Facts(cluster_pod(), None, (ETH0,)), False),
        (Facts(None, pod_vif(), ()), False),
    ],
)
def test_signature(other: Facts, same: bool) -> None:  # noqa: FBT001
    """What a decision depends on is in the signature, and the node's own doings are not."""
    assert (signature(other) == signature(Facts(cluster_pod(), pod_vif(), (ETH0,)))) is same


def test_signature_of_a_refusal() -> None:
    """The same refusal, read twice, is the same."""
    one, two = (Facts(cluster_pod(), None, Refused("NAD is missing")) for _ in range(2))
    assert signature(one) == signature(two)


async def test_note_is_newer(cluster: Cluster, stage: Stage) -> None:
    """What was written is known at once, until the cache has it or something newer."""
    made = await stage.kube.create(PODVIFS, FIRST, "x")
    assert isinstance(made, dict)
    assert cluster.podvif(P) is None
    cluster.note(P, parse_podvif(made))
    assert cluster.podvif(P) == parse_podvif(made)
    assert cluster.uids() == {"u"}
    await asyncio.sleep(1)
    labelled = await stage.kube.merge(PODVIFS, P, {"metadata": {"finalizers": ["a"]}}, "x")
    assert isinstance(labelled, dict)
    cluster.note(P, parse_podvif(labelled))
    assert _of(cluster).finalizers == ("a",)
    await stage.kube.merge(PODVIFS, P, {"metadata": {"finalizers": ["b"]}}, "x")
    await asyncio.sleep(1)

    assert _of(cluster).finalizers == ("b",)
    assert cluster._notes == {}


def _of(cluster: Cluster) -> PodVif:
    found = cluster.podvif(P)
    assert found is not None
    return found


async def test_cache_is_newer(cluster: Cluster, stage: Stage) -> None:
    """An answer that comes later than the cache's own news does not bring the old object back."""
    made = await stage.kube.create(PODVIFS, FIRST, "x")
    assert isinstance(made, dict)
    await stage.kube.merge(PODVIFS, P, {"metadata": {"finalizers": ["b"]}}, "x")
    await asyncio.sleep(1)
    cluster.note(P, parse_podvif(made))

    assert _of(cluster).finalizers == ("b",)


async def test_gone(cluster: Cluster, stage: Stage) -> None:
    """An object whose last finalizer was taken off is gone at once, and one of the same name that follows is not."""
    made = await stage.kube.create(PODVIFS, FIRST, "x")
    assert isinstance(made, dict)
    await asyncio.sleep(1)
    cluster.note(P, msgspec.structs.replace(parse_podvif(made), deleting=True))
    assert cluster.podvif(P) is None
    await stage.kube.delete(PODVIFS, P)
    second = await stage.kube.create(PODVIFS, FIRST, "x")
    assert isinstance(second, dict)
    await asyncio.sleep(1)

    assert _of(cluster).uid == second["metadata"]["uid"]


async def test_read_again(cluster: Cluster, stage: Stage) -> None:
    """An object that is not as it was thought to be is read anew, and may be gone."""
    await stage.kube.create(PODVIFS, FIRST, "x")
    await cluster.read_again(P, stage.kube)
    assert _of(cluster).spec.pod_uid == "u"
    await stage.kube.delete(PODVIFS, P)
    await cluster.read_again(P, stage.kube)
    assert cluster.podvif(P) is None


async def test_note_that_was_passed_over(cluster: Cluster, stage: Stage) -> None:
    """A note that the cache never came by is dropped after a while: the cache is true."""
    made = await stage.kube.create(PODVIFS, FIRST, "x")
    assert isinstance(made, dict)
    await stage.kube.delete(PODVIFS, P)
    await asyncio.sleep(1)
    cluster.note(P, parse_podvif(made))
    cluster.drop_old_notes()
    assert cluster.podvif(P) is not None
    await asyncio.sleep(NOTE_SECONDS)
    cluster.drop_old_notes()

    assert cluster.podvif(P) is None


async def test_who_is_woken(cluster: Cluster, stage: Stage) -> None:
    """A pod is woken by its own changes, its PodVif's, and those of the NetworkAttachmentDefinitions that it names."""
    woken: list[str] = []
    cluster.on_change(lambda key: woken.append(key.name))
    await stage.pod("with", networks="fast")
    await stage.pod("without")
    await stage.kube.create(PODVIFS, FIRST, "x")
    await asyncio.sleep(1)
    assert sorted(woken) == ["p", "with", "without"]
    woken.clear()
    await stage.nad("fast", stage.subnet)
    await stage.nad("slow", stage.subnet)
    await asyncio.sleep(1)
    assert woken == ["with"]
    cluster.on_change(None)
    await stage.pod("late")
    await asyncio.sleep(1)
    assert woken == ["with"]


async def test_wanted(cluster: Cluster, stage: Stage) -> None:
    """What a pod wants is what its annotation and the NetworkAttachmentDefinitions say now."""
    pod = cluster_pod(annotations={NETWORKS: "fast"})
    assert isinstance(cluster.wanted(pod), Refused)
    await stage.nad("fast", stage.subnet)
    await asyncio.sleep(1)
    found = cluster.wanted(pod)
    assert not isinstance(found, PodvifError)
    assert [wanted.name for wanted in found] == ["eth0", "eth1"]


async def test_no_definitions_at_all(stage: Stage) -> None:
    """In a cluster that does not know NetworkAttachmentDefinitions only pods that name one wait."""

    def no_such_kind(verb: str, resource: object, _key: object) -> None:
        if resource == NADS:
            raise Retry(f"cannot {verb} {resource}: not found", "install the CRD")

    stage.kube.before = no_such_kind
    made = Cluster(stage.kube, cluster_network=True, prefix="eth")
    following = asyncio.ensure_future(made.run())
    await made.listed()
    await asyncio.sleep(1)
    assert made.wanted(cluster_pod()) == (ETH0,)
    found = made.wanted(cluster_pod(annotations={NETWORKS: "fast"}))
    assert isinstance(found, Retry)
    assert "not found" in found.message
    assert made.trouble() is None
    following.cancel()
