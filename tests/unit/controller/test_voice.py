"""What is said, and what is not said again."""

import asyncio

from podvif.controller.cluster import Facts
from podvif.controller.voice import AGAIN, Said, Voice
from podvif.core.pods import Fail
from podvif.errors import Retry
from podvif.kube.events import Level, Regarding
from podvif.kube.resources import PODS, PODVIFS, Key
from podvif.podvifs import Condition, Status
from tests.fakes.cluster import cluster_pod, pod_vif

P = Key("ns", "p")
FAIL = Fail(Retry("no agent\nthere", "start one"), "BindingFailed")
BOUND = Status((), (Condition("Bound", "True", "PortsBound"),))
WAITS = Facts(cluster_pod(), pod_vif())


class Ear:
    """Hears what is said."""

    def __init__(self, *, leading: bool = True) -> None:
        self.heard: list[tuple[Regarding, Level, str, str]] = []
        self.voice = Voice(self, lambda: leading, asyncio.get_running_loop().time)

    async def record(self, regarding: Regarding, level: Level, reason: str, action: str, note: str) -> None:
        self.heard.append((regarding, level, reason, note))

    async def fails(self, facts: Facts, before: Said | None = None, fail: Fail = FAIL) -> Said | None:
        return await self.voice.fails(P, facts, fail, before)


async def test_fails() -> None:
    """Why a pod waits is said of the pod, in one line with what to do."""
    ear = Ear()
    await ear.fails(WAITS)

    about = Regarding(PODS, P, cluster_pod().uid)
    assert ear.heard == [(about, Level.WARNING, "BindingFailed", "no agent there; start one")]


async def test_once() -> None:
    """The same is not said again before the API server forgets it; something else is."""
    ear = Ear()
    said = await ear.fails(WAITS)
    said = await ear.fails(WAITS, said)
    assert len(ear.heard) == 1
    said = await ear.fails(WAITS, said, Fail(Retry("quota"), "PortNotMade"))
    assert len(ear.heard) == 2
    await asyncio.sleep(AGAIN)
    await ear.fails(WAITS, said, Fail(Retry("quota"), "PortNotMade"))
    assert len(ear.heard) == 3


async def test_of_another_pod() -> None:
    """A pod that comes again under the same name is told anew."""
    ear = Ear()
    said = await ear.fails(WAITS)
    await ear.fails(Facts(cluster_pod(uid="another"), None), said)
    assert len(ear.heard) == 2


async def test_of_a_pod_that_is_gone() -> None:
    """Where the pod is gone it is said of its PodVif."""
    ear = Ear()
    await ear.fails(Facts(None, pod_vif(deleting=True)))
    assert ear.heard[0][0] == Regarding(PODVIFS, P, "podvif-uid")


async def test_bound() -> None:
    """A pod that has its ports is not told of what is in the way now."""
    ear = Ear()
    assert await ear.fails(Facts(cluster_pod(), pod_vif(status=BOUND))) is None
    assert ear.heard == []


async def test_not_leading() -> None:
    """Who leads no more says nothing."""
    ear = Ear(leading=False)
    said = Said(cluster_pod().uid, "BindingFailed", "x", 0)
    await ear.fails(WAITS)
    await ear.voice.is_well(P, Facts(cluster_pod(), pod_vif(status=BOUND)), said)
    assert ear.heard == []


async def test_is_well() -> None:
    """That a pod waits no more is said if it was said that it does."""
    ear = Ear()
    well = Facts(cluster_pod(), pod_vif(status=BOUND))
    await ear.voice.is_well(P, well, None)
    assert ear.heard == []
    said = await ear.fails(WAITS)
    await ear.voice.is_well(P, well, said)
    assert [(level, reason) for _, level, reason, _ in ear.heard[1:]] == [(Level.NORMAL, "Bound")]
