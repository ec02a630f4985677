"""Kubelet's side of a CSI driver: it finds the driver in its registry and has volumes published, over real sockets.

Law: what it asks is what kubelet asks of an inline volume with podInfoOnMount (kubernetes pkg/volume/csi); it knows nothing
of podvif but the driver's name.
"""

import asyncio
import secrets
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod

from podvif import names
from podvif.csi.generated import csi_pb2, registration_pb2

NODE = "/csi.v1.Node"
REGISTRATION = "/pluginregistration.Registration"


@dataclass(frozen=True)
class PodVolume:
    """A pod's inline volume.

    Attributes:
        name: of the pod.
        uid: of the pod.
        id: kubelet's name for the volume.
        target: where kubelet wants it.
    """

    name: str
    uid: str
    id: str
    target: Path

    @property
    def args(self) -> str:
        """CNI_ARGS of the pod's calls."""
        return f"IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME={self.name};K8S_POD_UID={self.uid}"


@dataclass
class Kubelet:
    """Kubelet's folders, and the calls it makes."""

    folder: Path
    registry: Path = field(init=False)
    plugins: Path = field(init=False)

    def __post_init__(self) -> None:
        self.registry = self.folder / "plugins_registry"
        self.plugins = self.folder / "plugins"

    @property
    def options(self) -> dict[str, str]:
        """[csi] of the daemon's configuration."""
        endpoint = self.plugins / names.CSI_DRIVER / "csi.sock"
        return {"endpoint": str(endpoint), "registration_dir": str(self.registry)}

    def call(self, method: str, request: Any, reply: type, path: Path | None = None) -> Any:
        """One call of the driver, which is found as kubelet finds it unless the socket is given.

        Raises:
            GRPCError: it failed.
        """
        socket = str(path or self.plugin().endpoint)

        async def ask() -> Any:
            channel = Channel(path=socket)
            try:
                return await UnaryUnaryMethod(channel, method, type(request), reply)(request, timeout=30)
            finally:
                channel.close()

        return asyncio.run(ask())

    def plugin(self) -> Any:
        """What the driver's registration says."""
        (path,) = self.registry.glob("*-reg.sock")
        return self.call(f"{REGISTRATION}/GetInfo", registration_pb2.InfoRequest(), registration_pb2.PluginInfo, path)

    def volume(self, name: str = "pod") -> PodVolume:
        """The volume of a new pod."""
        uid = str(uuid.uuid4())
        target = self.folder / "pods" / uid / "volumes" / "kubernetes.io~csi" / "sockets" / "mount"
        target.parent.mkdir(parents=True)
        return PodVolume(name, uid, f"csi-{secrets.token_hex(32)}", target)

    def publish(self, volume: PodVolume, **changes: Any) -> None:
        """NodePublishVolume; `mount_path`, `user` and `group` as the pod has them, whatever else replaces a field of the request."""
        said = {"mountPath": changes.pop("mount_path", None), "user": changes.pop("user", None)}
        attributes = {key: str(value) for key, value in said.items() if value is not None}
        mount = csi_pb2.VolumeCapability.MountVolume(volume_mount_group=str(changes.pop("group", "")))
        info = {
            "pod.name": volume.name,
            "pod.namespace": "ns",
            "pod.uid": volume.uid,
            "serviceAccount.name": "default",
            "ephemeral": "true",
            **changes.pop("info", {}),
        }
        writer = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
        fields = {
            "volume_id": volume.id,
            "target_path": str(volume.target),
            "volume_capability": csi_pb2.VolumeCapability(
                mount=mount, access_mode=csi_pb2.VolumeCapability.AccessMode(mode=writer)
            ),
            "volume_context": attributes | {f"csi.storage.k8s.io/{key}": value for key, value in info.items()},
            **changes,
        }
        request = csi_pb2.NodePublishVolumeRequest(**fields)
        self.call(f"{NODE}/NodePublishVolume", request, csi_pb2.NodePublishVolumeResponse)

    def unpublish(self, volume: PodVolume) -> None:
        """NodeUnpublishVolume."""
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume.id, target_path=str(volume.target))
        self.call(f"{NODE}/NodeUnpublishVolume", request, csi_pb2.NodeUnpublishVolumeResponse)
