"""The cluster tier: a real Kubernetes with one node, its runtime and kubelet, and podvif on it.

Law: tests are users: they apply objects, and look with kubectl, in pods and on the node.  One cluster stands at a time, and is
gone after the tests that share it.  A machine that cannot run the tier says why and skips it; where CI=true it fails, except
for what has to be built with a Go or a network that a machine need not have.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd as lab_testpmd
from podvif.lab.controller import Controller
from podvif.lab.hugepages import hugepages
from podvif.lab.machine import Machine
from podvif.lab.neutron import Mechanism, PrivateNeutron
from podvif.lab.neutron import look_for_all as look_for_neutron
from podvif.lab.node import DpdkNode, podvif_on, switch_of
from podvif.lab.onenode import OneNode, bridge, podvif_network, why_not_here
from podvif.lab.process import LabError
from tests.kube.conftest import why_not_real
from tests.node.conftest import why_not_here as why_no_switch

PAGES = lab_ovs.PAGES + 3 * (lab_testpmd.PAGES + lab_ovs.PAGES_PER_PORT)
"""Hugepages for the switch and three applications, one of which may be about to end."""

SPECS_PAGES = 512
"""Hugepages of the application that the specification starts: 1 GiB."""


@functools.cache
def why_not() -> str | None:
    """Why this machine cannot run the tier, or None when it can."""
    return why_no_switch() or why_not_here()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; the first one waits for a cluster."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup() -> None:
    """Let a test begin only where it can."""
    if reason := why_not_real():
        pytest.skip(reason)  # also in CI: the build says why where it cannot be done
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="module", params=[1, 2], ids=["containerd-1", "containerd-2"])
def multus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DpdkNode]:
    """A cluster whose main network is a kernel bridge, with Multus, and podvif standalone on its node."""
    version = int(request.param)
    if reason := why_not_here(version):
        pytest.skip(reason)  # containerd 2 is built like Kubernetes
    folder = tmp_path_factory.mktemp("c")
    with (
        hugepages(PAGES + SPECS_PAGES),
        OneNode(folder, network=bridge(), multus=True, containerd=version) as cluster,
        switch_of(cluster.machine) as switch,
        podvif_on(cluster, switch) as node,
    ):
        yield node
        cluster.delete_pods()


@pytest.fixture(scope="module")
def neutron(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DpdkNode]:
    """A cluster whose main network is podvif's, on a Neutron with OVN; its node has a port in the pods' network."""
    try:
        look_for_neutron(Mechanism.OVN)
    except LabError as error:
        pytest.fail(str(error), pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("n")
    (folder / "neutron").mkdir()
    with hugepages(PAGES), Machine(folder) as machine, PrivateNeutron(folder / "neutron", machine=machine) as cloud:
        network, subnet = cloud.network("10.20.0.0/24", name="pods")
        with OneNode(folder, network=podvif_network(), node=cloud.host, machine=machine, wait=False) as cluster:
            options = cloud.options()
            more = {"neutron_defaults": {"pod_subnet": "pods"}}
            config = cluster.plane.kubeconfig
            node = {"node": {"source": "cluster"}, "kubernetes": {"kubeconfig": str(config), "node_name": cloud.host}}
            with (
                Controller(folder / "controller", kubeconfig=config, neutron=options, more=more),
                podvif_on(cluster, cloud.ovs, node) as dpdk,
            ):
                port = cloud.create(
                    "port",
                    network_id=network,
                    fixed_ips=[{"subnet_id": subnet, "ip_address": "10.20.0.254"}],
                    **{"binding:host_id": cloud.host},
                )
                connect_node(machine, cloud, port)
                cluster.wait_for_node()
                yield dpdk
                cluster.delete_pods()
                cloud.ovs.vsctl("del-port", "pods0")


def connect_node(machine: Machine, cloud: PrivateNeutron, port: dict[str, Any]) -> None:
    """Give the node a device in the pods' network, as whoever makes Neutron the network of a cluster has to: for probes."""
    ids = [f"external_ids:iface-id={port['id']}", "external_ids:iface-status=active"]
    mac = [f'mac="{port["mac_address"]}"', f'external_ids:attached-mac="{port["mac_address"]}"']
    cloud.ovs.vsctl("add-port", "br-int", "pods0", "--", "set", "Interface", "pods0", "type=internal", *ids, *mac)
    machine.run("ip", "address", "add", f"{port['fixed_ips'][0]['ip_address']}/24", "dev", "pods0")
    machine.run("ip", "link", "set", "pods0", "up")
