"""Kubelet's requests as frozen values, and our errors as gRPC's.

Law: a request is checked whole before anything is done for it; what it lacks or what cannot be is refused with the status that
the CSI specification has for it, and a message that says what to change.  Whoever reads it sees it in the pod's events.
"""

import os
import re

from grpclib import GRPCError, Status

from podvif import errors, names
from podvif.core import translate
from podvif.csi.generated import csi_pb2
from podvif.errors import PodvifError, Refused, Retry
from podvif.model import Pod, SocketDir, Volume

_KUBERNETES = "csi.storage.k8s.io/"
"""Begins the keys that kubelet adds, with podInfoOnMount: its own, of which a later one may have more."""

_MOUNT_PATH, _USER = "mountPath", "user"
_ATTRIBUTES = (_MOUNT_PATH, _USER)
"""What a pod may say of its volume (volumeAttributes)."""

_ID_MAX = 128
_NUMBER = re.compile(r"[0-9]{1,10}")
_NUMBER_MAX = 0xFFFFFFFE
"""Of a user or a group; chown(2) takes the next one for "leave it"."""


def parse_publish(request: "csi_pb2.NodePublishVolumeRequest", mount_point: SocketDir) -> Volume:
    """The volume that kubelet wants to have published.

    Args:
        request: NodePublishVolume's.
        mount_point: where pods mount their directory that do not say it.

    Raises:
        GRPCError: INVALID_ARGUMENT; it cannot be served, ever.
    """
    context = dict(request.volume_context)
    _refuse_unusable(request.volume_id, request.target_path)
    _refuse_unasked(request, context)
    uid = context.get(f"{_KUBERNETES}pod.uid", "")
    try:
        names.own_directory("/", uid)
    except ValueError:
        raise _invalid(
            f"pod.uid {uid!r} is no UID of a pod" if uid else "the request does not say which pod it is for",
            f"the object CSIDriver {names.CSI_DRIVER} needs podInfoOnMount: true",
        ) from None
    mounted_at = context.get(_MOUNT_PATH, mount_point)
    if reason := translate.why_not_mounted_at(mounted_at):
        raise _invalid(
            f"volumeAttributes {_MOUNT_PATH} {mounted_at!r} {reason}", "write the path at which the containers mount it"
        )
    return Volume(
        id=request.volume_id,
        target=request.target_path,
        pod=Pod(context.get(f"{_KUBERNETES}pod.namespace", ""), context.get(f"{_KUBERNETES}pod.name", ""), uid),
        mounted_at=SocketDir(mounted_at),
        service_account=context.get(f"{_KUBERNETES}serviceAccount.name", ""),
        read_only=request.readonly,
        user=_user(context.get(_USER)),
        fs_group=_group(request.volume_capability.mount.volume_mount_group),
    )


def parse_unpublish(request: "csi_pb2.NodeUnpublishVolumeRequest") -> tuple[str, str]:
    """Id and target of the volume that kubelet wants no more.

    Raises:
        GRPCError: INVALID_ARGUMENT.
    """
    _refuse_unusable(request.volume_id, request.target_path)
    return request.volume_id, request.target_path


def _refuse_unusable(volume_id: str, target: str) -> None:
    if not volume_id:
        raise _invalid("the request has no volume_id", "kubelet makes one for each inline volume")
    if len(volume_id.encode()) > _ID_MAX:
        raise _invalid(f"volume_id is longer than {_ID_MAX} bytes", "the CSI specification allows no more")
    if not target:
        raise _invalid("the request has no target_path", "kubelet names the directory below its own")
    if not os.path.isabs(target) or os.path.normpath(target) != target or target == "/":  # noqa: PTH117
        raise _invalid(f"target_path {target} is no plain absolute path", "write it without . and .. and links")


def _refuse_unasked(request: "csi_pb2.NodePublishVolumeRequest", context: dict[str, str]) -> None:
    if not request.HasField("volume_capability") or not request.volume_capability.WhichOneof("access_type"):
        raise _invalid("the request has no volume_capability", "kubelet asks for access type mount")
    capability = request.volume_capability
    if capability.HasField("block"):
        raise _invalid("access type block was asked for", "a pod's directory is mounted: use volumeMounts")
    if capability.mount.fs_type:
        raise _invalid(
            f"fsType {capability.mount.fs_type} was asked for",
            "take it out: the directory lies on the node's file system",
        )
    if capability.mount.mount_flags:
        raise _invalid(
            f"mount flags {' '.join(capability.mount.mount_flags)} were asked for", "take them out: podvif has its own"
        )
    if context.get(f"{_KUBERNETES}ephemeral") != "true":
        raise _invalid(
            "the volume is not an inline one (ephemeral)",
            f"write csi: {{driver: {names.CSI_DRIVER}}} into the pod's volumes; the object CSIDriver needs"
            " volumeLifecycleModes: [Ephemeral] and podInfoOnMount: true",
        )
    if unknown := sorted(key for key in context if not key.startswith(_KUBERNETES) and key not in _ATTRIBUTES):
        raise _invalid(
            f"volumeAttributes has {', '.join(unknown)}", f"{names.CSI_DRIVER} knows {' and '.join(_ATTRIBUTES)} only"
        )


def _group(text: str) -> int | None:
    if not text:
        return None
    if (number := _number(text)) is None:
        raise _invalid(f"volume_mount_group {text!r} is no number of a group", "it comes from the pod's fsGroup")
    return number


def _user(text: str | None) -> int:
    if text is None:
        return 0
    if (number := _number(text)) is None:
        raise _invalid(
            f"volumeAttributes {_USER} {text[:20]!r} is no number of a user",
            f"write the uid that the containers run as (runAsUser), from 0 to {_NUMBER_MAX}, without a name",
        )
    return number


def _number(text: str) -> int | None:
    number = int(text) if _NUMBER.fullmatch(text) else _NUMBER_MAX + 1
    return number if number <= _NUMBER_MAX else None


def _invalid(message: str, remedy: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, f"{message}: {remedy}")


def refusal(error: PodvifError) -> GRPCError:
    """What kubelet is told of one of our errors."""
    match error:
        case Retry():
            status = Status.UNAVAILABLE
        case Refused(code=errors.INVALID_CONFIG):
            status = Status.INVALID_ARGUMENT
        case Refused():
            status = Status.FAILED_PRECONDITION
        case _:
            status = Status.INTERNAL
    return GRPCError(status, f"{error.message}: {error.remedy}" if error.remedy else error.message)
