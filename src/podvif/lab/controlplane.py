"""The API server of a real cluster, with controller manager and scheduler, on a private machine.

Law: they are to be had as on any cluster: pods have service accounts and find the API at the first address of the services'
range, garbage is collected, kubelet is asked for logs.  One certificate is everybody's, and trusts itself.
"""

import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab.kube import KubeApi
from podvif.lab.machine import Machine
from podvif.lab.process import Child

SERVICES = "10.79.0.0/24"
"""Addresses of services."""

API_SERVICE = "10.79.0.1"
"""Where pods find the API server.  It is one of the machine's own addresses, so that no rule has to lead there."""


class ControlPlane(KubeApi):
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

    Args:
        machine: where they run.
        node: the name of its node.

    Attributes:
        kubelet_config: kubelet's kubeconfig.
    """

    def __init__(self, machine: Machine, node: str) -> None:
        folder = machine.folder / "kube"
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.address, self.port = machine.address, 443
        self.kubelet_config = folder / "kubelet.kubeconfig"
        # What kube-apiserver shows to kubelet, which lets it do everything.
        self._subject = "/O=system:masters/CN=kube-apiserver"
        self._where = machine.inside
        self._machine = machine
        self._node = node
        self._kubelet_token, self._scheduler_token = secrets.token_hex(16), secrets.token_hex(16)
        self._managers: list[Child] = []

    def __enter__(self) -> Self:
        self._machine.run("ip", "address", "replace", f"{API_SERVICE}/32", "dev", "lo")
        super().__enter__()
        try:
            self._start_managers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._managers:
            child.kill()
        super().__exit__(kind, error, trace)

    @property
    def certificate_and_key(self) -> tuple[Path, Path]:
        """Everybody's certificate and its key."""
        return self.certificate, self._key

    def _start_managers(self) -> None:
        scheduler = self.write_kubeconfig(self.folder / "scheduler.kubeconfig", token=self._scheduler_token)
        common = ["--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false"]
        # One identity for all controllers, the administrator's: separate ones come four seconds later.
        keys = [f"--service-account-private-key-file={self._key}", f"--root-ca-file={self.certificate}"]
        for name, config, more in (
            ("kube-controller-manager", self.kubeconfig, keys),
            ("kube-scheduler", scheduler, []),
        ):
            command = [*self._where, str(self.programs / name), f"--kubeconfig={config}", *common, *more]
            self._managers.append(Child(command, log=self.folder / f"{name}.log", name=name))

    def _settings(self) -> dict[str, str]:
        certificate, key = map(str, self.certificate_and_key)
        flags = super()._settings() | {
            "bind-address": "0.0.0.0",  # noqa: S104  the private machine's: also the services' address, which is the machine's own
            "advertise-address": self.address,
            "endpoint-reconciler-type": "master-count",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": SERVICES,
            "allow-privileged": "true",
            "client-ca-file": certificate,
            "kubelet-client-certificate": certificate,
            "kubelet-client-key": key,
            "kubelet-certificate-authority": certificate,
            "kubelet-preferred-address-types": "InternalIP",
        }
        del flags["disable-admission-plugins"]
        return flags

    def _names(self) -> list[str]:
        return [*super()._names(), f"IP:{API_SERVICE}", f"DNS:{self._node}", "DNS:kubernetes", "DNS:kubernetes.default"]

    def _users(self) -> list[str]:
        return [
            *super()._users(),
            f'{self._kubelet_token},system:node:{self._node},kubelet,"system:nodes"',
            f"{self._scheduler_token},system:kube-scheduler,scheduler",
        ]

    def _write_credentials(self) -> None:
        super()._write_credentials()
        self.write_kubeconfig(self.kubelet_config, token=self._kubelet_token)
