"""The driver as kubelet meets it: a real client over real sockets."""

import asyncio
import logging
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import empty_pb2
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod

from podvif.csi.generated import csi_pb2, registration_pb2
from podvif.csi.server import Driver
from podvif.errors import Refused, Retry
from podvif.model import SocketDir, Volume
from tests.unit.csi.test_requests import TARGET, UID, publish


class FakeVolumes:
    """Remembers what is published; fails as it is told."""

    def __init__(self) -> None:
        self.published: dict[str, Volume] = {}
        self.failure: Exception | None = None
        self.trouble: str | None = None

    async def publish(self, volume: Volume) -> None:
        if self.failure:
            raise self.failure
        self.published[volume.id] = volume

    async def unpublish(self, volume_id: str, target: str) -> None:
        assert target == TARGET
        self.published.pop(volume_id, None)

    def why_not(self) -> str | None:
        return self.trouble


class Kubelet:
    """Both sockets of a driver, as kubelet uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = folder / "plugins" / "csi.podvif.io" / "csi.sock"
        self.registry = folder / "plugins_registry"
        self.volumes = FakeVolumes()
        self.channels: list[Channel] = []

    def driver(self) -> Driver:
        """Another daemon's."""
        return Driver(
            self.volumes,
            endpoint=str(self.endpoint),
            registration_dir=str(self.registry),
            node="n1",
            version="1.2.3",
            mount_point=SocketDir("/var/run/vhostuser"),
        )

    async def call(self, method: str, request: Any, reply: type, path: Path | None = None) -> Any:
        """One call, on a connection of its own."""
        channel = Channel(path=str(path or self.endpoint))
        self.channels.append(channel)
        return await UnaryUnaryMethod(channel, method, type(request), reply)(request, timeout=10)

    async def publish(self, **changes: Any) -> Any:
        """NodePublishVolume."""
        return await self.call("/csi.v1.Node/NodePublishVolume", publish(**changes), csi_pb2.NodePublishVolumeResponse)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: sockets have room in it."""
    return tmp_path_factory.mktemp("k")


@pytest.fixture
async def kubelet(folder: Path) -> AsyncIterator[Kubelet]:
    """A kubelet that has a driver."""
    made = Kubelet(folder)
    driver = made.driver()
    await driver.start()
    yield made
    for channel in made.channels:
        channel.close()
    driver.stop()
    await asyncio.sleep(0)


async def test_identity(kubelet: Kubelet) -> None:
    """The driver says its name and version, has no controller, and is ready as long as directories can be had."""
    info = await kubelet.call(
        "/csi.v1.Identity/GetPluginInfo", csi_pb2.GetPluginInfoRequest(), csi_pb2.GetPluginInfoResponse
    )
    capabilities = await kubelet.call(
        "/csi.v1.Identity/GetPluginCapabilities",
        csi_pb2.GetPluginCapabilitiesRequest(),
        csi_pb2.GetPluginCapabilitiesResponse,
    )
    ready = await kubelet.call("/csi.v1.Identity/Probe", csi_pb2.ProbeRequest(), csi_pb2.ProbeResponse)
    kubelet.volumes.trouble = "EXDEV"
    unready = await kubelet.call("/csi.v1.Identity/Probe", csi_pb2.ProbeRequest(), csi_pb2.ProbeResponse)

    assert (info.name, info.vendor_version) == ("csi.podvif.io", "1.2.3")
    assert list(capabilities.capabilities) == []
    assert (ready.ready.value, unready.ready.value) == (True, False)


async def test_node(kubelet: Kubelet) -> None:
    """The driver is on this node and wants kubelet to leave the pod's group to it; it stages, grows and measures nothing."""
    info = await kubelet.call("/csi.v1.Node/NodeGetInfo", csi_pb2.NodeGetInfoRequest(), csi_pb2.NodeGetInfoResponse)
    capabilities = await kubelet.call(
        "/csi.v1.Node/NodeGetCapabilities",
        csi_pb2.NodeGetCapabilitiesRequest(),
        csi_pb2.NodeGetCapabilitiesResponse,
    )

    assert info.node_id == "n1"
    assert [each.rpc.type for each in capabilities.capabilities] == [
        csi_pb2.NodeServiceCapability.RPC.VOLUME_MOUNT_GROUP
    ]


async def test_publish_and_unpublish(kubelet: Kubelet) -> None:
    """What kubelet asks for comes to the node whole, and goes by its id and target."""
    await kubelet.publish()
    (volume,) = kubelet.volumes.published.values()
    await kubelet.call(
        "/csi.v1.Node/NodeUnpublishVolume",
        csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume.id, target_path=volume.target),
        csi_pb2.NodeUnpublishVolumeResponse,
    )

    assert (volume.pod.uid, volume.target) == (UID, TARGET)
    assert kubelet.volumes.published == {}


async def test_failures_have_their_status(kubelet: Kubelet) -> None:
    """A request that is wrong, and one that fails, come back with status and message, and the driver goes on."""
    kubelet.volumes.failure = Refused("pod ns/p: höher", "do that")
    with pytest.raises(GRPCError) as failed:
        await kubelet.publish()
    kubelet.volumes.failure = None
    with pytest.raises(GRPCError) as wrong:
        await kubelet.publish(volume_id="")

    assert (failed.value.status, failed.value.message) == (Status.INVALID_ARGUMENT, "pod ns/p: höher: do that")
    assert wrong.value.status is Status.INVALID_ARGUMENT
    await kubelet.publish()


async def test_unforeseen(kubelet: Kubelet, caplog: pytest.LogCaptureFixture) -> None:
    """A failure that nobody has foreseen is told kubelet as one, stands in the log, and the driver goes on."""
    kubelet.volumes.failure = ZeroDivisionError("x")
    with pytest.raises(GRPCError) as failed:
        await kubelet.publish()
    kubelet.volumes.failure = None

    assert failed.value.status in {Status.UNKNOWN, Status.INTERNAL}
    assert "ZeroDivisionError" in caplog.text
    await kubelet.publish()


@pytest.mark.parametrize("method", ["Node/NodeStageVolume", "Node/NodeExpandVolume", "Controller/CreateVolume"])
async def test_not_served(kubelet: Kubelet, method: str) -> None:
    """What the driver does not do is UNIMPLEMENTED."""
    with pytest.raises(GRPCError) as caught:
        await kubelet.call(f"/csi.v1.{method}", empty_pb2.Empty(), empty_pb2.Empty)

    assert caught.value.status is Status.UNIMPLEMENTED


async def test_registration(kubelet: Kubelet, caplog: pytest.LogCaptureFixture) -> None:
    """Kubelet finds a CSI plugin, its name and its socket in its registry, and what it says of it stands in the log once."""
    path = kubelet.registry / "csi.podvif.io-reg.sock"
    caplog.set_level(logging.INFO)

    info = await kubelet.call(
        "/pluginregistration.Registration/GetInfo", registration_pb2.InfoRequest(), registration_pb2.PluginInfo, path
    )
    for status in ({"error": "no such node"}, {"error": "no such node"}, {"plugin_registered": True}):
        await kubelet.call(
            "/pluginregistration.Registration/NotifyRegistrationStatus",
            registration_pb2.RegistrationStatus(**status),
            registration_pb2.RegistrationStatusResponse,
            path,
        )

    assert (info.type, info.name, info.endpoint) == ("CSIPlugin", "csi.podvif.io", str(kubelet.endpoint))
    assert list(info.supported_versions) == ["1.0.0"]
    assert [record.message for record in caplog.records if "registered" in record.message] == [
        "kubelet has not registered csi.podvif.io: no such node",
        "kubelet has registered csi.podvif.io",
    ]


async def test_sockets(folder: Path) -> None:
    """Both sockets are root's alone, take the place of what a killed daemon left, and are gone after the end."""
    kubelet = Kubelet(folder)
    old = kubelet.driver()
    await old.start()
    new = kubelet.driver()
    await new.start()
    paths = [kubelet.endpoint, kubelet.registry / "csi.podvif.io-reg.sock"]

    await kubelet.publish()
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    assert [list(path.parent.iterdir()) for path in paths] == [[path] for path in paths]
    for channel in kubelet.channels:
        channel.close()
    new.stop()
    old.stop()
    assert [path.exists() for path in paths] == [False, False]


async def test_without_registration(folder: Path) -> None:
    """Where another program registers the driver it shows itself to nobody."""
    kubelet = Kubelet(folder)
    driver = Driver(
        kubelet.volumes,
        endpoint=str(kubelet.endpoint),
        registration_dir="",
        node="n1",
        version="1",
        mount_point=SocketDir("/x"),
    )

    await driver.start()

    assert kubelet.endpoint.is_socket()
    assert not kubelet.registry.exists()
    driver.stop()


async def test_socket_cannot_be_made(folder: Path) -> None:
    """A directory that cannot be had is refused with its option."""
    (folder / "plugins").write_text("")

    with pytest.raises(Refused, match=r"\[csi\] endpoint") as caught:
        await Kubelet(folder).driver().start()

    assert "kubelet's" in caught.value.remedy


async def test_busy(kubelet: Kubelet) -> None:
    """A node that is not ready for it has kubelet try again."""
    kubelet.volumes.failure = Retry("the disk is full", "free some space")

    with pytest.raises(GRPCError) as caught:
        await kubelet.publish()

    assert caught.value.status is Status.UNAVAILABLE
