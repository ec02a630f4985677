"""One leader at a time, by a Lease on an API server, the fake one or the real one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podvif.kube.client import Kube
from podvif.kube.elector import Elector, Timing
from podvif.kube.resources import LEASES
from podvif.lab.process import Child
from tests.kube.way import Way
from tests.kube.worlds import SECONDS, Api, RealWorld, World

TIMING = Timing(duration=3, renew_deadline=2, retry=0.25)


class Office:
    """What only one may hold; it notes who came and went."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.inside: set[str] = set()
        self.together: list[set[str]] = []
        self._changed = asyncio.Condition()

    async def hold(self, name: str) -> None:
        """Hold it until cancelled."""
        await self._note(f"{name} leads", self.inside | {name})
        try:
            await asyncio.Event().wait()
        finally:
            await self._note(f"{name} stopped", self.inside - {name})

    async def _note(self, what: str, inside: set[str]) -> None:
        async with self._changed:
            self.inside = inside
            self.log.append(what)
            if len(inside) > 1:
                self.together.append(inside)
            self._changed.notify_all()

    async def held(self) -> None:
        """Wait until somebody holds it."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self.inside))

    async def until(self, what: str) -> None:
        """Wait until the last thing that happened is `what`."""
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.log[-1:] == [what])


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    """An office that was never held by two."""
    office = Office()
    yield office
    assert office.together == []


def candidate(kube: Api, world: World, office: Office, name: str) -> "tuple[Elector, asyncio.Task[None]]":
    """A candidate who stands."""
    elector = Elector(kube, world.key("leader"), name, TIMING)
    return elector, asyncio.create_task(elector.run(lambda: office.hold(name)))


async def stop(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_clean_stop(world: World, office: Office) -> None:
    """A leader that is stopped gives the lease back after its work has ended, and the next one begins."""
    first, task = candidate(world.kube, world, office, "a")
    await office.until("a leads")
    second, other = candidate(world.kube, world, office, "b")
    assert (first.leading, second.leading) == (True, False)
    await stop(task)
    lease = await world.kube.get(LEASES, world.key("leader"))
    assert lease is not None
    assert lease["spec"].get("holderIdentity") in {None, "", "b"}
    await office.until("b leads")
    assert office.log == ["a leads", "a stopped", "b leads"]
    assert (first.leading, second.leading) == (False, True)
    await stop(other)


async def test_many(world: World, office: Office) -> None:
    """Of many candidates at once one leads, and each leads in the end as the ones before it stop."""
    names = {f"c{number}" for number in range(4)}
    tasks = {name: candidate(world.kube, world, office, name)[1] for name in names}
    for _ in names:
        async with asyncio.timeout(SECONDS):
            await office.held()
        (name,) = office.inside
        await stop(tasks.pop(name))
    assert {line.removesuffix(" leads") for line in office.log if line.endswith(" leads")} == names


async def test_server_away(world: World, office: Office) -> None:
    """While the server is away the leader stops at its deadline, and one leads again when the server is back."""
    elector, task = candidate(world.kube, world, office, "a")
    await office.until("a leads")
    await world.lose()
    await office.until("a stopped")
    assert not elector.leading
    await world.regain()
    await office.until("a leads")
    await stop(task)


async def test_server_hangs(world: World, office: Office) -> None:
    """A leader whose request hangs stops at its deadline all the same."""
    elector, task = candidate(world.kube, world, office, "a")
    await office.until("a leads")
    world.hang()
    try:
        await office.until("a stopped")
        assert not elector.leading
    finally:
        world.resume()
    await stop(task)


async def test_work_ends(world: World) -> None:
    """What the leader's work returns with or raises ends the candidacy, and the lease is given back."""

    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Elector(world.kube, world.key("leader"), "a", TIMING).run(fails)
    await Elector(world.kube, world.key("leader"), "b", TIMING).run(lambda: asyncio.sleep(0))
    lease = await world.kube.get(LEASES, world.key("leader"))
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")
    assert lease["spec"]["leaseTransitions"] == 1


async def test_cut_off(real: RealWorld, office: Office, tmp_path: Path) -> None:
    """A leader that is cut off has stopped before another one leads, and does not lead when the way is open again."""
    async with Way(real.api.address, real.api.port) as way:
        config = real.api.write_kubeconfig(tmp_path / "far.kubeconfig", url=f"https://127.0.0.1:{way.port}")
        far = Kube(str(config))
        elector, cut_off = candidate(far, real, office, "a")
        await office.until("a leads")
        _, other = candidate(real.kube, real, office, "b")
        way.cut()
        await office.until("b leads")
        assert not elector.leading
        way.mend()
        await real.kube.get(LEASES, real.key("leader"))
        assert office.log == ["a leads", "a stopped", "b leads"]
        await stop(other)
        await office.until("a leads")
        await stop(cut_off)
        await far.close()


async def test_killed(real: RealWorld, office: Office, tmp_path: Path) -> None:
    """After the leader's process was killed another one leads, when the lease has run out."""
    arguments = [real.namespace, "leader", "process", *map(str, (TIMING.duration, TIMING.renew_deadline, TIMING.retry))]
    command = [sys.executable, "-m", "tests.kube.candidate", str(real.api.kubeconfig), *arguments]
    child = Child(command, log=tmp_path / "candidate.log", pipe=True)
    try:
        line = await asyncio.to_thread(child.stdout.readline)
        assert line == b"process leads\n", child.last_words()
        _, other = candidate(real.kube, real, office, "b")
    finally:
        child.kill()
        child.stdout.close()
    lease = await real.kube.get(LEASES, real.key("leader"))
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "process"
    await office.until("b leads")
    await stop(other)
