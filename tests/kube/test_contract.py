"""What podvif relies on in an API server, the fake one and the real one."""

import asyncio

import pytest

from podvif.errors import Retry
from podvif.kube.client import Change, Event, ExpiredError, Outcome
from podvif.kube.resources import PODS, PODVIFS, Document, Where, key_of
from tests.kube.worlds import MANAGER, SECONDS, World


def conditions(document: Document | Outcome | None) -> dict[str, str]:
    """Status by type."""
    assert isinstance(document, dict)
    return {item["type"]: item["status"] for item in document["status"]["conditions"]}


def condition(kind: str, status: str = "True") -> dict[str, str]:
    at = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": at}


async def events(world: World, version: str, where: Where, count: int) -> list[Event]:
    """The next changes after a version, without bookmarks."""
    found: list[Event] = []
    async with asyncio.timeout(SECONDS):
        async for event in world.kube.watch(PODVIFS, version, where):
            if event.change is not Change.BOOKMARK:
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_create(world: World) -> None:
    """An object is made once: the second time it EXISTS, and it is got as it was made."""
    made = await world.made()
    assert await world.kube.create(PODVIFS, world.podvif(), MANAGER) is Outcome.EXISTS
    assert await world.kube.get(PODVIFS, world.key()) == made
    assert made["spec"]["nodeName"] == "n1"


async def test_missing(world: World) -> None:
    """What is not there is None to get, and MISSING to patch, to delete and to give a status."""
    key = world.key("nobody")
    status = {"status": {"conditions": [condition("Bound")]}}
    assert await world.kube.get(PODVIFS, key) is None
    assert await world.kube.merge(PODVIFS, key, {"metadata": {"labels": {"a": "b"}}}, MANAGER) is Outcome.MISSING
    assert await world.kube.delete(PODVIFS, key) is Outcome.MISSING
    assert await world.kube.apply(PODVIFS, key, status, MANAGER, status=True) is Outcome.MISSING


async def test_delete_preconditions(world: World) -> None:
    """An object that is another one, or has changed, is not deleted."""
    made = await world.made()
    await world.kube.merge(PODVIFS, world.key(), {"metadata": {"labels": {"a": "b"}}}, MANAGER)
    version = made["metadata"]["resourceVersion"]
    assert await world.kube.delete(PODVIFS, world.key(), uid="another") is Outcome.CONFLICT
    assert await world.kube.delete(PODVIFS, world.key(), version=version) is Outcome.CONFLICT
    assert await world.kube.delete(PODVIFS, world.key(), uid=made["metadata"]["uid"]) is None
    assert await world.kube.get(PODVIFS, world.key()) is None


async def test_merge(world: World) -> None:
    """A patch sets fields and removes those that are null, and is a CONFLICT where its version is an old one."""
    old = (await world.made(labels={"a": "1", "b": "2"}))["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": old, "labels": {"a": None, "c": "3"}}}
    after = await world.kube.merge(PODVIFS, world.key(), patch, MANAGER)
    assert isinstance(after, dict)
    assert after["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert await world.kube.merge(PODVIFS, world.key(), patch, MANAGER) is Outcome.CONFLICT


async def test_two_managers(world: World) -> None:
    """Conditions that two managers apply stand side by side, and what one leaves out the next time goes alone."""
    await world.made()

    async def says(manager: str, *kinds: str) -> Document | Outcome:
        status = {"status": {"conditions": [condition(kind) for kind in kinds]}}
        return await world.kube.apply(PODVIFS, world.key(), status, manager, status=True)

    await says("controller", "Bound")
    assert conditions(await says("node", "Plugged", "Connected")).keys() == {"Bound", "Plugged", "Connected"}
    assert conditions(await says("node", "Plugged")).keys() == {"Bound", "Plugged"}


async def test_status_is_apart(world: World) -> None:
    """The status is written by its subresource only, and a change of it is none of the generation."""
    await world.made()
    status = {"status": {"conditions": [condition("Bound")]}}
    unchanged = await world.kube.merge(PODVIFS, world.key(), status, MANAGER)
    assert isinstance(unchanged, dict)
    assert "status" not in unchanged
    after = await world.kube.apply(PODVIFS, world.key(), status, MANAGER, status=True)
    assert conditions(after) == {"Bound": "True"}
    assert isinstance(after, dict)
    assert after["metadata"]["generation"] == 1


async def test_apply_to_another(world: World) -> None:
    """What is meant for an object that is gone, or is another one by now, is a CONFLICT and changes nothing."""
    made = await world.made()
    uid = made["metadata"]["uid"]
    await world.kube.delete(PODVIFS, world.key())
    labels = {"metadata": {"uid": uid, "labels": {"a": "b"}}, "spec": made["spec"]}
    assert await world.kube.apply(PODVIFS, world.key(), labels, MANAGER) is Outcome.CONFLICT
    assert await world.kube.get(PODVIFS, world.key()) is None
    again = await world.made()
    version = {"uid": uid, "resourceVersion": made["metadata"]["resourceVersion"]}
    bound = {"metadata": version, "status": {"conditions": [condition("Bound")]}}
    assert await world.kube.apply(PODVIFS, world.key(), labels, MANAGER) is Outcome.CONFLICT
    assert await world.kube.apply(PODVIFS, world.key(), bound, MANAGER, status=True) is Outcome.CONFLICT
    assert await world.kube.merge(PODVIFS, world.key(), bound, MANAGER, status=True) is Outcome.CONFLICT
    assert await world.kube.merge(PODVIFS, world.key(), {"metadata": labels["metadata"]}, MANAGER) is Outcome.CONFLICT
    assert await world.kube.get(PODVIFS, world.key()) == again


async def test_annotation_by_status(world: World) -> None:
    """By the status of the very pod its annotations can be written, and nothing of its spec."""
    containers = [{"name": "app", "image": "good"}]
    spec = {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": containers}
    metadata = {"namespace": world.namespace, "name": "p1"}
    made = await world.kube.create(PODS, {"metadata": metadata, "spec": spec}, MANAGER)
    assert isinstance(made, dict)
    annotated = {"annotations": {"a": "b"}}
    patch = {"metadata": {"uid": made["metadata"]["uid"], **annotated}, "spec": {"nodeName": "n2"}}
    assert isinstance(await world.kube.merge(PODS, world.key(), patch, MANAGER, status=True), dict)
    stranger = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000", "annotations": {"a": "c"}}}
    assert await world.kube.merge(PODS, world.key(), stranger, MANAGER, status=True) is Outcome.CONFLICT
    after = await world.kube.get(PODS, world.key())
    assert after is not None
    assert (after["metadata"]["annotations"], after["spec"]["nodeName"]) == ({"a": "b"}, "n1")
    assert await world.kube.delete(PODS, world.key()) is None  # controllers of other tests would see to it


async def test_owned_by_another(world: World) -> None:
    """Without force a field of another manager is a CONFLICT; with it, it is taken over."""
    await world.made()

    async def says(manager: str, status: str, *, force: bool) -> Document | Outcome:
        document = {"status": {"conditions": [condition("Bound", status)]}}
        return await world.kube.apply(PODVIFS, world.key(), document, manager, status=True, force=force)

    await says("a", "True", force=False)
    assert await says("b", "False", force=False) is Outcome.CONFLICT
    assert conditions(await says("b", "False", force=True)) == {"Bound": "False"}


async def test_finalizer(world: World) -> None:
    """An object with a finalizer is marked when it is deleted, and goes when the finalizer does."""
    await world.made(finalizers=["podvif.io/ports"])
    assert await world.kube.delete(PODVIFS, world.key()) is None
    marked = await world.kube.get(PODVIFS, world.key())
    assert marked is not None
    assert marked["metadata"]["deletionTimestamp"]
    await world.kube.merge(PODVIFS, world.key(), {"metadata": {"finalizers": None}}, MANAGER)
    assert await world.kube.get(PODVIFS, world.key()) is None


async def test_list(world: World) -> None:
    """A list has every object that the selectors match, over all its pages."""
    for number in range(5):
        await world.made(f"p{number}", labels={"podvif.io/node": f"n{number % 2}"})
    found, _ = await world.listed(PODVIFS, world.here)
    assert [key_of(item).name for item in found] == ["p0", "p1", "p2", "p3", "p4"]
    found, _ = await world.listed(PODVIFS, Where(world.namespace, labels="podvif.io/node=n1"))
    assert [key_of(item).name for item in found] == ["p1", "p3"]
    found, _ = await world.listed(PODVIFS, Where(world.namespace, fields="spec.nodeName=n1"))
    assert len(found) == 5
    assert await world.listed(PODVIFS, Where(world.namespace, fields="spec.nodeName=n2")) == ([], _)


async def test_watch(world: World) -> None:
    """A watch from the list's version tells each later change once, in order, and the last state of what was deleted."""
    await world.made("before")
    _, version = await world.listed(PODVIFS, world.here)
    await world.made()
    await world.kube.merge(PODVIFS, world.key(), {"metadata": {"labels": {"a": "b"}}}, MANAGER)
    await world.kube.delete(PODVIFS, world.key())
    told = await events(world, version, world.here, 3)
    assert [event.change for event in told] == [Change.ADDED, Change.MODIFIED, Change.DELETED]
    assert told[2].document["metadata"]["labels"] == {"a": "b"}
    versions = [int(event.document["metadata"]["resourceVersion"]) for event in told]
    assert versions == sorted(set(versions))


async def test_watch_with_selector(world: World) -> None:
    """To a watch with a selector an object that does not match any more is deleted."""
    _, version = await world.listed(PODVIFS, world.here)
    await world.made(labels={"podvif.io/node": "n1"})
    await world.kube.merge(PODVIFS, world.key(), {"metadata": {"labels": {"podvif.io/node": "n2"}}}, MANAGER)
    told = await events(world, version, Where(world.namespace, labels="podvif.io/node=n1"), 2)
    assert [event.change for event in told] == [Change.ADDED, Change.DELETED]


async def test_watch_ends(world: World) -> None:
    """A watch ends without an error when its window does."""
    _, version = await world.listed(PODVIFS, world.here)
    async with asyncio.timeout(SECONDS):
        changes = [event.change async for event in world.kube.watch(PODVIFS, version, world.here, window=1)]
    assert set(changes) <= {Change.BOOKMARK}


async def test_forgotten(world: World) -> None:
    """A watch from a version that the server has forgotten is told so."""
    _, version = await world.listed(PODVIFS, world.here)
    for number in range(3):
        await world.made(f"p{number}")
    await world.forget()
    async with asyncio.timeout(SECONDS):
        while not await is_forgotten(world, version):
            pass


async def is_forgotten(world: World, version: str) -> bool:
    """Whether a watch from this version is told that it is forgotten; a server that has just started may not know yet."""
    try:
        await events(world, version, world.here, 1)
    except ExpiredError:
        return True
    except Retry:
        return False
    return pytest.fail("the version is still known")


async def test_away(world: World) -> None:
    """While the server is away every request is one to retry, an open watch breaks, and later all is as it was."""
    made = await world.made()
    _, version = await world.listed(PODVIFS, world.here)
    watching = asyncio.ensure_future(events(world, version, world.here, 1))
    await asyncio.sleep(0)
    await world.lose()
    try:
        with pytest.raises(Retry):
            await watching
        with pytest.raises(Retry):
            await world.kube.get(PODVIFS, world.key())
        with pytest.raises(Retry):
            await world.listed(PODVIFS, world.here)
        with pytest.raises(Retry):
            await world.kube.create(PODVIFS, world.podvif("p2"), MANAGER)
    finally:
        await world.regain()
    assert await world.kube.get(PODVIFS, world.key()) == made


async def test_separators_in_texts(world: World) -> None:
    """Line ends of Unicode in an object's texts are texts to a watch too."""
    text = "a\x85b\u2028c\u2029d"
    _, version = await world.listed(PODVIFS, world.here)
    await world.made(annotations={"text": text})
    (event,) = await events(world, version, world.here, 1)
    assert event.document["metadata"]["annotations"]["text"] == text
