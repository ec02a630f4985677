"""kubelet on a private machine.

Law: the node is ready when the API server says so.  kubelet may be stopped and started again; pods go on meanwhile.
"""

import contextlib
import json
import os
from types import TracebackType
from typing import Any, Self

from podvif.lab.controlplane import ControlPlane
from podvif.lab.machine import Machine
from podvif.lab.process import Child
from podvif.lab.runtime import SOCKET


class Kubelet:
    """kubelet; it runs inside the `with` block unless a method stopped it.

    Args:
        machine: where it runs, with a containerd.
        plane: the API server that it asks.
        node: the node's name.
    """

    def __init__(self, machine: Machine, plane: ControlPlane, node: str) -> None:
        self._machine = machine
        self._plane = plane
        self._node = node
        self._config = machine.folder / "kubelet.json"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        (self._machine.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self._config.write_text(json.dumps(self._configuration()))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; the node becomes ready, or does not, later."""
        command = [str(self._plane.programs / "kubelet"), f"--kubeconfig={self._plane.kubelet_config}"]
        command += [f"--config={self._config}", "--root-dir=/var/lib/kubelet", f"--hostname-override={self._node}"]
        command += [f"--node-ip={self._machine.address}", f"--cert-dir={self._machine.folder / 'kube'}"]
        env = dict(os.environ)
        with contextlib.suppress(KeyError):
            del env["NOTIFY_SOCKET"]
        log = self._machine.folder / "kubelet.log"
        self._child = Child(self._machine.grouped(command), log=log, env=env, name="kubelet")

    @property
    def child(self) -> Child | None:
        """Its process, if it was started."""
        return self._child

    def stop(self) -> None:
        """End it; pods go on."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._child is not None:
            self._child.kill()

    def _configuration(self) -> dict[str, Any]:
        certificate, key = map(str, self._plane.certificate_and_key)
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self._machine.address,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "podLogsDir": "/var/log/pods",
            "tlsCertFile": certificate,
            "tlsPrivateKeyFile": key,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": certificate},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._machine.cgroup}",
            "failCgroupV1": False,  # 1.37 refuses control groups of version 1 unless told otherwise
            "failSwapOn": False,
            "enforceNodeAllocatable": ["pods"],
            "makeIPTablesUtilChains": False,
            "resolvConf": str(self._machine.folder / "resolv.conf"),
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
            },
            "evictionPressureTransitionPeriod": "5s",
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "serializeImagePulls": False,
        }
