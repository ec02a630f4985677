"""containerd on a private machine, of version 1 (Debian's) or 2 (built by scripts/build-kube).

Law: it looks where it looks everywhere, /etc/cni/net.d and /opt/cni/bin, and pulls nothing: images are imported.  It runs in
the machine's control group, so that no shim outlives the machine.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import image, programs
from podvif.lab.kube import build_folder
from podvif.lab.machine import Machine
from podvif.lab.process import Child, LabError, wait_any

SOCKET = "/run/containerd/containerd.sock"
"""Where it listens, on the machine."""

START = 30.0

_LOOK_AGAIN = 0.05
"""Seconds between two questions whether it answers; it does not say when it is ready."""

_PLUGINS = ("bridge", "host-local", "loopback", "portmap", "static", "tuning")
"""Of the reference plugins, what a cluster has beside podvif's."""


def programs_of(version: int) -> Path:
    """The folder that has containerd and ctr of this major version.

    Raises:
        LabError: it is not there; the message says what to do.
    """
    programs.require("runc", "runc", "/usr/sbin/runc")
    if version == 1:
        return Path(programs.require("containerd", "containerd")).parent
    return build_folder("containerd", "containerd")


class Containerd:
    """containerd; it runs inside the `with` block unless a method stopped it.

    Args:
        machine: where it runs.
        version: 1 or 2.

    Attributes:
        version: as given.
    """

    def __init__(self, machine: Machine, version: int = 1) -> None:
        self.version = version
        self._machine = machine
        self._folder = programs_of(version)
        self._config = machine.folder / "containerd.toml"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._config.write_text((_VERSION_1 if self.version == 1 else _VERSION_2).replace("@PAUSE@", image.PAUSE))
        bin_dir = self._machine.path("/opt/cni/bin")
        bin_dir.mkdir(exist_ok=True)
        self._machine.path("/etc/cni/net.d").mkdir(exist_ok=True)
        for name in _PLUGINS:
            shutil.copy2(Path(programs.plugin_path(), name), bin_dir / name)
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.stop()

    def start(self) -> None:
        """Start it and wait until it answers; its containers, if it has any, go on meanwhile.

        Raises:
            LabError: it ended first, or took longer than `START` seconds.
        """
        path = f"{self._folder}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        command = self._machine.grouped([str(self._folder / "containerd"), "-c", str(self._config)])
        log = self._machine.folder / "containerd.log"
        self._child = Child(command, log=log, env=os.environ | {"PATH": path}, name="containerd")
        deadline = time.monotonic() + START
        while not self._answers():
            if wait_any([self._child.pidfd], _LOOK_AGAIN):
                raise self._child.died()
            if time.monotonic() > deadline:
                raise LabError(f"containerd does not answer; its last words:\n{self._child.last_words()}")

    def stop(self) -> None:
        """End it; containers go on."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """End it by SIGKILL; containers go on."""
        if self._child is not None:
            self._child.kill()

    def _answers(self) -> bool:
        try:
            self.ctr("version")
        except LabError:
            return False
        return True

    def ctr(self, *arguments: str, timeout: float = 60.0) -> str:
        """What containerd's own client prints, in kubelet's namespace."""
        command = [str(self._folder / "ctr"), "--address", SOCKET, "--namespace", "k8s.io", *arguments]
        return self._machine.run(*command, timeout=timeout)

    def import_images(self, archives: Iterable[Path]) -> None:
        """Import OCI archives; pods name the images with imagePullPolicy Never or IfNotPresent."""
        for archive in archives:
            self.ctr("images", "import", str(archive), timeout=300)

    def sandbox_of(self, namespace: str, pod: str) -> str:
        """The id of a pod's sandbox that runs, empty when it has none."""
        for container in self.ctr("tasks", "list", "--quiet").split():
            with contextlib.suppress(LabError):  # it went while we looked
                labels = json.loads(self.ctr("containers", "info", container)).get("Labels") or {}
                named = (labels.get("io.kubernetes.pod.namespace"), labels.get("io.kubernetes.pod.name"))
                if named == (namespace, pod) and labels.get("io.cri-containerd.kind") == "sandbox":
                    return container
        return ""


# runc cannot lower oom_score_adj without CAP_SYS_RESOURCE, which root in a container or a small VM has not got; it then says
# "can't get final child's PID from pipe: EOF" and nothing else.  Hence restrict_oom_score_adj.
_VERSION_1 = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "@PAUSE@"
  restrict_oom_score_adj = true
  enable_selinux = false
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

_VERSION_2 = """\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "@PAUSE@"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  enable_selinux = false
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""
