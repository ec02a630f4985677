"""Events over the fake; tests/kube writes them to a real server."""

import pytest

from podvif.errors import Retry
from podvif.kube.events import NOTE_MAX, Level, Recorder, Regarding
from podvif.kube.resources import EVENTS, NODES, PODS, Key
from tests.fakes.kube import FakeKube

POD = Regarding(PODS, Key("ns", "p1"), "u1")


async def test_counts() -> None:
    """The same thing said again is counted, also after a restart; another pod of the same name has its own Event."""
    kube = FakeKube()
    for regarding in (POD, POD, Regarding(PODS, POD.key, "u2")):
        await Recorder(kube, "podvif.io/controller", "x").record(regarding, Level.WARNING, "Why", "Do", "note")
    counts = {item["regarding"]["uid"]: item.get("series", {}).get("count") for item in kube.objects(EVENTS).values()}
    assert counts == {"u1": 2, "u2": None}


async def test_long_note() -> None:
    """A note is cut off at the API's limit in bytes, and between characters."""
    kube = FakeKube()
    await Recorder(kube, "podvif.io/controller", "x").record(POD, Level.NORMAL, "Why", "Do", "é" * NOTE_MAX)
    (event,) = kube.objects(EVENTS).values()
    assert event["note"] == "é" * (NOTE_MAX // 2)


async def test_node() -> None:
    """An Event of what lives in no namespace is in `default`, as the API wants it."""
    kube = FakeKube()
    node = Regarding(NODES, Key("", "n1"), "u1")
    await Recorder(kube, "podvif.io/controller", "x").record(node, Level.NORMAL, "Why", "Do", "note")
    ((key, event),) = kube.objects(EVENTS).items()
    assert key.namespace == "default"
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1"}


async def test_nobody_fails_by_it(caplog: pytest.LogCaptureFixture) -> None:
    """An Event that cannot be written is a line in the log."""
    kube = FakeKube()
    kube.lose("gone")
    await Recorder(kube, "podvif.io/controller", "x").record(POD, Level.NORMAL, "Why", "Do", "note")
    assert "no Event Why of ns/p1" in caplog.text


async def test_dropped_meanwhile() -> None:
    """An Event that the server drops between two steps is made again."""
    kube = FakeKube()
    recorder = Recorder(kube, "podvif.io/controller", "x")
    await recorder.record(POD, Level.NORMAL, "Why", "Do", "note")
    (key,) = kube.objects(EVENTS)

    def drop(verb: str, *_: object) -> None:
        if verb == "merge":
            kube.before = lambda *_: None
            raise Retry("dropped")

    await kube.delete(EVENTS, key)
    kube.before = drop
    await recorder.record(POD, Level.NORMAL, "Why", "Do", "note")
    assert kube.objects(EVENTS).keys() == {key}
