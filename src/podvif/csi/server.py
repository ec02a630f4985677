"""The CSI driver csi.podvif.io: Identity and Node for kubelet, and the registration by which it finds them.

Law: it knows gRPC and kubelet, and nothing of directories and mounts: each call is parsed, handed on, and answered.  A call
that is not served is UNIMPLEMENTED, as the CSI specification wants it.  Both sockets are root's alone.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from google.protobuf import empty_pb2, wrappers_pb2
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server as GrpcServer
from grpclib.server import Stream

from podvif import errors, names
from podvif.csi import requests
from podvif.csi.generated import csi_pb2, registration_pb2
from podvif.errors import PodvifError, Refused
from podvif.model import SocketDir, Volume

_LOG = logging.getLogger(__name__)

_SUPPORTED = ["1.0.0"]
"""Versions of the CSI specification, as node-driver-registrar says them: kubelet compares the first number."""


class Volumes(Protocol):
    """What the driver needs of the node (`podvif.node.volumes.Volumes`)."""

    async def publish(self, volume: Volume) -> None:
        """Show the pod's directory at the volume's target."""

    async def unpublish(self, volume_id: str, target: str) -> None:
        """Take it away."""

    def why_not(self) -> str | None:
        """Why no pod could be given a directory, None when one could."""


class Driver:
    """The driver's sockets and what answers on them."""

    def __init__(
        self,
        volumes: Volumes,
        *,
        endpoint: str,
        registration_dir: str,
        node: str,
        version: str,
        mount_point: SocketDir,
    ) -> None:
        """Take the parts; nobody is served yet.

        Args:
            volumes: who does the work.
            endpoint: the driver's socket.
            registration_dir: where kubelet looks for drivers; empty when somebody else registers this one.
            node: this node's name in Kubernetes.
            version: podvif's.
            mount_point: where pods mount their directory that do not say it.
        """
        self._endpoint = endpoint
        self._registration = names.registration_socket(registration_dir) if registration_dir else ""
        self._driver = GrpcServer([_Unserved(), _Identity(volumes, version), _Node(volumes, node, mount_point)])
        self._registrar = GrpcServer([_Registration(endpoint)])

    async def start(self) -> None:
        """Listen; kubelet is shown the registration last.

        Raises:
            Refused: a socket cannot be made.
        """
        await _listen(self._driver, "endpoint", self._endpoint)
        if self._registration:
            await _listen(self._registrar, "registration_dir", self._registration)

    def stop(self) -> None:
        """Take no more calls; kubelet forgets the driver as the registration's socket goes."""
        for server, path in ((self._registrar, self._registration), (self._driver, self._endpoint)):
            if path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
                server.close()


async def _listen(server: GrpcServer, option: str, path: str) -> None:
    directory, _, name = path.rpartition("/")
    # Kubelet looks at a file as soon as it has its name: it gets that when somebody listens, over what a killed daemon left.
    hidden = f"{directory}/.{name}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)  # noqa: PTH103
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hidden)  # noqa: PTH108
        listener.setblocking(False)  # noqa: FBT003  the standard library's signature
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(hidden)
        os.chmod(hidden, 0o600)  # noqa: PTH101
        listener.listen()
        os.rename(hidden, path)  # noqa: PTH104
    except OSError as error:
        listener.close()
        raise Refused(
            f"[csi] {option}: socket {path} cannot be made: {error.strerror or error}",
            "look at its directory: it is kubelet's, mounted at the same path",
            code=errors.IO_FAILURE,
        ) from error
    await server.start(sock=listener)


class _Unserved:
    """Every method of the CSI specification: UNIMPLEMENTED, unless a service after this one has it.

    For what it has not been told of, grpclib's answer lacks the content type, and a client takes it for a fault.
    """

    def __mapping__(self) -> dict[str, Handler]:
        services = csi_pb2.DESCRIPTOR.services_by_name.values()
        paths = [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]
        return {path: Handler(_refuse, Cardinality.UNARY_UNARY, empty_pb2.Empty, empty_pb2.Empty) for path in paths}


async def _refuse(stream: Stream[Any, Any]) -> None:
    del stream
    raise GRPCError(Status.UNIMPLEMENTED, f"{names.CSI_DRIVER} serves inline volumes alone")


class _Service:
    """A gRPC service: the methods that it serves, each a function of its request."""

    name: str

    def methods(self) -> dict[str, tuple[Callable[[Any], Awaitable[Any]], type, type]]:
        """Function, request and reply by the method's name."""
        raise NotImplementedError

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{self.name}/{method}": Handler(_served(method, answer), Cardinality.UNARY_UNARY, request, reply)
            for method, (answer, request, reply) in self.methods().items()
        }


def _served(method: str, answer: Callable[[Any], Awaitable[Any]]) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
    async def serve(stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        try:
            reply = await answer(request)
        except PodvifError as error:
            _LOG.warning("%s failed: %s", method, error.message)
            raise requests.refusal(error) from error
        await stream.send_message(reply)

    return serve


class _Identity(_Service):
    name = "csi.v1.Identity"

    def __init__(self, volumes: Volumes, version: str) -> None:
        self._volumes = volumes
        self._version = version

    def methods(self) -> dict[str, tuple[Callable[[Any], Awaitable[Any]], type, type]]:
        return {
            "GetPluginInfo": (self._info, csi_pb2.GetPluginInfoRequest, csi_pb2.GetPluginInfoResponse),
            "GetPluginCapabilities": (
                self._capabilities,
                csi_pb2.GetPluginCapabilitiesRequest,
                csi_pb2.GetPluginCapabilitiesResponse,
            ),
            "Probe": (self._probe, csi_pb2.ProbeRequest, csi_pb2.ProbeResponse),
        }

    async def _info(self, _: "csi_pb2.GetPluginInfoRequest") -> "csi_pb2.GetPluginInfoResponse":
        return csi_pb2.GetPluginInfoResponse(name=names.CSI_DRIVER, vendor_version=self._version)

    async def _capabilities(self, _: "csi_pb2.GetPluginCapabilitiesRequest") -> "csi_pb2.GetPluginCapabilitiesResponse":
        return csi_pb2.GetPluginCapabilitiesResponse()  # no controller: inline volumes are kubelet's alone

    async def _probe(self, _: "csi_pb2.ProbeRequest") -> "csi_pb2.ProbeResponse":
        reason = self._volumes.why_not()
        if reason:
            _LOG.warning("no pod can be given a directory of its own: %s", reason)
        return csi_pb2.ProbeResponse(ready=wrappers_pb2.BoolValue(value=reason is None))


class _Node(_Service):
    name = "csi.v1.Node"

    def __init__(self, volumes: Volumes, node: str, mount_point: SocketDir) -> None:
        self._volumes = volumes
        self._node = node
        self._mount_point = mount_point

    def methods(self) -> dict[str, tuple[Callable[[Any], Awaitable[Any]], type, type]]:
        return {
            "NodePublishVolume": (
                self._publish,
                csi_pb2.NodePublishVolumeRequest,
                csi_pb2.NodePublishVolumeResponse,
            ),
            "NodeUnpublishVolume": (
                self._unpublish,
                csi_pb2.NodeUnpublishVolumeRequest,
                csi_pb2.NodeUnpublishVolumeResponse,
            ),
            "NodeGetCapabilities": (
                self._capabilities,
                csi_pb2.NodeGetCapabilitiesRequest,
                csi_pb2.NodeGetCapabilitiesResponse,
            ),
            "NodeGetInfo": (self._info, csi_pb2.NodeGetInfoRequest, csi_pb2.NodeGetInfoResponse),
        }

    async def _publish(self, request: "csi_pb2.NodePublishVolumeRequest") -> "csi_pb2.NodePublishVolumeResponse":
        await self._volumes.publish(requests.parse_publish(request, self._mount_point))
        return csi_pb2.NodePublishVolumeResponse()

    async def _unpublish(self, request: "csi_pb2.NodeUnpublishVolumeRequest") -> "csi_pb2.NodeUnpublishVolumeResponse":
        await self._volumes.unpublish(*requests.parse_unpublish(request))
        return csi_pb2.NodeUnpublishVolumeResponse()

    async def _capabilities(self, _: "csi_pb2.NodeGetCapabilitiesRequest") -> "csi_pb2.NodeGetCapabilitiesResponse":
        rpc = csi_pb2.NodeServiceCapability.RPC
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[csi_pb2.NodeServiceCapability(rpc=rpc(type=rpc.VOLUME_MOUNT_GROUP))]
        )

    async def _info(self, _: "csi_pb2.NodeGetInfoRequest") -> "csi_pb2.NodeGetInfoResponse":
        return csi_pb2.NodeGetInfoResponse(node_id=self._node)


class _Registration(_Service):
    name = "pluginregistration.Registration"

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._said = ""

    def methods(self) -> dict[str, tuple[Callable[[Any], Awaitable[Any]], type, type]]:
        return {
            "GetInfo": (self._info, registration_pb2.InfoRequest, registration_pb2.PluginInfo),
            "NotifyRegistrationStatus": (
                self._notify,
                registration_pb2.RegistrationStatus,
                registration_pb2.RegistrationStatusResponse,
            ),
        }

    async def _info(self, _: "registration_pb2.InfoRequest") -> "registration_pb2.PluginInfo":
        return registration_pb2.PluginInfo(
            type="CSIPlugin", name=names.CSI_DRIVER, endpoint=self._endpoint, supported_versions=_SUPPORTED
        )

    async def _notify(
        self, status: "registration_pb2.RegistrationStatus"
    ) -> "registration_pb2.RegistrationStatusResponse":
        if status.plugin_registered:
            _LOG.info("kubelet has registered %s", names.CSI_DRIVER)
            self._said = ""
        elif status.error != self._said:  # kubelet tries again and again
            self._said = status.error
            _LOG.error("kubelet has not registered %s: %s", names.CSI_DRIVER, status.error)
        return registration_pb2.RegistrationStatusResponse()
