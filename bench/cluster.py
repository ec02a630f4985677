"""From "PodVif bound" to the answer of ADD: what the node itself adds to os-vif and to Neutron's agent.

Law: the runtime's ADD waits already when the PodVif is bound, as on a node whose kubelet is faster than Neutron.  The clock runs
from the API server's answer to that write until the plugin has ended; the floor's runs from the call of `os_vif.plug` until
that has returned and the port is wired.  Both have the same agent, which takes AGENT seconds for a port, about what
ovn-controller takes (0.01 s): the slower an agent, the less podvif shows.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bench.plan import WARM_UP
from bench.rows import Row, Rows
from bench.stage import BRIDGE, LOOK, Stage
from podvif import names
from podvif.kube.client import Kube, Outcome
from podvif.kube.resources import CRDS, NAMESPACES, PODVIFS, Document, Key, Where
from podvif.lab.cni import call
from podvif.lab.daemon import NodeDaemon
from podvif.lab.kube import KubeApi, folder_of_programs
from podvif.lab.process import LabError
from podvif.podvifs import NODE_LABEL

PODVIF = "podvif, from PodVif bound to the answer"
FLOOR = "os_vif.plug, and until the port is wired"
AGENT = 0.01
"""Seconds that the agent takes from seeing a port to wiring it."""

SOON = 30.0
"""Seconds after which something that should come by itself counts as not coming."""

NODE, NAMESPACE, MANAGER = "n1", "bench", "podvif-bench"
_CRD = Path(__file__).parents[1] / "deploy" / "crds" / "podvifs.podvif.io.yaml"


class Agent:
    """Neutron's agent: gives each vhost-user port that comes a tag; runs in the block, in a thread of its own.

    Attributes:
        wired: when it did, by port name and `time.perf_counter`.
    """

    def __init__(self, path: Path) -> None:
        self.wired: dict[str, float] = {}
        self._news = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.connect(str(path))
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def wait(self, name: str) -> float:
        """When the port was wired; waits for it.

        Raises:
            LabError: it was not in time.
        """
        with self._news:
            if not self._news.wait_for(lambda: name in self.wired, SOON):
                raise LabError(f"port {name} was not there to be wired within {SOON:g} s")
            return self.wired[name]

    def _run(self) -> None:
        wanted = {"Port": [{"columns": ["name"], "select": {"initial": False, "modify": False, "delete": False}}]}
        self._send("monitor", ["Open_vSwitch", None, wanted])
        buffer, decoder = "", json.JSONDecoder()
        while data := self._socket.recv(1 << 16):
            buffer += data.decode()
            with contextlib.suppress(ValueError):  # the rest of a message is on its way
                while buffer:
                    message, end = decoder.raw_decode(buffer)
                    buffer = buffer[end:].lstrip()
                    self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "echo":
            self._socket.sendall(json.dumps({"result": message["params"], "error": None, "id": message["id"]}).encode())
        elif message.get("method") == "update":
            for row in message["params"][1].get("Port", {}).values():
                if (name := row.get("new", {}).get("name", "")).startswith("vhu"):
                    time.sleep(AGENT)
                    where = [["name", "==", name]]
                    self._send(
                        "transact",
                        ["Open_vSwitch", {"op": "update", "table": "Port", "where": where, "row": {"tag": 5}}],
                        name,
                    )
        elif message.get("result") is not None and message["id"].startswith("vhu"):
            with self._news:
                self.wired[message["id"]] = time.perf_counter()
                self._news.notify_all()

    def _send(self, method: str, params: list[Any], number: str = "monitor") -> None:
        self._socket.sendall(json.dumps({"method": method, "params": params, "id": number}).encode())


class Cluster:
    """An API server, and a node daemon that serves its pods on the stage's switch."""

    def __init__(self, stage: Stage, api: KubeApi, daemon: NodeDaemon, agent: Agent) -> None:
        self._stage = stage
        self._daemon = daemon
        self._agent = agent
        self._runner = asyncio.Runner()
        self._kube = Kube(str(api.kubeconfig))
        self._calls = ThreadPoolExecutor(1)
        self._config = {"cniVersion": "1.1.0", "name": "podvif", "type": "podvif-cni"}
        self._config["daemonSocket"] = str(daemon.socket)
        self._runner.run(self._prepare())

    async def _prepare(self) -> None:
        crd = msgspec.yaml.decode(_CRD.read_bytes(), type=Document)
        key = Key("", crd["metadata"]["name"])
        await self._kube.apply(NAMESPACES, Key("", NAMESPACE), {}, MANAGER)
        made = await self._kube.apply(CRDS, key, crd, MANAGER)
        if isinstance(made, Outcome):
            raise LabError(f"the CRD could not be made: {made.value}")
        version = made["metadata"]["resourceVersion"]
        async for event in self._kube.watch(CRDS, version, Where(fields=f"metadata.name={key.name}"), window=SOON):
            conditions = (event.document.get("status") or {}).get("conditions") or []
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                return
        raise LabError(f"the CRD was not established within {SOON:g} s")

    def close(self) -> None:
        """End its connections."""
        self._runner.run(self._kube.close())
        self._runner.close()
        self._calls.shutdown()

    def add(self) -> float:
        """One pod: seconds from its PodVif's being bound to the answer of its ADD; it is gone in the end."""
        port, uid, container_id = _uuid(), _uuid(), secrets.token_hex(32)
        pod = f"p-{uid}"
        key = Key(NAMESPACE, pod)
        self._runner.run(self._make(key, uid))
        args = f"K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={pod};K8S_POD_UID={uid}"
        given: dict[str, Any] = {"container_id": container_id, "netns": self._stage.box.netns, "ifname": "eth0"}
        adding = self._calls.submit(self._timed, {**given, "args": args, "cni_path": "/usr/lib/cni"})
        self._await_waiting(pod)
        self._runner.run(self._bind(key, port))
        bound = time.perf_counter()
        answered = adding.result()
        self._agent.wait(names.vif_name(port))
        call("DEL", self._config, cni_path="/usr/lib/cni", **given).checked()
        self._runner.run(self._delete(key))
        return answered - bound

    def _timed(self, given: dict[str, Any]) -> float:
        answer = call("ADD", self._config, **given)
        ended = time.perf_counter()
        answer.checked()
        return ended

    def _await_waiting(self, pod: str) -> None:
        end = time.monotonic() + SOON
        words = f"waiting for PodVif {NAMESPACE}/{pod}: its interface eth0"
        while words not in self._daemon.log.read_text():
            if time.monotonic() > end:
                raise LabError(f"the ADD of {pod} did not come to wait for its PodVif; see {self._daemon.log}")
            time.sleep(LOOK)
        time.sleep(LOOK)  # the line is written just before the wait begins

    async def _make(self, key: Key, uid: str) -> None:
        metadata = {"namespace": key.namespace, "name": key.name, "labels": {NODE_LABEL: NODE}}
        spec = {"nodeName": NODE, "podUID": uid, "interfaces": [{"name": "eth0"}], "hostPaths": [str(self._stage.pods)]}
        made = await self._kube.create(PODVIFS, {"metadata": metadata, "spec": spec}, MANAGER)
        if isinstance(made, Outcome):
            raise LabError(f"PodVif {key} could not be made: {made.value}")

    async def _bind(self, key: Key, port: str) -> None:
        interface = {
            "name": "eth0",
            "state": "Bound",
            "portId": port,
            "mac": "fa:16:3e:00:00:01",
            "mtu": 1500,
            "ips": [{"address": "10.10.1.5/24", "gateway": "10.10.1.1"}],
            "vifType": "vhostuser",
            "vifDetails": {"vhostuser_mode": "server", "datapath_type": "netdev", "bridge_name": BRIDGE},
        }
        await self._kube.apply(PODVIFS, key, {"status": {"interfaces": [interface]}}, MANAGER, status=True)

    async def _delete(self, key: Key) -> None:
        await self._kube.delete(PODVIFS, key)


def _uuid() -> str:
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@contextlib.contextmanager
def _paused(daemon: NodeDaemon) -> Iterator[None]:
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def measure(stage: Stage, rows: Rows, rounds: int) -> None:
    """Adds rows of section cluster, or a remark where there is no API server.

    Raises:
        LabError: something failed.
    """
    try:
        folder_of_programs()
    except LabError as error:
        rows.remarks.append(f"a pod of a cluster was not measured: {error}")
        return
    ours, floors = (Row("cluster", what, "ms", stage.maxsleep, "server", "ADD") for what in (PODVIF, FLOOR))
    folder = stage.folder / "cluster"
    folder.mkdir()
    with contextlib.ExitStack() as parts:
        api = parts.enter_context(KubeApi(folder))
        kubernetes = {"kubeconfig": str(api.kubeconfig), "node_name": NODE}
        daemon = parts.enter_context(
            NodeDaemon(
                folder / "node",
                ovsdb=stage.ovs.ovsdb,
                mount_point=stage.pods,
                ovs_vhu_path=stage.ovs.rundir,
                more={"node": {"source": "cluster"}, "kubernetes": kubernetes},
            )
        )
        agent = parts.enter_context(Agent(stage.ovs.rundir / "db.sock"))
        cluster = Cluster(stage, api, daemon, agent)
        parts.callback(cluster.close)
        for number in range(-WARM_UP, rounds):
            stage.signals.check()
            for what in (PODVIF, FLOOR) if number % 2 else (FLOOR, PODVIF):
                if what == PODVIF:
                    with stage.turn():
                        seconds = cluster.add()
                else:
                    with _paused(daemon), stage.turn(stage.floor.pid):
                        seconds = _floor(stage, agent)
                if number >= 0:
                    rows.take(ours if what == PODVIF else floors, seconds * 1000)


def _floor(stage: Stage, agent: Agent) -> float:
    port = stage.floor.port("server")
    began = time.perf_counter()
    plugged = stage.floor.plug(port)[0]
    seconds = max(plugged, agent.wait(port["name"]) - began)
    stage.floor.unplug(port)
    return seconds
