"""The reflector follows an API server, the fake one or the real one, whatever happens to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from podvif.kube.client import Kube
from podvif.kube.convert import parse_podvif
from podvif.kube.reflector import Backoff, Reflector
from podvif.kube.resources import PODVIFS, Document, Key, Where
from podvif.podvifs import PodVif
from tests.kube.way import Way
from tests.kube.worlds import MANAGER, SECONDS, Api, RealWorld, World

QUICK = Backoff(first=0.05, most=0.5)


@contextlib.asynccontextmanager
async def following(kube: Api, where: Where, **arguments: Any) -> AsyncIterator[Reflector[PodVif]]:
    """A reflector that runs, and has listed."""
    reflector = Reflector(kube, PODVIFS, parse_podvif, where, backoff=QUICK, **arguments)
    running = asyncio.ensure_future(reflector.run())
    try:
        async with asyncio.timeout(SECONDS):
            await reflector.in_sync()
        yield reflector
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):  # else it ended by an error of its own
            await running


async def until(reflector: Reflector[PodVif], key: Key, holds: Callable[[PodVif | None], bool]) -> None:
    """Wait by its events until the cache says so."""
    async with asyncio.timeout(SECONDS):
        while not holds(reflector.get(key)):
            await reflector.changed(key)


def told(reflector: Reflector[PodVif]) -> list[Key]:
    """What it tells from now on."""
    keys: list[Key] = []
    reflector.on_change(keys.extend)
    return keys


async def test_follows(world: World) -> None:
    """What is there, comes, changes and goes is in the cache, and subscribers are told each key."""
    await world.made("old")
    async with following(world.kube, world.here) as reflector:
        keys = told(reflector)
        assert reflector.objects.keys() == {world.key("old")}
        await world.made()
        await until(reflector, world.key(), lambda vif: vif is not None)
        await world.kube.merge(PODVIFS, world.key(), {"metadata": {"finalizers": ["podvif.io/ports"]}}, MANAGER)
        await until(reflector, world.key(), lambda vif: vif is not None and vif.finalizers == ("podvif.io/ports",))
        await world.kube.delete(PODVIFS, world.key())
        await until(reflector, world.key(), lambda vif: vif is not None and vif.deleting)
        await world.kube.merge(PODVIFS, world.key(), {"metadata": {"finalizers": None}}, MANAGER)
        await until(reflector, world.key(), lambda vif: vif is None)
        assert keys == [world.key()] * 4
        assert reflector.out_of_sync_since is None


async def test_server_dies(world: World) -> None:
    """Over the death and return of the server nothing is lost: it is out of sync meanwhile, and says so."""
    await world.made("stays")
    async with following(world.kube, world.here) as reflector:
        keys = told(reflector)
        await world.lose()
        async with asyncio.timeout(SECONDS):
            await reflector.out_of_sync()
        assert reflector.out_of_sync_since is not None
        assert reflector.get(world.key("stays")) is not None
        await world.regain()
        await world.made("new")
        await until(reflector, world.key("new"), lambda vif: vif is not None)
        async with asyncio.timeout(SECONDS):
            await reflector.in_sync()
        assert reflector.trouble is None
        assert keys == [world.key("new")]


async def test_forgotten(world: World) -> None:
    """After the server has forgotten the version that was followed all changes of the gap are found, deletions too."""
    for name in ("goes", "changes", "again", "stays"):
        await world.made(name)
    async with following(world.kube, world.here) as reflector:
        former = reflector.get(world.key("again"))
        assert former is not None
        keys = told(reflector)
        # It sleeps while the test does not wait for it: with the real server these requests are another client's.
        await world.kube.delete(PODVIFS, world.key("goes"))
        await world.kube.delete(PODVIFS, world.key("again"))
        await world.made("again")
        await world.made("comes")
        await world.kube.merge(PODVIFS, world.key("changes"), {"metadata": {"finalizers": ["a.b/c"]}}, MANAGER)
        await world.forget()
        await until(reflector, world.key("changes"), lambda vif: vif is not None and vif.finalizers == ("a.b/c",))
        await until(reflector, world.key("goes"), lambda vif: vif is None)
        await until(reflector, world.key("again"), lambda vif: vif is not None and vif.uid != former.uid)
        await until(reflector, world.key("comes"), lambda vif: vif is not None)
        assert world.key("stays") not in keys


@pytest.fixture
async def way(real: RealWorld) -> AsyncIterator[Way]:
    """A way to the real server."""
    async with Way(real.api.address, real.api.port) as way:
        yield way


@pytest.fixture
async def far(real: RealWorld, way: Way, tmp_path: Path) -> AsyncIterator[Kube]:
    """The real server, over the way."""
    config = real.api.write_kubeconfig(tmp_path / "far.kubeconfig", url=f"https://127.0.0.1:{way.port}")
    kube = Kube(str(config), seconds=1)
    yield kube
    way.mend()
    await kube.close()


async def test_gap(real: RealWorld, way: Way, far: Kube) -> None:
    """What was deleted, made anew and changed while the way was cut is found by the difference, and each key told once."""
    for name in ("goes", "changes", "again", "stays"):
        await real.made(name)
    async with following(far, real.here, window=1) as reflector:
        former = reflector.get(real.key("again"))
        keys = told(reflector)
        way.cut()
        await real.kube.delete(PODVIFS, real.key("goes"))
        await real.kube.delete(PODVIFS, real.key("again"))
        await real.made("again")
        await real.kube.merge(PODVIFS, real.key("changes"), {"metadata": {"finalizers": ["a.b/c"]}}, MANAGER)
        await way.drop()
        await reflector.out_of_sync()
        assert reflector.objects.keys() == {real.key(name) for name in ("goes", "changes", "again", "stays")}
        way.mend()
        await until(reflector, real.key("goes"), lambda vif: vif is None)
        await until(reflector, real.key("changes"), lambda vif: vif is not None and vif.finalizers != ())
        await until(
            reflector, real.key("again"), lambda vif: vif is not None and former is not None and vif.uid != former.uid
        )
        assert sorted(keys) == [real.key(name) for name in ("again", "changes", "goes")]


async def test_silence(real: RealWorld, way: Way, far: Kube) -> None:
    """A stream that falls silent without an end is given up, and all of the gap is found."""
    await real.made("goes")
    async with following(far, real.here, window=1) as reflector:
        way.cut()
        await real.kube.delete(PODVIFS, real.key("goes"))
        async with asyncio.timeout(SECONDS):
            await reflector.out_of_sync()
        await way.drop()
        way.mend()
        await until(reflector, real.key("goes"), lambda vif: vif is None)


async def test_unreadable(real: RealWorld, caplog: pytest.LogCaptureFixture) -> None:
    """An object that cannot be read is left out with a line in the log, and the others are followed."""

    def picky(document: Document) -> PodVif:
        if document["metadata"]["name"] == "bad":
            document = document | {"spec": {"nodeName": 1}}
        return parse_podvif(document)

    await real.made("bad")
    await real.made("good")
    reflector = Reflector(real.kube, PODVIFS, picky, real.here)
    running = asyncio.ensure_future(reflector.run())
    async with asyncio.timeout(SECONDS):
        await reflector.listed()
    running.cancel()
    assert reflector.objects.keys() == {real.key("good")}
    assert "bad is left out" in caplog.text
