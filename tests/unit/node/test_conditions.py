"""What the node tells the API server, and that nothing depends on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.core.networks import NETWORK_STATUS
from podvif.errors import Refused, Retry
from podvif.kube.resources import PODS, PODVIFS, Key, Resource
from podvif.podvifs import Condition, PodVif, WantedInterface
from tests.fakes import podvifs
from tests.fakes.cluster import OTHER_SUBNET
from tests.fakes.clusternode import SECONDS, ClusterNode
from tests.fakes.values import config

VU0, VU1 = (WantedInterface(name=name) for name in ("vu0", "vu1"))
NET1 = WantedInterface(name="net1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast", delegated=True)


@pytest.fixture
def made(tmp_path: Path) -> ClusterNode:
    return ClusterNode(tmp_path)


async def attached(node: ClusterNode, *wanted: WantedInterface) -> dict[str, Any]:
    """A pod with these interfaces, attached; the variables of its calls."""
    uid = await node.controller.pod()
    await node.controller.make(*wanted, uid=uid)
    await node.controller.bind(
        *(podvifs.bound(each.name, number) for number, each in enumerate(wanted or (VU0,), start=1))
    )
    await node.told()
    arguments: dict[str, Any] = {"CNI_ARGS": f"K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID={uid}"}
    await node.call(**arguments)
    return arguments


def conditions(podvif: PodVif) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in podvif.status.conditions}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the fake server has it."""
    async with asyncio.timeout(SECONDS):
        while not await holds():  # noqa: ASYNC110  nobody tells a test of what the fake has been told
            await asyncio.sleep(0.001)


async def told(node: ClusterNode, **wanted: tuple[str, str]) -> None:
    """Wait until the PodVif has these conditions."""

    async def has() -> bool:
        return conditions(await node.controller.podvif()).items() >= wanted.items()

    await until(has)


def connect(node: ClusterNode, *, up: bool = True) -> None:
    port = node.node.switch.port("vhu00000001-00")
    assert port is not None
    node.node.switch.add_port(msgspec.structs.replace(port, link_up=up))


PLUGGED, WAITING = ("True", "PortsPlugged"), ("False", "WaitingForApplication")


async def test_conditions_of_an_attachment(made: ClusterNode) -> None:
    """ADD is told as Plugged, an application as Connected, DEL as the opposite; the controller's condition stays."""
    async with made.running(telling=True) as node:
        recovering = asyncio.ensure_future(node.node.recovery.run())
        arguments = await attached(node)
        await told(node, Bound=("True", "PortsBound"), Plugged=PLUGGED, Connected=WAITING)
        connect(node)
        await told(node, Plugged=PLUGGED, Connected=("True", "LinksUp"))
        connect(node, up=False)
        await told(node, Plugged=PLUGGED, Connected=WAITING)
        await node.call("DEL", **arguments)
        await told(
            node, Bound=("True", "PortsBound"), Plugged=("False", "NotPlugged"), Connected=("False", "NotPlugged")
        )
        recovering.cancel()
        await asyncio.wait({recovering})


@pytest.mark.parametrize("verb", ["DEL", "GC"])
async def test_nothing_is_kept(made: ClusterNode, verb: str) -> None:
    """Of attachments that are gone nothing is kept, and what their pod has lost is told, whichever verb it was."""
    async with made.running(telling=True) as node:
        arguments = await attached(node, VU0, VU1)
        await told(node, Plugged=PLUGGED)
        assert node.reporter is not None
        assert len(node.reporter._pods) == 2
        network = config(bridge=None, name="podvif") | ({"cni.dev/valid-attachments": []} if verb == "GC" else {})

        await node.call(verb, network, **arguments)

        await told(node, Plugged=("False", "NotPlugged"))
        async with asyncio.timeout(SECONDS):
            while node.reporter._pods:  # noqa: ASYNC110  the task's own next round is the event
                await asyncio.sleep(0.001)


async def test_written_once(made: ClusterNode) -> None:
    """What the object says already is not written again, however often something is heard of the pod."""
    async with made.running(telling=True) as node:
        arguments = await attached(node)
        await told(node, Plugged=PLUGGED)
        assert node.reporter is not None
        applied = node.kube.requests.count("apply podvifs.podvif.io")

        for entry in node.node.journal.all():
            node.reporter.touch(entry.attachment)
        await node.call(**arguments)
        while node.reporter._due:  # noqa: ASYNC110  the task's own next round is the event
            await asyncio.sleep(0.001)

        assert node.kube.requests.count("apply podvifs.podvif.io") == applied


async def test_api_server_that_is_away(made: ClusterNode) -> None:
    """While the API server is away verbs work, no more than names of pods is kept, and all is told when it is back."""
    async with made.running(telling=True) as node:
        arguments = await attached(node)
        await told(node, Plugged=PLUGGED)
        node.kube.lose()
        await node.podvifs.out_of_sync()
        assert node.reporter is not None
        for _ in range(3):
            await node.call("DEL", **arguments)
            await node.call(**arguments)
        await node.call("DEL", **arguments)
        assert len(node.reporter._due) <= 1
        requests = len([request for request in node.kube.requests if request.startswith("apply")])

        node.kube.regain()

        await told(node, Plugged=("False", "NotPlugged"))
        applied = [request for request in node.kube.requests if request.startswith("apply")]
        assert len(applied) == requests + 1


@pytest.mark.parametrize("error", [Retry("the server is busy"), Refused("forbidden")])
async def test_write_that_fails(made: ClusterNode, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A write that fails is said once and costs no verb anything; what may pass is tried again, the rest at the next event."""
    failed = 0

    def fail(verb: str, resource: Resource, key: Key | None) -> None:
        nonlocal failed
        if verb == "apply" and resource == PODVIFS and failed < 3:
            failed += 1
            raise error

    async with made.running(telling=True) as node:
        uid = await node.controller.pod()
        await node.controller.make(uid=uid)
        await node.controller.bind()
        await node.told()
        node.kube.before = fail
        arguments: dict[str, Any] = {"CNI_ARGS": f"K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID={uid}"}
        await node.call(**arguments)
        async with asyncio.timeout(SECONDS):
            while failed < (3 if isinstance(error, Retry) else 1):  # noqa: ASYNC110  likewise
                await asyncio.sleep(0.001)
        if isinstance(error, Refused):
            failed = 3
            await node.call("DEL", **arguments)
            await node.call(**arguments)

        await told(node, Plugged=PLUGGED)

        said = [record for record in caplog.records if "was not told what the node sees" in record.message]
        assert len(said) == 1


async def test_told_again_after_a_restart(made: ClusterNode) -> None:
    """A daemon that is started tells what is so then: what has changed while none ran is not missed."""
    async with made.running(telling=True) as node:
        await attached(node)
        await told(node, Plugged=PLUGGED)
    node.node.switch.remove_port("vhu00000001-00")
    node.again()

    async with node.running(telling=True):
        await told(node, Plugged=("False", "NotPlugged"))
        await node.node.recover()
        await told(node, Plugged=PLUGGED)


async def test_condition_of_another_object(made: ClusterNode) -> None:
    """The PodVif of a pod that came again under the name is not told what is so of the former pod."""
    async with made.running(telling=True) as node:
        await attached(node)
        await told(node, Plugged=PLUGGED)
        await node.controller.delete()
        await node.controller.make(uid="next")
        await node.controller.bind()
        await node.told()
        assert node.reporter is not None
        for entry in node.node.journal.all():
            node.reporter.touch(entry.attachment)
        while node.reporter._due:  # noqa: ASYNC110  the task's own next round is the event
            await asyncio.sleep(0.001)

        assert conditions(await node.controller.podvif()) == {"Bound": ("True", "PortsBound")}


async def test_times_stay(made: ClusterNode) -> None:
    """A condition whose status does not change keeps the time at which it became so."""
    async with made.running(telling=True) as node:
        arguments = await attached(node)
        await told(node, Plugged=PLUGGED)
        (before,) = [each for each in (await node.controller.podvif()).status.conditions if each.type == "Plugged"]
        early: list[Any] = [
            msgspec.to_builtins(msgspec.structs.replace(before, last_transition_time="2020-01-01T00:00:00Z"))
        ]
        await node.kube.apply(
            PODVIFS, node.controller.key(), {"status": {"conditions": early}}, "podvif-node", status=True
        )
        await node.told()
        await node.call(**arguments)
        await told(node, Plugged=PLUGGED, Connected=WAITING)

        found: list[Condition] = [
            each for each in (await node.controller.podvif()).status.conditions if each.type == "Plugged"
        ]
        assert found[0].last_transition_time == "2020-01-01T00:00:00Z"


async def test_network_status(made: ClusterNode) -> None:
    """The pod's annotation names all interfaces with their addresses and device-info, and other annotations stay."""
    async with made.running(telling=True) as node:
        await node.kube.create(PODS, {"metadata": {"namespace": "ns", "name": "q"}}, "x")
        await attached(node, VU0, VU1)

        async def annotated() -> bool:
            return NETWORK_STATUS in await node.controller.annotations()

        await until(annotated)
        first, second = json.loads((await node.controller.annotations())[NETWORK_STATUS])
        assert (first["name"], first["interface"], first["default"]) == ("podvif", "vu0", True)
        assert (second["interface"], second["ips"], second["mac"]) == ("vu1", ["10.10.1.2"], "fa:16:3e:00:00:02")
        assert second["device-info"] == {
            "type": "vhost-user",
            "version": "1.1.0",
            "vhost-user": {"mode": "server", "path": f"{node.node.pods}/vhu00000002-00"},
        }
        assert node.kube.requests.count("merge pods") == 1


async def test_network_status_is_multus_s(made: ClusterNode) -> None:
    """Where Multus delegates an interface the annotation is his."""
    async with made.running(telling=True) as node:
        arguments = await attached(node, VU0, NET1)
        await node.call("ADD", config(bridge=None, name="fast", subnetId=OTHER_SUBNET.id), "net1", **arguments)
        await told(node, Plugged=PLUGGED)

        assert await node.controller.annotations() == {}
