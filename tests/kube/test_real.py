"""What only a real API server can show: it judges our CRD, breaks as it does, and hangs."""

import asyncio
from typing import Any

import pytest

from podvif.errors import Refused, Retry
from podvif.kube.client import Kube
from podvif.kube.events import Level, Recorder, Regarding
from podvif.kube.resources import CRDS, EVENTS, PODVIFS, Document, Key, Resource, Where
from tests.kube.worlds import MANAGER, SECONDS, RealWorld

UUID = "0b6f1a64-5b0e-4a52-9d3c-0123456789ab"


async def test_structural(real: RealWorld, crd: Document) -> None:
    """The server takes the CRD for structural: every condition it has is good."""
    found = await real.kube.get(CRDS, Key("", crd["metadata"]["name"]))
    assert found is not None
    states = {item["type"]: item["status"] for item in found["status"]["conditions"]}
    assert states == {"NamesAccepted": "True", "Established": "True"}


BAD: dict[str, dict[str, Any]] = {
    "no spec": {"spec": None},
    "no node": {"spec": {"podUID": "u"}},
    "empty pod uid": {"spec": {"nodeName": "n1", "podUID": ""}},
    "no interface name": {"spec": {"nodeName": "n1", "podUID": "u", "interfaces": [{"subnetId": UUID}]}},
    "long interface name": {"spec": {"nodeName": "n1", "podUID": "u", "interfaces": [{"name": "e" * 16}]}},
    "broken subnet": {"spec": {"nodeName": "n1", "podUID": "u", "interfaces": [{"name": "eth0", "subnetId": "x"}]}},
    "an interface twice": {"spec": {"nodeName": "n1", "podUID": "u", "interfaces": [{"name": "e"}, {"name": "e"}]}},
    "interfaces no list": {"spec": {"nodeName": "n1", "podUID": "u", "interfaces": "eth0"}},
}


@pytest.mark.parametrize("what", BAD)
async def test_validation(real: RealWorld, what: str) -> None:
    """A PodVif that is wrong is refused with the server's own words, which name the field."""
    document = real.podvif() | BAD[what]
    with pytest.raises(Refused, match="spec"):
        await real.kube.create(PODVIFS, {k: v for k, v in document.items() if v is not None}, MANAGER)


async def test_validation_of_status(real: RealWorld) -> None:
    """A status that is wrong is refused."""
    await real.made()
    status = {"status": {"interfaces": [{"name": "eth0", "state": "Nearly"}]}}
    with pytest.raises(Refused, match="state"):
        await real.kube.apply(PODVIFS, real.key(), status, MANAGER, status=True)


async def test_spec_is_immutable(real: RealWorld) -> None:
    """A PodVif's spec cannot be changed."""
    await real.made()
    with pytest.raises(Refused):
        await real.kube.merge(PODVIFS, real.key(), {"spec": {"nodeName": "n2"}}, MANAGER)


async def test_long_list(real: RealWorld) -> None:
    """A list of several pages has every object once."""
    for start in range(0, 1001, 50):
        await asyncio.gather(*(real.made(f"p{number}") for number in range(start, min(start + 50, 1001))))
    pages = [page async for page in real.kube.pages(PODVIFS, real.here)]
    assert [len(page.items) for page in pages] == [500, 500, 1]
    assert len({page.version for page in pages}) == 1
    assert len({item["metadata"]["name"] for page in pages for item in page.items}) == 1001


async def test_hangs(real: RealWorld) -> None:
    """A server that takes requests and does not answer ends each of them at its deadline, as one to retry."""
    impatient = Kube(str(real.api.kubeconfig), seconds=0.5)
    await impatient.get(PODVIFS, real.key())
    real.hang()
    try:
        with pytest.raises(Retry, match=r"Timeout|in time"):
            await impatient.get(PODVIFS, real.key())
        with pytest.raises(Retry, match=r"Timeout|in time"):
            _ = [event async for event in impatient.watch(PODVIFS, "0", real.here)]
    finally:
        real.resume()
        await impatient.close()


async def test_kind_not_served(real: RealWorld) -> None:
    """A kind whose CRD is missing is one to retry, and the remedy says so."""
    nads = Resource("nobody.example", "v1", "things", "Thing")
    with pytest.raises(Retry) as raised:
        await real.listed(nads, Where())
    assert "CRD" in raised.value.remedy


async def test_forbidden(real: RealWorld) -> None:
    """A request that the account has no right to is refused, with the account and the right in the message."""
    config = real.api.write_kubeconfig(real.api.folder / "nobody.kubeconfig", token=real.api.nobody)
    nobody = Kube(str(config))
    try:
        with pytest.raises(Refused, match='User "nobody" cannot list resource "podvifs"') as raised:
            _ = [page async for page in nobody.pages(PODVIFS)]
        assert "right" in raised.value.remedy
    finally:
        await nobody.close()


async def test_wrong_token(real: RealWorld) -> None:
    """A token that the server does not know is one to retry: a new one may come."""
    unknown = real.api.write_kubeconfig(real.api.folder / "stranger.kubeconfig", token=real.api.nobody[::-1])
    stranger = Kube(str(unknown))
    try:
        with pytest.raises(Retry, match="401"):
            await stranger.get(PODVIFS, real.key())
    finally:
        await stranger.close()


async def test_events(real: RealWorld) -> None:
    """The same thing said again is one Event whose series counts, by whichever replica; another thing is another Event."""
    made = await real.made()
    regarding = Regarding(PODVIFS, real.key(), made["metadata"]["uid"])
    recorders = [Recorder(real.kube, "podvif.io/controller", f"replica-{number}") for number in range(3)]
    note = "no free address in subnet s1"
    for recorder in recorders:
        await recorder.record(regarding, Level.WARNING, "PortNotMade", "CreatePort", note)
    await recorders[0].record(regarding, Level.NORMAL, "PortBound", "CreatePort", "eth0 has port 1 " + "é" * 1000)
    found, _ = await real.listed(EVENTS, Where(real.namespace))
    assert {item["reason"]: item.get("series", {}).get("count") for item in found} == {
        "PortNotMade": 3,
        "PortBound": None,
    }
    (said,) = (item for item in found if item["reason"] == "PortNotMade")
    assert (said["note"], said["type"], said["regarding"]["uid"]) == (note, "Warning", regarding.uid)


async def test_events_at_once(real: RealWorld) -> None:
    """Two replicas that say the same at the same time make one Event, and both are counted."""
    regarding = Regarding(PODVIFS, real.key(), (await real.made())["metadata"]["uid"])
    recorders = [Recorder(real.kube, "podvif.io/controller", f"replica-{number}") for number in range(2)]
    for _ in range(3):
        await asyncio.gather(
            *(recorder.record(regarding, Level.WARNING, "PortNotMade", "CreatePort", "no") for recorder in recorders)
        )
    (event,), _ = await real.listed(EVENTS, Where(real.namespace))
    assert event["series"]["count"] == 6


async def test_event_without_server(real: RealWorld) -> None:
    """An Event that cannot be written fails nobody."""
    recorder = Recorder(real.kube, "podvif.io/controller", "replica-0")
    nowhere = Regarding(PODVIFS, Key("no-such-namespace", "p1"), "u")
    async with asyncio.timeout(SECONDS):
        await recorder.record(nowhere, Level.NORMAL, "PortBound", "CreatePort", "eth0")
