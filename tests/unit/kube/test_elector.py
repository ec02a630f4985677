"""The elector by a clock of the test's; tests/kube holds elections."""

import asyncio

import pytest

from podvif.errors import Bug, Refused, Retry
from podvif.kube.elector import Elector, Timing
from podvif.kube.resources import LEASES, Key
from tests.fakes.kube import FakeKube

KEY = Key("podvif", "controller")
TIMING = Timing(15, 10, 2)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("times", [(10, 10, 2), (15, 2, 2), (0.9, 0.5, 0.1), (15, 10, 0), (15, 10, 9)])
def test_unsafe_times(times: tuple[float, float, float]) -> None:
    """Times by which two could lead, or none could stay leader, are refused."""
    with pytest.raises(Refused, match="not safe"):
        Timing(*times)


async def test_leads_by_its_own_clock() -> None:
    """A leadership ends ten seconds after its renewal was sent, whether or not the process had a chance to notice."""
    kube, clock = FakeKube(), Clock()
    elector = Elector(kube, KEY, "a", TIMING, clock=clock)
    leads = {"before": elector.leading}
    kube.before = lambda *_: setattr(clock, "now", clock.now + 1)  # each request takes a second
    assert await elector._try_to("get")  # one to look and one to make: the second was sent at 1001
    for clock.now in (1010.9, 1011.0):
        leads[str(clock.now)] = elector.leading
    assert leads == {"before": False, "1010.9": True, "1011.0": False}


async def test_late_answer() -> None:
    """An answer that comes after the deadline of its own renewal makes nobody leader."""
    kube, clock = FakeKube(), Clock()
    kube.before = lambda *_: setattr(clock, "now", clock.now + 11)
    assert not await Elector(kube, KEY, "a", TIMING, clock=clock)._try_to("get")


async def test_waits_for_the_lease() -> None:
    """Who finds a lease takes it fifteen seconds after having seen it renewed for the last time, and not before."""
    kube, clock = FakeKube(), Clock()
    first, second = (Elector(kube, KEY, name, TIMING, clock=clock) for name in "ab")
    assert await first._try_to("get")
    assert not await second._try_to("get")
    clock.now += 9
    assert await first._try_to("renew")
    clock.now += 5
    assert not await second._try_to("get")  # it sees the renewal only now
    clock.now += 14.9
    assert not first.leading
    assert not await second._try_to("get")
    clock.now += 0.2
    assert await second._try_to("get")
    assert not await first._try_to("get")
    lease = await kube.get(LEASES, KEY)
    assert lease is not None
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)


async def test_two_at_once() -> None:
    """Of two that write on the same version of the lease one gets it."""
    kube, clock = FakeKube(), Clock()
    first, second = (Elector(kube, KEY, name, TIMING, clock=clock) for name in "ab")
    got = await asyncio.gather(first._try_to("get"), second._try_to("get"))
    assert sorted(got) == [False, True]
    assert sorted([first.leading, second.leading]) == [False, True]


async def test_answer_lost() -> None:
    """A renewal whose answer was lost is no loss of the lease: the next one goes on from what stands there."""
    kube, clock = FakeKube(), Clock()
    elector = Elector(kube, KEY, "a", TIMING, clock=clock)
    assert await elector._try_to("get")
    await kube.merge(LEASES, KEY, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}, "a")
    assert not await elector._try_to("renew")
    assert elector.leading
    assert await elector._try_to("renew")


async def test_lease_is_taken_away() -> None:
    """A leader that finds somebody else in the lease stops at once."""
    kube, clock = FakeKube(), Clock()
    elector = Elector(kube, KEY, "a", TIMING, clock=clock)
    assert await elector._try_to("get")
    await kube.merge(LEASES, KEY, {"spec": {"holderIdentity": "b"}}, "b")
    assert not await elector._try_to("renew")
    assert not await elector._try_to("renew")
    assert not elector.leading
    assert elector.holder == "b"


async def test_whole_seconds() -> None:
    """The others wait for what stands in the lease: whole seconds, and no less than we count on."""
    kube = FakeKube()
    assert await Elector(kube, KEY, "a", Timing(2.5, 2, 0.5))._try_to("get")
    lease = await kube.get(LEASES, KEY)
    assert lease is not None
    assert lease["spec"]["leaseDurationSeconds"] == 3


async def test_work_that_does_not_stop() -> None:
    """Work that goes on after its cancellation for longer than the lease is a bug, by which the process should end."""
    kube = FakeKube()
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    elector = Elector(kube, KEY, "a", Timing(1, 0.2, 0.05))
    running = asyncio.create_task(elector.run(stubborn))
    await begun.wait()
    kube.lose()
    with pytest.raises(Bug, match="did not stop"):
        await running
    assert not elector.leading
    let_go.set()


async def test_release_fails() -> None:
    """A lease that cannot be given back runs out by itself: the stop goes on."""
    kube = FakeKube()
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(Elector(kube, KEY, "a", TIMING).run(work))
    await begun.wait()

    def refuse(*_: object) -> None:
        raise Retry("busy")

    kube.before = refuse
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
