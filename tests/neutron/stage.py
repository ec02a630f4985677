"""A namespace of a real API server and a real Neutron, for `podvif controller` between them.

Law: the test is the user, the scheduler and the kubelet; what a port is, Neutron's administrator says.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from podvif.core.networks import KURYR_CONFIG
from podvif.kube.resources import EVENTS, NADS, NAMESPACES, Document, Key
from podvif.lab.controller import Controller
from podvif.lab.neutron import PrivateNeutron
from podvif.podvifs import Condition, InterfaceState
from tests.kube.test_controller import Stage, until
from tests.kube.worlds import MANAGER, RealWorld

OVN = pytest.mark.parametrize("stage", ["ovn"], indirect=True)
"""For what does not depend on Neutron's mechanism, or is so with OVN alone."""

AGENT = pytest.mark.parametrize("stage", ["agent"], indirect=True)
"""Likewise with the Open vSwitch agent."""


class RealStage(Stage):
    """The stage.

    Attributes:
        neutron: the real one.
        node: where pods are scheduled to.
        network: of the default pod subnet.
        subnet: likewise.
    """

    def __init__(self, world: RealWorld, neutron: PrivateNeutron, network: str, subnet: str) -> None:
        super().__init__(world)
        self.neutron = neutron
        self.node = neutron.host
        self.network = network
        self.subnet = subnet

    async def ports(self) -> list[Document]:
        """Every port that is a pod's, as the administrator sees it."""
        found = await asyncio.to_thread(self.neutron.ask, "GET", "/ports?device_owner=compute:kuryr")
        return list(found["ports"])

    async def bound(self, names: set[str]) -> bool:
        podvifs = await self.podvifs()
        if podvifs.keys() != names:
            return False
        interfaces = [one for podvif in podvifs.values() for one in podvif.status.interfaces]
        ports = {port["id"] for port in await self.ports()}
        states = {interface.state for interface in interfaces}
        wanted = sum(len(podvif.spec.interfaces) for podvif in podvifs.values())
        same = wanted == len(ports) and {interface.port_id for interface in interfaces} == ports
        return same and states <= {InterfaceState.BOUND}

    async def port_of(self, name: str = "p1") -> str:
        """The port that a pod's PodVif names."""
        (interface,) = (await self.podvifs())[name].status.interfaces
        return interface.port_id

    async def nad(self, name: str, namespace: str = "", *, kuryr: str | None = None, config: str = "") -> None:
        """A NetworkAttachmentDefinition; `kuryr` is the text of its annotation."""
        annotations = {} if kuryr is None else {KURYR_CONFIG: kuryr}
        metadata = {"namespace": namespace or self.world.namespace, "name": name, "annotations": annotations}
        spec = {"config": config} if config else {}
        await self.kube.apply(NADS, Key(metadata["namespace"], name), {"metadata": metadata, "spec": spec}, MANAGER)  # type: ignore[arg-type]

    async def subnet_nad(self, name: str, subnet: str, namespace: str = "") -> None:
        """One that names a subnet."""
        if namespace:
            await self.kube.apply(NAMESPACES, Key("", namespace), {}, MANAGER)
        await self.nad(name, namespace, kuryr=json.dumps({"subnetId": subnet}))

    async def notes(self, name: str = "p1") -> dict[str, str]:
        """What was said of a pod: the note of each event by its reason."""
        found, _ = await self.world.listed(EVENTS, self.world.here)
        return {event["reason"]: event["note"] for event in found if event["regarding"]["name"] == name}

    async def until_true(self, name: str) -> None:
        """Wait until a pod's condition is good."""

        async def good() -> bool:
            podvif = (await self.podvifs()).get(name)
            return podvif is not None and [one.status for one in podvif.status.conditions[:1]] == ["True"]

        await until(good)

    async def until_said(self, reason: str, name: str = "p1") -> Condition:
        """Wait until an event says this of a pod, and the condition too; the condition."""

        async def said() -> bool:
            podvif = (await self.podvifs()).get(name)
            conditions = podvif.status.conditions if podvif else ()
            return reason in await self.notes(name) and [one.reason for one in conditions[:1]] == [reason]

        await until(said)
        return (await self.podvifs())[name].status.conditions[0]


def controller(stage: RealStage, folder: Path, *, neutron: Mapping[str, str] | None = None, **more: Any) -> Controller:
    """A controller as a cluster runs it; `neutron` goes over [neutron], `more` are options of [controller]."""
    program = more.pop("program", ())
    sections = {
        "neutron_defaults": {"pod_subnet": stage.subnet},
        "controller": {"lease_namespace": stage.world.namespace, **more},
    }
    options = stage.neutron.options() | dict(neutron or {})
    return Controller(folder, kubeconfig=stage.world.api.kubeconfig, neutron=options, more=sections, program=program)


__all__ = ["AGENT", "OVN", "RealStage", "controller", "until"]
