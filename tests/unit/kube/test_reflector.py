"""The reflector's pure parts; tests/kube follows a server with it."""

import asyncio

import pytest

from podvif.errors import Refused
from podvif.kube.reflector import Backoff, Reflector
from podvif.kube.resources import PODVIFS, Document, Key
from tests.fakes.kube import FakeKube


def test_backoff() -> None:
    """The wait doubles up to its limit, and chance takes off up to a half."""
    backoff = Backoff(first=1, most=10)
    assert [backoff.delay(failures, 1) for failures in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 10, 10]
    assert backoff.delay(3, 0) == 2


async def test_refused_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is tried again too: whoever gives the right need not restart podvif.  The log has it once, also at the start."""
    kube = FakeKube()
    allowed, tried = asyncio.Event(), asyncio.Event()

    def forbid(*_: object) -> None:
        if not allowed.is_set():
            tried.set()
            raise Refused("forbidden")

    kube.before = forbid
    reflector = Reflector(kube, PODVIFS, dict, backoff=Backoff(0.01, 0.01))
    running = asyncio.create_task(reflector.run())
    async with asyncio.timeout(5):
        await tried.wait()
        assert not reflector.objects
        allowed.set()
        await reflector.in_sync()
    running.cancel()
    assert [record.message for record in caplog.records if "out of sync" in record.message] == [
        "podvifs.podvif.io are out of sync: forbidden"
    ]


async def test_out_of_sync_since() -> None:
    """It is out of sync since it has last heard of the server, not since it has noticed."""
    kube, clock = FakeKube(), [100.0]
    reflector = Reflector(kube, PODVIFS, dict, clock=lambda: clock[0])
    since = [reflector.out_of_sync_since]
    running = asyncio.create_task(reflector.run())
    async with asyncio.timeout(5):
        await reflector.in_sync()
        since.append(reflector.out_of_sync_since)
        clock[0] = 130.0
        kube.lose()
        await reflector.out_of_sync()
        since.append(reflector.out_of_sync_since)
    assert since == [100.0, None, 100.0]
    running.cancel()


async def test_no_news() -> None:
    """A change of what is not kept is told nobody."""
    kube = FakeKube()
    key = Key("a", "b")
    await kube.create(PODVIFS, {"metadata": {"namespace": "a", "name": "b"}, "spec": {"nodeName": "n1"}}, "m")
    reflector = Reflector(kube, PODVIFS, _node)
    told: list[Key] = []
    reflector.on_change(told.extend)
    running = asyncio.create_task(reflector.run())
    async with asyncio.timeout(5):
        await reflector.in_sync()
        changed = asyncio.create_task(reflector.changed(key))
        await kube.merge(PODVIFS, key, {"metadata": {"labels": {"c": "d"}}}, "m")
        await kube.merge(PODVIFS, key, {"spec": {"nodeName": "n2"}}, "m")
        await changed
    assert (told, reflector.get(key)) == ([key, key], "n2")
    running.cancel()


async def test_error_of_a_subscriber() -> None:
    """An error of a subscriber is not swallowed: it ends the reflector."""
    kube = FakeKube()
    await kube.create(PODVIFS, {"metadata": {"namespace": "a", "name": "b"}}, "m")
    reflector = Reflector(kube, PODVIFS, dict)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    reflector.on_change(fail)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(reflector.run(), 5)


def _node(document: Document) -> str:
    return str(document["spec"]["nodeName"])
