"""Kubelet's requests, and what is answered to those that cannot be served."""

from collections.abc import Callable
from typing import Any

import pytest
from grpclib import GRPCError, Status

from podvif import errors
from podvif.csi import requests
from podvif.csi.generated import csi_pb2
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.model import Pod, SocketDir, Volume

MOUNT_POINT = SocketDir("/var/run/vhostuser")
UID = "0d5bd2f5-6d0a-4a57-9d7e-2b1f6f3c7a41"
TARGET = f"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/v/mount"


def publish(**changes: Any) -> "csi_pb2.NodePublishVolumeRequest":
    """Kubelet's request for an inline volume, with podInfoOnMount."""
    context = {
        "csi.storage.k8s.io/pod.name": "p",
        "csi.storage.k8s.io/pod.namespace": "ns",
        "csi.storage.k8s.io/pod.uid": UID,
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "csi.storage.k8s.io/ephemeral": "true",
        "csi.storage.k8s.io/of.some.later.kubelet": "x",
    } | changes.pop("context", {})
    fields = {
        "volume_id": "csi-1",
        "target_path": TARGET,
        "volume_capability": csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume()),
        "volume_context": {key: value for key, value in context.items() if value is not None},
    }
    return csi_pb2.NodePublishVolumeRequest(**{**fields, **changes})


def mount(**fields: Any) -> dict[str, Any]:
    """A capability of access type mount."""
    return {"volume_capability": csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume(**fields))}


def test_publish() -> None:
    """A request becomes the volume that it asks for, at the shared directory's path unless the pod says another."""
    found = requests.parse_publish(publish(), MOUNT_POINT)

    assert found == Volume("csi-1", TARGET, Pod("ns", "p", UID), MOUNT_POINT, "default")


def test_publish_with_everything() -> None:
    """The pod's own path, its user, its group and a read-only mount are taken over."""
    attributes = {"mountPath": "/sockets", "user": "1000"}
    asked = publish(readonly=True, context=attributes, **mount(volume_mount_group="1234"))

    found = requests.parse_publish(asked, MOUNT_POINT)

    assert (found.mounted_at, found.read_only, found.user, found.fs_group) == ("/sockets", True, 1000, 1234)


@pytest.mark.parametrize("uid", [0, 4294967294])
def test_user(uid: int) -> None:
    """A user is any number that a file's owner can have."""
    assert requests.parse_publish(publish(context={"user": str(uid)}), MOUNT_POINT).user == uid


def test_static_pod() -> None:
    """A static pod's UID, which is a hash, is one."""
    found = requests.parse_publish(publish(context={"csi.storage.k8s.io/pod.uid": "a" * 32}), MOUNT_POINT)

    assert found.pod.uid == "a" * 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"volume_id": ""}, ["volume_id"]),
        ({"volume_id": "x" * 129}, ["volume_id", "128"]),
        ({"target_path": ""}, ["target_path"]),
        ({"target_path": "pods/x"}, ["target_path pods/x", "absolute"]),
        ({"target_path": "/a/../b"}, ["target_path /a/../b"]),
        ({"target_path": "/"}, ["target_path /"]),
        ({"volume_capability": None}, ["volume_capability"]),
        ({"volume_capability": csi_pb2.VolumeCapability()}, ["volume_capability"]),
        (
            {"volume_capability": csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume())},
            ["block", "volumeMounts"],
        ),
        (mount(fs_type="ext4"), ["fsType ext4", "take it out"]),
        (mount(mount_flags=["noatime"]), ["noatime", "take them out"]),
        (mount(volume_mount_group="wheel"), ["wheel", "fsGroup"]),
        (mount(volume_mount_group="4294967295"), ["4294967295", "fsGroup"]),
        ({"context": {"csi.storage.k8s.io/ephemeral": None}}, ["inline", "volumeLifecycleModes"]),
        ({"context": {"csi.storage.k8s.io/ephemeral": "false"}}, ["inline", "volumeLifecycleModes"]),
        ({"context": {"csi.storage.k8s.io/pod.uid": None}}, ["which pod", "podInfoOnMount"]),
        ({"context": {"csi.storage.k8s.io/pod.uid": "../etc"}}, ["'../etc'"]),
        ({"context": {"csi.storage.k8s.io/pod.uid": "a/b"}}, ["'a/b'"]),
        ({"context": {"csi.storage.k8s.io/pod.uid": ".."}}, ["'..'"]),
        ({"context": {"csi.storage.k8s.io/pod.uid": "a\n"}}, ["pod.uid"]),
        ({"context": {"mountPath": "sockets"}}, ["mountPath 'sockets'", "absolute"]),
        ({"context": {"mountPath": "/a/../b"}}, ["mountPath '/a/../b'"]),
        ({"context": {"mountPath": "/a,b"}}, ["mountPath '/a,b'", "DPDK"]),
        ({"context": {"mountPath": "/a b"}}, ["mountPath '/a b'"]),
        ({"context": {"mountPath": "/" + "x" * 92}}, ["108 bytes"]),
        ({"context": {"mountpath": "/a", "size": "1Gi"}}, ["mountpath, size", "mountPath and user only"]),
        ({"context": {"user": ""}}, ["user ''", "runAsUser"]),
        ({"context": {"user": "root"}}, ["user 'root'", "runAsUser", "without a name"]),
        ({"context": {"user": "-1"}}, ["user '-1'"]),
        ({"context": {"user": "1000:1000"}}, ["user '1000:1000'"]),
        ({"context": {"user": "1000\n"}}, ["user '1000\\n'"]),
        ({"context": {"user": "\u0661"}}, ["user", "0 to 4294967294"]),
        ({"context": {"user": "4294967295"}}, ["user '4294967295'", "0 to 4294967294"]),
        ({"context": {"user": "9" * 5000}}, ["user '99999999999999999999'"]),
    ],
)
def test_refused(changes: dict[str, Any], words: list[str]) -> None:
    """What cannot be served is INVALID_ARGUMENT, with what it is about and what to do."""
    with pytest.raises(GRPCError) as caught:
        requests.parse_publish(publish(**changes), MOUNT_POINT)

    assert caught.value.status is Status.INVALID_ARGUMENT
    assert [word for word in words if word not in (caught.value.message or "")] == []


def test_unpublish() -> None:
    """A volume is unpublished by its id and its target alone."""
    asked = csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=TARGET)

    assert requests.parse_unpublish(asked) == ("csi-1", TARGET)


@pytest.mark.parametrize("fields", [{"volume_id": "x"}, {"target_path": "/x"}, {"volume_id": "x", "target_path": "x"}])
def test_unpublish_refused(fields: dict[str, str]) -> None:
    """Without id or target nothing is unpublished."""
    with pytest.raises(GRPCError) as caught:
        requests.parse_unpublish(csi_pb2.NodeUnpublishVolumeRequest(**fields))

    assert caught.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lambda: Retry("m", "r"), Status.UNAVAILABLE),
        (lambda: Refused("m", "r"), Status.INVALID_ARGUMENT),
        (lambda: Refused("m", "r", code=errors.IO_FAILURE), Status.FAILED_PRECONDITION),
        (lambda: Bug("m", "r"), Status.INTERNAL),
    ],
)
def test_refusal(error: Callable[[], PodvifError], status: Status) -> None:
    """Each family of errors has its status, and its message says what to do."""
    found = requests.refusal(error())

    assert (found.status, found.message) == (status, "m: r")


def test_refusal_without_remedy() -> None:
    """An error that knows no remedy has its message alone."""
    assert requests.refusal(Bug("m")).message == "m"
