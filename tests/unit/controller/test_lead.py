"""The controller as a whole, over an API server and a Neutron that behave: flows, crashes, outages, storms."""

import asyncio

import pytest

from podvif.kube.resources import LEASES, PODS, PODVIFS, Key
from podvif.model import NeutronPort
from podvif.podvifs import FINALIZER, NODE_LABEL, InterfaceState
from tests.fakes.controller import LEASE, NODE, Controller, Stage, staged

P = Key("ns", "p")


async def test_flow(stage: Stage) -> None:
    """A pod gets a PodVif of its own and a bound port, and when it is gone nothing is left."""
    pod = await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    document = stage.kube.objects(PODVIFS)[P]
    podvif = stage.podvif()
    assert podvif is not None
    assert podvif.spec.pod_uid == pod["metadata"]["uid"]
    assert document["metadata"]["labels"] == {NODE_LABEL: NODE}
    assert document["metadata"]["finalizers"] == [FINALIZER]
    assert document["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert podvif.status.interfaces[0].state is InterfaceState.BOUND
    assert podvif.status.conditions[0].last_transition_time

    await stage.kube.delete(PODS, P)
    await stage.never(lambda: not stage.bound(), 30)  # it may run until its grace is over
    stage.kube.finish(PODS, P)
    await stage.until(stage.empty)


async def test_few_requests(stage: Stage) -> None:
    """A new pod costs Neutron one creation, also when its conditions come later."""
    stage.controller()
    await stage.until(lambda: "our_ports" in stage.cloud.requests)
    stage.cloud.requests.clear()
    await stage.pod()
    await stage.until(stage.bound)
    plugged = {"status": {"conditions": [{"type": "Plugged", "status": "True", "reason": "Plugged"}]}}
    await stage.kube.apply(PODVIFS, P, plugged, "node", status=True)
    await asyncio.sleep(60)

    requests = [name for name in stage.cloud.requests if name not in {"find", "subnet", "network", "why_not_allowed"}]
    assert requests == ["create_port"]


async def test_additional_interfaces(stage: Stage) -> None:
    """A pod that names NetworkAttachmentDefinitions waits for one that is missing, and goes on when it is made."""
    _, other = stage.cloud.make_network("192.168.0.0/24")
    await stage.pod(networks="fast")
    stage.controller()
    await stage.until(lambda: bool(stage.events()))
    assert stage.events() == [
        ("NetworksRefused", "NetworkAttachmentDefinition ns/fast is missing; make it: the pod waits for it")
    ]
    await stage.nad("fast", other)

    assert await stage.until(stage.bound) < 1
    podvif = stage.podvif()
    assert podvif is not None
    assert [interface.name for interface in podvif.status.interfaces] == ["eth0", "eth1"]


async def test_pods_of_others(stage: Stage) -> None:
    """Pods without a node, in the node's network or that have ended get nothing."""
    await stage.pod("unscheduled", nodeName="")
    await stage.pod("host", hostNetwork=True)
    await stage.pod("ended")
    await stage.kube.merge(PODS, Key("ns", "ended"), {"status": {"phase": "Failed"}}, "kubelet", status=True)
    stage.controller()
    await stage.pod()
    await stage.until(stage.bound)

    assert list(stage.kube.objects(PODVIFS)) == [P]


# -- crashes ---------------------------------------------------------------------------------------------------------


async def settle(stage: Stage, controller: Controller) -> None:
    """Wait until the controller is dead or a moment has passed in which it would have done all."""
    await asyncio.wait([controller.work], timeout=20)


@pytest.mark.parametrize("step", range(1, 12))
async def test_crash_while_creating(stage: Stage, step: int) -> None:
    """A controller that dies after any step of a creation leaves what the next one finishes, without a second port."""
    _, other = stage.cloud.make_network("192.168.0.0/24")
    await stage.nad("fast", other)
    await stage.pod(networks="fast")
    made = stage.kill_before(step)
    died = stage.controller()
    await settle(stage, died)
    assert died.work.done() == (made() >= step)
    await died.kill()
    stage.spare()
    stage.controller()

    await stage.until(stage.bound)
    assert len(stage.ports) == 2


@pytest.mark.parametrize("step", range(1, 9))
async def test_crash_while_deleting(stage: Stage, step: int) -> None:
    """A controller that dies after any step of a deletion leaves what the next one finishes: no port stays."""
    await stage.pod()
    died = stage.controller()
    await stage.until(stage.bound)
    await stage.remove_pod()
    made = stage.kill_before(step)
    await settle(stage, died)
    assert died.work.done() == (made() >= step)
    await died.kill()
    stage.spare()
    stage.controller()

    await stage.until(stage.empty)


async def test_answer_of_create_lost(stage: Stage) -> None:
    """A port whose answer was lost is found again and not made twice."""
    stage.cloud.lose_answers = 1
    await stage.pod()
    stage.controller()

    await stage.until(stage.bound)
    assert len(stage.ports) == 1


async def test_answer_of_create_lost_and_crash(stage: Stage) -> None:
    """A port that was made for a controller which did not live to hear of it is adopted by the next one."""
    stage.cloud.lose_answers = 1
    await stage.pod()
    died = stage.controller()
    await stage.until(lambda: bool(stage.ports))
    await died.kill()
    stage.controller()

    await stage.until(stage.bound)
    assert len(stage.ports) == 1


# -- outages ---------------------------------------------------------------------------------------------------------


async def test_neutron_down_at_start(stage: Stage) -> None:
    """While Neutron is down a pod says since when, and is served soon after it is back."""
    stage.cloud.down = True
    for number in range(20):
        await stage.pod(f"p{number}")
    stage.controller()
    await stage.until(lambda: all(stage.reason(f"p{number}") == "NeutronUnreachable" for number in range(20)))
    podvif = stage.podvif("p7")
    assert podvif is not None
    assert "Neutron unreachable since 20" in podvif.status.conditions[0].message
    ((reason, note),) = stage.events("p7")
    assert reason == "NeutronUnreachable"
    assert note.startswith("Neutron unreachable since 20")
    await asyncio.sleep(300)
    assert len(stage.events("p7")) == 1
    stage.cloud.down = False

    await stage.until(lambda: all(stage.bound(f"p{number}") for number in range(20)), 61)


async def test_neutron_down_while_deleting(stage: Stage) -> None:
    """A DEL while Neutron is down is not lost: the finalizer stays until the ports are gone."""
    await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    stage.cloud.down = True
    await stage.remove_pod()
    await stage.until(lambda: bool(stage.events(about=PODVIFS)))
    podvif = stage.podvif()
    assert podvif is not None
    assert podvif.deleting
    assert podvif.finalizers == (FINALIZER,)
    stage.cloud.down = False

    await stage.until(stage.empty)


async def test_neutron_down_while_bound(stage: Stage) -> None:
    """An outage of Neutron is no news to a pod that has its ports."""
    await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    before = stage.podvif()
    stage.cloud.down = True
    await asyncio.sleep(1000)

    assert stage.podvif() == before
    assert stage.events() == []


async def test_api_server_away(stage: Stage) -> None:
    """What happens while the API server is away is found when it is back."""
    await stage.pod("old")
    stage.controller()
    await stage.until(lambda: stage.bound("old"))
    stage.kube.lose()
    await asyncio.sleep(10)
    stage.kube.regain()
    await stage.remove_pod("old")
    await stage.pod("new")
    stage.kube.forget()

    await stage.until(lambda: stage.bound("new") and stage.podvif("old") is None)
    assert len(stage.ports) == 1


# -- what people do --------------------------------------------------------------------------------------------------


async def test_deleted_before_bound(stage: Stage) -> None:
    """A pod that is deleted while its port is being made leaves nothing."""
    stage.cloud.hosts.clear()
    await stage.pod()
    stage.controller()
    await stage.until(lambda: stage.reason() == "BindingFailed")
    await stage.remove_pod()

    await stage.until(stage.empty)


async def test_recreated_within_a_second(stage: Stage) -> None:
    """A pod that comes again under the same name at once gets a port of its own, and the other's goes."""
    first = await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    await stage.remove_pod()
    second = await stage.pod()
    uid = second["metadata"]["uid"]
    assert uid != first["metadata"]["uid"]

    await stage.until(lambda: stage.bound() and [port.device_id for port in stage.ports] == [uid])


async def test_podvif_deleted_by_hand(stage: Stage) -> None:
    """A PodVif that somebody deletes comes again with the same port: the pod may be using it."""
    await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    before, port = stage.podvif(), stage.ports
    assert before is not None
    await stage.kube.delete(PODVIFS, P)

    def again() -> bool:
        podvif = stage.podvif()
        return podvif is not None and podvif.uid != before.uid and stage.bound()

    await stage.until(again)
    assert stage.ports == port


async def test_finalizer_taken_off(stage: Stage) -> None:
    """A finalizer that somebody takes off is put on again."""
    await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    await stage.kube.merge(PODVIFS, P, {"metadata": {"finalizers": None}}, "user")

    await stage.until(lambda: (podvif := stage.podvif()) is not None and podvif.finalizers == (FINALIZER,))


async def test_port_deleted_by_hand(stage: Stage) -> None:
    """A port that somebody deletes is made again in the next round."""
    await stage.pod()
    stage.controller()
    await stage.until(stage.bound)
    (port,) = stage.ports
    del stage.cloud.all_ports[port.id]

    await stage.until(lambda: stage.bound() and bool(stage.ports), stage.settings.resync_interval + 30)
    assert stage.ports[0].id != port.id


async def test_neutron_that_shows_nothing() -> None:
    """A Neutron that shows no ports for a moment costs no bound pod its port, and none that ends leaves one behind."""
    async with staged(resync_interval=5.0) as stage:
        neutron = stage.controller().neutron
        for name in ("p", "ends"):
            await stage.pod(name)
        await stage.until(lambda: stage.bound() and stage.bound("ends"))
        (port,) = (port for port in stage.ports if port.name == "ns/p:eth0")
        seeing = neutron._ours

        async def blind() -> list[NeutronPort]:
            return []

        neutron._ours = blind  # type: ignore[method-assign]
        await stage.remove_pod("ends")
        stage.cloud.requests.clear()
        await stage.until(lambda: "our_ports" in stage.cloud.requests and stage.cloud.requests.count("ports_of") > 2)
        neutron._ours = seeing  # type: ignore[method-assign]
        await asyncio.sleep(60)

        assert stage.ports == [port]
        assert stage.bound()
        assert stage.podvif("ends") is None


async def test_binding_failed(stage: Stage) -> None:
    """A port that no agent binds is told in one line, and bound again, the same one, when there is an agent."""
    stage.cloud.hosts.clear()
    await stage.pod()
    stage.controller()
    await stage.until(lambda: bool(stage.events()))
    ((reason, note),) = stage.events()
    assert reason == "BindingFailed"
    assert note.startswith("binding_failed: no agent with datapath netdev on node n1")
    await asyncio.sleep(200)
    (port,) = stage.ports
    stage.cloud.hosts[NODE] = "client"

    await stage.until(stage.bound, 61)
    assert [one.id for one in stage.ports] == [port.id]
    assert stage.events()[-1] == ("Bound", "all its Neutron ports are bound")


async def test_back_off(stage: Stage) -> None:
    """Tries come after one second, then after twice the time each, up to a minute."""
    stage.cloud.hosts.clear()
    await stage.pod()
    stage.controller()
    await stage.until(lambda: stage.reason() == "BindingFailed")
    stage.cloud.requests.clear()
    await asyncio.sleep(600)

    assert 12 <= stage.cloud.requests.count("bind_port") <= 25


@pytest.mark.parametrize(
    ("settings", "user", "reason", "words"),
    [
        ({"pod_subnet": "no-such"}, "service", "PlaceUnknown", "subnet no-such not found"),
        ({"pod_subnet": "twice"}, "service", "PlaceUnknown", "2 subnets are called twice"),
        ({"pod_subnet": ""}, "service", "PlaceUnknown", "there is no default one"),
        ({"pod_security_groups": ("no-such",)}, "service", "PortRefused", "security group no-such not found"),
        ({}, "member", "PortRefused", "binding:host_id"),
    ],
)
async def test_refused(settings: dict[str, str], user: str, reason: str, words: str) -> None:
    """What somebody has to change is said in one line on the pod, in event and condition, and tried again seldom."""
    async with staged(**settings) as stage:
        for cidr in ("10.98.0.0/24", "10.99.0.0/24"):
            stage.cloud.add_subnet(stage.network, cidr, "twice")
        await stage.pod()
        stage.controller(user)
        await stage.until(lambda: stage.reason() == reason and bool(stage.events()))
        ((said, note),) = stage.events()
        assert said == reason
        assert words in note
        podvif = stage.podvif()
        assert podvif is not None
        assert words in podvif.status.conditions[0].message
        stage.cloud.requests.clear()
        await asyncio.sleep(299)
        assert stage.cloud.requests.count("ports_of") <= 1


async def test_no_free_address(stage: Stage) -> None:
    """A pod for which there is no address waits, and gets the first that is free."""
    stage.cloud.quota = 1
    await stage.pod("first")
    stage.controller()
    await stage.until(lambda: stage.bound("first"))
    await stage.pod()
    await stage.until(lambda: bool(stage.events()))
    assert stage.reason() == "PortNotMade"
    assert "Quota exceeded" in stage.events()[0][1]
    await stage.remove_pod("first")

    await stage.until(stage.bound)


async def test_credentials(stage: Stage) -> None:
    """What the credentials may not do is said at start, of the Lease."""
    await stage.kube.create(LEASES, {"metadata": {"namespace": LEASE.namespace, "name": LEASE.name}}, "elector")
    stage.controller("member")

    await stage.until(lambda: bool(stage.events(LEASE.name, LEASES)))
    ((reason, note),) = stage.events(LEASE.name, LEASES)
    assert (reason, "binding:host_id" in note) == ("NeutronCredentials", True)


# -- who leads -------------------------------------------------------------------------------------------------------


async def test_two_controllers(stage: Stage) -> None:
    """Of two replicas one works; when it is killed the other goes on, and no pod has two ports."""
    first = stage.controller(elected=True)
    await stage.until(lambda: first.elector.leading)
    second = stage.controller(elected=True)
    for number in range(10):
        await stage.pod(f"p{number}")
    await stage.until(lambda: len(stage.ports) >= 3)
    await asyncio.sleep(0)
    first.work.cancel()  # its lease is given back when its acts have ended
    for number in range(10, 20):
        await stage.pod(f"p{number}")

    await stage.until(lambda: all(stage.bound(f"p{number}") for number in range(20)))
    assert second.elector.leading
    assert len(stage.ports) == 20
    assert not first.elector.leading


async def test_deposed(stage: Stage) -> None:
    """A leader that is cut off from its lease has stopped writing before another one begins."""
    first = stage.controller(elected=True)
    await stage.pod()
    await stage.until(stage.bound)
    stage.kube.hang()
    await stage.until(lambda: not first.elector.leading)
    stage.cloud.requests.clear()
    first.cluster._podvifs_changed(frozenset({P}))
    await asyncio.sleep(30)
    assert stage.cloud.requests == []
    stage.kube.resume()
    await stage.pod("other")

    await stage.until(lambda: first.elector.leading and stage.bound("other"))


async def test_writes_only_while_leading(stage: Stage) -> None:
    """A controller that learns between two acts that it leads no more does not do the second."""
    controller = stage.controller()

    def depose(verb: str, resource: object, _key: object) -> None:
        if (verb, resource) == ("create", PODVIFS):
            controller.leading = False

    stage.kube.before = depose
    await stage.pod()
    await stage.until(lambda: stage.podvif() is not None)
    await asyncio.sleep(600)

    assert stage.ports == []
    assert stage.reason() == ""
    assert stage.events() == []


async def test_clean_stop(stage: Stage) -> None:
    """A controller that is asked to stop ends the act that is under way, begins no other, and gives its lease back."""
    controller = stage.controller(elected=True)
    await stage.until(lambda: controller.elector.leading)

    def stop(name: str) -> None:
        if name == "create_port":
            controller.stop.set()

    stage.cloud.before_act = stop
    await stage.pod()
    async with asyncio.timeout(60):
        await controller.work
    assert len(stage.ports) == 1
    assert stage.reason() == ""
    lease = await stage.kube.get(LEASES, LEASE)
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


# -- many ------------------------------------------------------------------------------------------------------------


async def test_storm(stage: Stage) -> None:
    """Of 200 pods at once each has one port in the end, though answers are lost and the API server has a break."""
    controller = stage.controller()
    stage.cloud.lose_answers = 5
    for number in range(200):
        await stage.pod(f"p{number}")
    await stage.until(lambda: len(stage.ports) > 50)
    stage.kube.lose()
    await asyncio.sleep(3)
    stage.kube.regain()

    await stage.until(lambda: all(stage.bound(f"p{number}") for number in range(200)), 300)
    assert len(stage.ports) == 200
    for number in range(200):
        await stage.remove_pod(f"p{number}")
    await stage.until(stage.empty, 300)
    await stage.until(lambda: controller.leader.queued == controller.leader.waiting == 0)
