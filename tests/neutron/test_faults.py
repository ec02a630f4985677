"""The controller's faults, with a real API server and with Neutron on OVN and on the Open vSwitch agent.

Law: whatever happens, a pod that stands is bound in the end, a pod that is gone has no port, and no port was ever made twice.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from podvif.kube.resources import LEASES, PODVIFS
from podvif.lab.controller import Controller
from tests.neutron.proxy import Wire
from tests.neutron.stage import AGENT, OVN, RealStage, controller, until

pytestmark = pytest.mark.node

CRASHING = Path(__file__).with_name("crashing_controller.py")
AT_ONCE: dict[str, Any] = {"lease_duration": "1.5", "lease_renew_deadline": "1.2", "lease_retry_period": "0.2"}
"""For a Lease whose holder was killed."""


@AGENT
async def test_killed_after_each_act(stage: RealStage, tmp_path: Path) -> None:
    """A controller that is killed after every single act makes and deletes a pod's two ports all the same, in four lives each."""
    await stage.subnet_nad("fast", stage.subnet)
    with controller(stage, tmp_path, program=[sys.executable, str(CRASHING)], **AT_ONCE) as dying:

        async def dies(times: int) -> None:
            for _ in range(times):
                # A controller that remembers nothing believes only the second time that Neutron has a port no more.
                assert await asyncio.to_thread(dying.child.wait, 40) == -9
                assert len(await stage.ports()) <= 2
                dying.start()

        await stage.pod(networks="fast")
        await dies(3)
        assert not await stage.bound({"p1"})
        await dies(1)
        assert await stage.bound({"p1"})
        await stage.remove_pod()
        await dies(4)
        assert await stage.bound(set())


async def leader(stage: RealStage) -> str:
    """Who holds the Lease."""
    lease = await stage.kube.get(LEASES, stage.world.key("podvif-controller"))
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


@AGENT
async def test_leader_killed(stage: RealStage, tmp_path: Path) -> None:
    """Of two controllers the one that leads is killed in the middle of its work: the other one finishes it, port by port once."""
    names = [f"p{number}" for number in range(8)]
    with controller(stage, tmp_path / "a", **AT_ONCE) as first:

        async def led() -> bool:
            return bool(await leader(stage))

        await until(led)
        former = await leader(stage)
        with controller(stage, tmp_path / "b", **AT_ONCE):
            await asyncio.gather(*(stage.pod(name) for name in names))

            async def some() -> bool:
                return len(await stage.ports()) > 1

            await until(some)
            first.kill()
            await stage.until_bound(*names)
            assert await leader(stage) not in {"", former}
            await asyncio.gather(*(stage.remove_pod(name) for name in names))
            await stage.until_bound()


@AGENT
async def test_down_at_start(stage: RealStage, tmp_path: Path) -> None:
    """A controller that starts while Neutron is down says so of pod and Lease, and serves the pod when Neutron is up."""
    stage.neutron.stop_api()
    try:
        with controller(stage, tmp_path, retry_max=2):
            await stage.pod()
            condition = await stage.until_said("NeutronUnreachable")
            assert condition.message.startswith("Neutron unreachable since 20")
            await until(lambda: _is_told(stage, "NeutronCredentials", "podvif-controller"))
            stage.neutron.start_api()
            await stage.until_bound("p1")
            await stage.remove_pod()
            await stage.until_bound()
    finally:
        if stage.neutron.stopped:
            stage.neutron.start_api()


@AGENT
async def test_answer_lost(stage: RealStage, tmp_path: Path) -> None:
    """When Neutron's answer to a creation is lost, the port that it has made is the pod's, and there is no second one."""
    async with Wire(stage.neutron.port) as wire:
        way = {"endpoint": wire.url, "endpoint_override": wire.url}
        with controller(stage, tmp_path, neutron=way) as running:
            await until(lambda: _has_said(running, "the credentials for Neutron may do what is needed"))
            wire.lose_answers = 1
            await stage.pod()
            await until(lambda: _is_lost(wire))
            (port,) = await stage.ports()
            await stage.until_bound("p1")
            assert await stage.port_of() == port["id"]
            assert "NeutronUnreachable" in await stage.notes()
            await stage.remove_pod()
            await stage.until_bound()
            assert await asyncio.to_thread(running.stop) == 0  # the wire is ours: it must not stand still meanwhile


async def _has_said(running: Controller, words: str) -> bool:
    return words in running.log.read_text()


async def _is_lost(wire: Wire) -> bool:
    return wire.lose_answers == 0


@AGENT
async def test_port_that_comes_late(stage: RealStage, tmp_path: Path) -> None:
    """A second port, which Neutron makes long after it was given up, goes with the next round, and the pod's own stays."""
    with controller(stage, tmp_path, resync_interval=1):
        await stage.pod()
        await stage.until_bound("p1")
        (port,) = await stage.ports()
        same = ("network_id", "name", "description", "device_id", "device_owner", "binding:host_id", "tags")
        about = {key: port[key] for key in same}
        await asyncio.to_thread(lambda: stage.neutron.create("port", **about))
        await stage.until_bound("p1")
        assert await stage.port_of() == port["id"]
        await stage.remove_pod()
        await stage.until_bound()


@AGENT
async def test_pods_that_do_not_stay(stage: RealStage, tmp_path: Path) -> None:
    """Pods that are deleted before their ports are bound leave nothing; one that comes again under its name has a port of its own."""
    with controller(stage, tmp_path):
        for number in range(8):
            await stage.pod(f"brief-{number}")
            if number % 2:
                await until(lambda name=f"brief-{number}": _is_begun(stage, name))  # type: ignore[misc]
            await stage.remove_pod(f"brief-{number}")
        await stage.pod()
        await stage.until_bound("p1")
        former = await stage.port_of()
        await stage.remove_pod()
        uid = (await stage.pod())["metadata"]["uid"]

        async def is_its_own() -> bool:
            podvif = (await stage.podvifs()).get("p1")
            return podvif is not None and podvif.spec.pod_uid == uid and await stage.bound({"p1"})

        await until(is_its_own)
        (port,) = await stage.ports()
        assert port["id"] != former
        assert port["device_id"] == uid
        await stage.remove_pod()
        await stage.until_bound()


async def _is_begun(stage: RealStage, name: str) -> bool:
    return name in await stage.podvifs()


@AGENT
async def test_deleted_by_hand(stage: RealStage, tmp_path: Path) -> None:
    """A PodVif that somebody deletes comes again over the same port; a port that somebody deletes is made again."""
    with controller(stage, tmp_path, resync_interval=1, sweep_grace=2):
        await stage.pod()
        await stage.until_bound("p1")
        port = await stage.port_of()
        uid = (await stage.podvifs())["p1"].uid
        await stage.kube.delete(PODVIFS, stage.world.key())

        async def is_new() -> bool:
            podvif = (await stage.podvifs()).get("p1")
            return podvif is not None and podvif.uid != uid and await stage.bound({"p1"})

        await until(is_new)
        assert await stage.port_of() == port
        await asyncio.to_thread(stage.neutron.ask, "DELETE", f"/ports/{port}")

        async def is_replaced() -> bool:
            return await stage.bound({"p1"}) and await stage.port_of() != port

        await until(is_replaced)
        await stage.remove_pod()
        await stage.until_bound()


@AGENT
async def test_unbound(stage: RealStage, tmp_path: Path) -> None:
    """A port that Neutron calls unbound says so in event and condition, and the same port is bound again."""
    with controller(stage, tmp_path, resync_interval=1):
        await stage.pod()
        await stage.until_bound("p1")
        port = await stage.port_of()
        await asyncio.to_thread(stage.neutron.unbind, port)

        async def said() -> bool:
            return "Unbound" in await stage.notes()

        await until(said)
        await stage.until_bound("p1")
        assert await stage.port_of() == port
        assert (await stage.ports())[0]["binding:vif_type"] == "vhostuser"
        await until(lambda: _is_told(stage, "Bound"))
        await stage.remove_pod()
        await stage.until_bound()


async def _is_told(stage: RealStage, reason: str, name: str = "p1") -> bool:
    return reason in await stage.notes(name)


@OVN
async def test_without_the_role(stage: RealStage, tmp_path: Path) -> None:
    """Credentials without the role are told of at the Lease and at the pod, with the right that is missing, and leave no port."""
    with controller(stage, tmp_path, neutron=stage.neutron.options("member")):
        await stage.pod()
        condition = await stage.until_said("PortRefused")
        assert "binding:host_id" in condition.message
        assert "`service`" in (await stage.notes())["PortRefused"]
        await until(lambda: _is_told(stage, "NeutronCredentials", "podvif-controller"))
        assert "may not set binding:host_id" in (await stage.notes("podvif-controller"))["NeutronCredentials"]
        assert await stage.ports() == []
        await stage.remove_pod()
        await stage.until_bound()


@OVN
async def test_host_renamed(stage: RealStage, tmp_path: Path) -> None:
    """When a node is renamed, to more characters than a label has, its bound pods stay, its new ones are bound, and those under the old name say what is wrong until it has that again."""
    old, new = stage.node, "a-node-of-a-long-name." * 9 + "example"
    with controller(stage, tmp_path, retry_max=2):
        await stage.pod("before")
        await stage.until_bound("before")
        stage.neutron.rename_host(new)
        try:
            await until(lambda: _knows_host(stage, new))
            await stage.pod("late")
            condition = await stage.until_said("BindingFailed", "late")
            assert f"node {old}" in condition.message
            stage.node = new
            await stage.pod("after")
            await stage.until_true("after")
        finally:
            stage.neutron.rename_host(old)
        await stage.until_bound("before", "late", "after")
        for name in ("before", "late", "after"):
            await stage.remove_pod(name)
        await stage.until_bound()


async def _knows_host(stage: RealStage, name: str) -> bool:
    found = await asyncio.to_thread(stage.neutron.ask, "GET", f"/agents?host={name}")
    return any(agent["alive"] for agent in found["agents"])
