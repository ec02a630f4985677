"""A whole Kubernetes cluster with one node: control plane, containerd, kubelet, and a main network.

Law: it is used as any cluster is, with kubectl and from pods; what it has that others have not is that all of it is gone when
the block ends.  Pods are deleted first, so that each one's CNI DEL is made by the runtime, as in life.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podvif.lab import image, programs
from podvif.lab.cluster import Cluster
from podvif.lab.controlplane import ControlPlane
from podvif.lab.kube import folder_of_programs
from podvif.lab.kubelet import Kubelet
from podvif.lab.machine import Machine
from podvif.lab.process import Child, LabError, wait_any
from podvif.lab.runtime import Containerd, programs_of

Document = dict[str, Any]

PODS = "10.78.0.0/24"
"""Addresses of pods in the main network, where that is the bridge."""

READY = 60.0
"""Seconds until the node is ready; four where nothing else runs."""


def bridge() -> Document:
    """A main network of the reference plugins: a kernel bridge with addresses, as a conflist."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugin = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "main", "plugins": [plugin]}


class OneNode:
    """The cluster; it runs inside the `with` block.

    Args:
        folder: for everything; belongs to the caller, and stays.
        network: the main network's conflist, put where the runtime looks for it before kubelet starts; None leaves the node
            not ready until somebody puts one there.
        multus: whether Multus is in charge of it, and adds what a pod's annotation asks for.
        containerd: its major version, 1 or 2.
        node: the node's name.
        machine: where it runs, if that stands already; else it makes one.

    Attributes:
        folder: as given.
        node: as given.
        machine: where it runs.
        plane: the control plane.
        runtime: containerd.
        kubelet: kubelet.
        cluster: its namespace `default`.
        namespace: that kubectl works in; empty for `default`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        network: Mapping[str, Any] | None,
        multus: bool = False,
        containerd: int = 1,
        node: str = "node",
        machine: Machine | None = None,
    ) -> None:
        self.folder = folder
        self.node = node
        self._network = network
        self._multus = multus
        self._version = containerd
        self._given = machine
        self._stack = contextlib.ExitStack()
        self.namespace = ""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.machine = self._given or self._stack.enter_context(Machine(self.folder))
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.plane = self._stack.enter_context(ControlPlane(self.machine, self.node))
        (self.folder / "programs").symlink_to(self.plane.programs)
        self.runtime = self._stack.enter_context(Containerd(self.machine, self._version))
        self.runtime.import_images(images(self.folder / "images"))
        self.cluster = Cluster(self.plane, "default")
        self.cluster.prepare(podvif=False)
        if self._network is not None:
            self.put_network(self._network)
        self.kubelet = self._stack.enter_context(Kubelet(self.machine, self.plane, self.node))
        self._stack.callback(self.delete_pods)
        if self._network is not None:
            self.wait_for_node()
        # Without it no pod is admitted.
        self.kubectl("wait", "serviceaccount/default", "--for=create", f"--timeout={READY:g}s")

    # -- what the administrator of the node does -------------------------------------------------------------------------

    def put_network(self, network: Mapping[str, Any], *, multus: bool | None = None) -> None:
        """Make this the main network, in Multus's hands where the cluster has it in charge; `multus` overrules that."""
        folder = self.machine.path("/etc/cni/net.d")
        if self._multus if multus is None else multus:
            self.install_plugin(_multus())
            # Given by path ("clusterNetwork") instead, Multus hands DEL a configuration stripped of all but the common keys.
            network = {
                "cniVersion": "1.0.0",
                "name": "multus",
                "plugins": [
                    {
                        "type": "multus",
                        "kubeconfig": str(self.plane.kubeconfig),
                        "cniDir": "/var/lib/cni/multus",
                        "binDir": "/opt/cni/bin",
                        "confDir": "/etc/cni/net.d/multus",
                        "delegates": [network],
                    }
                ],
            }
        new = folder / "new"  # the runtime reads *.conf, *.conflist and *.json as soon as they are there
        new.write_text(json.dumps(network))
        new.replace(folder / "10-main.conflist")

    def install_plugin(self, program: Path) -> None:
        """Put a CNI plugin where the runtime looks for plugins, by rename: one that runs cannot be written to."""
        folder = self.machine.path("/opt/cni/bin")
        shutil.copy2(program, folder / "new")
        (folder / "new").replace(folder / program.name)

    def wait_for_node(self) -> None:
        """Wait until the node is ready.

        Raises:
            LabError: it was not; the message has kubelet's last words.
        """
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            with contextlib.suppress(LabError):  # kubelet has not made it yet
                self.kubectl("wait", f"node/{self.node}", "--for=condition=Ready", "--timeout=10s")
                return
            kubelet = self.kubelet.child
            if kubelet is not None and wait_any([kubelet.pidfd], 0.1):
                raise kubelet.died()
        words = self.kubelet.child.last_words() if self.kubelet.child else ""
        raise LabError(f"the node is not ready after {READY:g} s; kubelet's last words:\n{words}")

    # -- what a user does -------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | bytes = b"", timeout: float = 120.0) -> str:
        """What kubectl prints.

        Raises:
            LabError: it failed, or took longer than `timeout` seconds; the message has its words.
        """
        text = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            done = subprocess.run(
                self._kubectl(*arguments), input=text, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as slow:
            raise LabError(f"kubectl {' '.join(arguments)}: no end after {timeout:g} s") from slow
        if done.returncode:
            raise LabError(f"kubectl {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def _kubectl(self, *arguments: str) -> list[str]:
        # Not by its configuration file, which Multus reads as well.
        where = [f"--namespace={self.namespace}"] if self.namespace else []
        return [str(self.plane.programs / "kubectl"), f"--kubeconfig={self.plane.kubeconfig}", *where, *arguments]

    def apply(self, *documents: Mapping[str, Any] | Path) -> None:
        """`kubectl apply` of objects, or of files with some."""
        for document in documents:
            if isinstance(document, Path):
                self.kubectl("apply", "-f", str(document))
            else:
                self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def wait_ready(self, *pods: str, timeout: float = 60.0) -> None:
        """Wait until pods are ready.

        Raises:
            LabError: they were not; the message has what `kubectl describe` says of them.
        """
        names = [f"pod/{name}" for name in pods]
        try:
            self.kubectl("wait", *names, "--for=condition=Ready", f"--timeout={timeout:g}s", timeout=timeout + 20)
        except LabError as error:
            raise LabError(f"{error}\n{self.kubectl('describe', *names)[-6000:]}") from error

    def delete(self, *pods: str, timeout: float = 90.0) -> None:
        """Delete pods and wait until they are gone."""
        names = [f"pod/{name}" for name in pods]
        self.kubectl("delete", *names, "--grace-period=1", f"--timeout={timeout:g}s", timeout=timeout + 20)

    def execute(self, pod: str, script: str, *, container: str = "") -> str:
        """What a shell script prints in a pod's container."""
        where = ["-c", container] if container else []
        return self.kubectl("exec", pod, *where, "--", "/bin/sh", "-c", script)

    @contextlib.contextmanager
    def following(self, pod: str) -> Iterator[Child]:
        """`kubectl logs --follow` of a pod, the lines that come from now on in the child's `stdout`; it ends with the container."""
        log = self.folder / f"logs-{pod}.err"
        child = Child(
            self._kubectl("logs", "--follow", "--tail=0", pod), log=log, pipe=True, name=f"kubectl logs {pod}"
        )
        try:
            yield child
        finally:
            child.kill()
            child.stdout.close()

    def delete_pods(self) -> None:
        """Delete every pod and what would make it again, while what its DEL needs is there."""
        kinds = "deployments,daemonsets,replicasets,statefulsets,jobs,pods"
        with contextlib.suppress(LabError):  # what stands then is killed with the machine
            self.kubectl("delete", kinds, "--all", "--all-namespaces", "--grace-period=1", "--timeout=60s", timeout=80)


def _multus() -> Path:
    program = folder_of_programs() / "multus"
    if not program.exists():
        raise LabError(f"Multus is not in {program.parent}, beside kube-apiserver: scripts/build-kube builds both")
    return program


def images(folder: Path) -> Sequence[Path]:
    """The archives of the images that every cluster has, written when they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    archives = []
    for about in (image.pause(), image.app()):
        archive = folder / f"{about.name.rpartition('/')[2].replace(':', '-')}.tar"
        if not archive.exists():
            image.write(about, archive)
        archives.append(archive)
    return archives


def why_not_here(containerd: int = 1) -> str | None:
    """Why a private cluster cannot run on this machine, or None when it can."""
    if os.geteuid() != 0:
        return "a private cluster needs root: it makes namespaces, mounts and control groups"
    finders: list[Callable[[], object]] = [
        programs.busybox,
        programs.nsenter,
        programs.openssl,
        programs.plugin_path,
        programs.testpmd,
        programs.unshare,
        lambda: programs_of(containerd),
        _multus,
    ]
    missing = []
    for find in finders:
        try:
            find()
        except LabError as error:
            missing.append(str(error))
    if "overlay" not in Path("/proc/filesystems").read_text():
        missing.append("this kernel has no overlay file system (modprobe overlay)")
    return "; ".join(dict.fromkeys(missing)) or None
