"""A private Neutron: the real server on a real OVS-DPDK, with OVN or with the Open vSwitch agent.

Law: it is real but for who asks: accounts are those of `neutron_files.USERS`, judged by Neutron's own policies.  All of it
lives in one folder and one network namespace, but for the API's listening socket, which is on our loopback, or on our end of
the machine's wire, under a port that the kernel chose.  Nothing is left when the block ends.
"""

import base64
import contextlib
import functools
import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podvif.lab import programs
from podvif.lab.machine import Machine
from podvif.lab.neutron_backends import START, MariaDb, Processes, RabbitMq, start_ovn
from podvif.lab.neutron_files import (
    AGENTS,
    BRIDGE,
    HOST,
    OTHER_HOSTS,
    PASSWORD,
    PROVIDER,
    Auth,
    Bindings,
    Mechanism,
    Places,
    agent_ini,
    altered_agent,
    api_paste,
    basic_module,
    gunicorn_conf,
    is_of_kind,
    ml2_ini,
    neutron_conf,
    other_hosts_files,
    other_hosts_module,
)
from podvif.lab.neutron_venv import neutron_venv
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import Child, LabError, wait_for_words
from podvif.lab.sandbox import Sandbox, sandbox

Document = dict[str, Any]

_LOOK_AGAIN = 0.05
"""Seconds between two looks at what only Neutron's API can tell; it sends no events."""


class NeutronError(LabError):
    """Neutron answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class PrivateNeutron:
    """Neutron's server with everything that it needs; it runs inside the `with` block unless a method stopped it.

    Args:
        folder: an empty or new folder for everything; it stays (logs!) and belongs to the caller.  Keep its path short.
        mechanism: OVN, or the Open vSwitch agent with RabbitMQ.
        auth: who may call.
        mode: vhostuser_mode that Neutron shall say, or another key of `AGENTS`; with OVN it is `server`.
        quota: limits by resource, for instance `{"port": 10}`.
        extension_drivers: of ML2; without `tag_ports_during_bulk_creation`, as most clouds are, Neutron says nothing about
            tags in a request for a port, and does not take them.
        machine: whose switch it shall work on, in that machine's network namespace; without it in one of its own.
        other_hosts: hosts without an agent whose ports are bound all the same, and as what.

    Attributes:
        ovs: the switch, whose vswitchd runs in the namespace.
        host: what binding:host_id has to be for a port to be bound here.
        address: where the API listens: 127.0.0.1, or what the machine and its pods reach us by.
        port: the API's TCP port there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mechanism: Mechanism = Mechanism.OVN,
        auth: Auth = Auth.BASIC,
        mode: str = "server",
        quota: Mapping[str, int] | None = None,
        extension_drivers: Sequence[str] = ("port_security",),
        machine: Machine | None = None,
        other_hosts: Bindings | None = None,
    ) -> None:
        if mechanism is Mechanism.OVN and mode != "server":
            raise LabError("ML2/OVN knows the mode server alone")
        self.folder = folder
        self.mechanism = mechanism
        self.auth = auth
        self.mode = mode
        self.host = HOST
        self.address = machine.gateway if machine else "127.0.0.1"
        self.port = 0
        self._quota = dict(quota or {})
        self._extension_drivers = extension_drivers
        self._machine = machine
        self._other_hosts = other_hosts or {}
        self._agents = 0
        self._stack = contextlib.ExitStack()
        self._api: Child | None = None
        self._agent: Child | None = None

    @property
    def url(self) -> str:
        """The API's address, the endpoint that a catalogue would have."""
        return f"http://{self.address}:{self.port}"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
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
        venv = neutron_venv()
        machine = self._machine
        rundir = machine.path("/run/openvswitch") if machine else self.folder / "ovs"
        self._places = Places(self.folder, venv, rundir)
        self.box: Sandbox = machine.box if machine else self._stack.enter_context(sandbox())
        env = {"OVS_RUNDIR": str(self._places.rundir), "OVN_RUNDIR": str(self.folder), "OVN_LOGDIR": str(self.folder)}
        self._processes = Processes(self.box.name, self.folder, env)
        self._stack.callback(self._processes.kill_all)
        # What takes longest begins first; all of it is waited for later.
        broker = RabbitMq(self._places, self._processes) if self.mechanism is Mechanism.OVS else None
        database = self._database = MariaDb(self._places, self._processes)
        self.ovs = self._stack.enter_context(
            PrivateOvs(self._places.rundir, netns=self.box.name, where=machine.inside if machine else ())
        )
        self.ovs.vsctl("add-br", PROVIDER, "--", "set", "Bridge", PROVIDER, "datapath_type=netdev")
        if broker is None:
            start_ovn(self._places, self._processes, self.ovs)
        database.start(venv / "podvif-schema.sql")
        self._write_files()
        if broker is not None:
            broker.wait()
            command = self._program("neutron-rpc-server", "ml2.ini")
            self._processes.start(command, "neutron-rpc-server", env={"PYTHONPATH": str(self.folder)})
        self.start_api()
        if broker is not None:
            self._wait_for_agent(self.start_agent())

    def _write_files(self) -> None:
        for name in ("state", "lock"):
            (self.folder / name).mkdir(exist_ok=True)
        files = {
            "neutron.conf": neutron_conf(self._places, self.mechanism, self.auth, self._quota),
            "ml2.ini": ml2_ini(self._places, self.mechanism, self._extension_drivers),
            "api-paste.ini": api_paste((self._places.venv / "etc/neutron/api-paste.ini").read_text()),
            "podvif_lab_basic.py": basic_module(),
            f"{OTHER_HOSTS}.py": other_hosts_module(self._other_hosts),
            **other_hosts_files(),
        }
        for name, text in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)

    def _program(self, program: str, *configuration: str) -> list[str]:
        files = [f"--config-file={self.folder}/{name}" for name in ("neutron.conf", *configuration)]
        return [str(self._places.venv / "bin" / program), *files]

    # -- what happens to it --------------------------------------------------------------------------------------------

    def start_api(self) -> None:
        """Start the API on the same port as before and return when it answers."""
        if self._api is not None:
            raise LabError("the API runs already")
        with socket.create_server((self.address, self.port)) as listening:
            self.port = listening.getsockname()[1]
            config = self.folder / "gunicorn.conf.py"
            config.write_text(gunicorn_conf(listening.fileno()))
            env = {
                "GUNICORN_CMD_ARGS": f"--config {config}",
                "OS_NEUTRON_CONFIG_DIR": str(self.folder),
                "OS_NEUTRON_CONFIG_FILES": "neutron.conf;ml2.ini",
                # OVN's hash ring asks how many workers there are, and knows uwsgi and mod_wsgi alone.
                "ASGI_WORKERS": "1",
                "PYTHONPATH": str(self.folder),
            }
            command = [str(self._places.venv / "bin" / "gunicorn")]
            self._api = self._processes.start(command, "neutron-api", env=env, inherit=[listening.fileno()])
        # The kernel takes the connection; the answer comes when the server is there.
        try:
            self.ask("GET", "/networks?limit=1", timeout=START)
        except OSError as error:
            self._api.stop(grace=0.1)
            raise LabError(
                f"Neutron's API did not come up ({error}); its last words:\n{self._api.last_words()}"
            ) from error

    def stop_api(self) -> None:
        """Kill the API: connections are refused from now on."""
        if self._api is None:
            raise LabError("the API does not run")
        api, self._api = self._api, None
        workers = Path(f"/proc/{api.pid}/task/{api.pid}/children").read_text().split()
        self._processes.kill(api)
        with contextlib.ExitStack() as each:
            for worker in workers:
                each.callback(self._processes.kill_pid, int(worker))

    @property
    def stopped(self) -> bool:
        """Whether the API does not run."""
        return self._api is None

    def start_agent(self) -> Child:
        """Start the Open vSwitch agent; it is not ready when this returns."""
        kind, ini = AGENTS[self.mode], self.folder / "agent.ini"
        ini.write_text(agent_ini(self._places, self.folder / "neutron.conf", ini, kind.firewall))
        command = self._program("neutron-openvswitch-agent", ini.name)
        if kind.is_altered:
            altered = self.folder / "altered_agent.py"
            altered.write_text(altered_agent(kind))
            command[:1] = [str(self._places.venv / "bin/python"), "-W", "ignore", str(altered)]
        self._agents += 1
        self._agent = self._processes.start(command, f"neutron-openvswitch-agent-{self._agents}")
        return self._agent

    def restart_agent(self, mode: str) -> None:
        """Have the agent say what makes Neutron bind ports in this way, a key of `AGENTS`."""
        if self._agent is None:
            raise LabError("there is no agent: this Neutron has OVN")
        self._processes.kill(self._agent)
        self.mode = mode
        self._wait_for_agent(self.start_agent())

    def _wait_for_agent(self, agent: Child) -> None:
        wait_for_words("iteration:0 completed", agent.log, START, agent)

        def said() -> bool:
            known = [about for about in self.ask("GET", "/agents")["agents"] if about["alive"]]
            return any(is_of_kind(about["configurations"], AGENTS[self.mode]) for about in known)

        self._until(said, f"the agent has said what makes the mode {self.mode}")

    # -- the administrator's own client --------------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: Document | None = None, *, user: str = "admin", timeout: float = 30.0
    ) -> Document:
        """One request below /v2.0 and its answer.

        Raises:
            NeutronError: the answer is an error.
            OSError: there was none.
        """
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        headers = {"Content-Type": "application/json"}
        if self.auth is Auth.BASIC:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        with contextlib.closing(connection):
            connection.request(method, f"/v2.0{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise NeutronError(answer.status, text)
        return dict(json.loads(text)) if text else {}

    def create(self, kind: str, **attributes: Any) -> Document:
        """Create a resource, `network` for instance, and return its document."""
        answer = self.ask("POST", f"/{kind.replace('_', '-')}s", {kind: attributes})
        return dict(answer[kind])

    def network(self, cidr: str, *, port_security: bool = False, **subnet: Any) -> tuple[str, str]:
        """A shared network, and a subnet of it without DHCP; their UUIDs."""
        network = self.create("network", name=f"net-{cidr}", shared=True, port_security_enabled=port_security)["id"]
        version = 6 if ":" in cidr else 4
        about = {"enable_dhcp": False, "ip_version": version, "name": f"subnet-{cidr}"} | subnet
        return network, self.create("subnet", network_id=network, cidr=cidr, **about)["id"]

    def unbind(self, port: str) -> None:
        """Have the database say that a port is not bound, as when Neutron dies between making and binding one."""
        where = f"port_id = '{uuid.UUID(port)}'"
        self._database.execute(f"update ml2_port_bindings set vif_type = 'unbound', vif_details = '' where {where}")  # noqa: S608  a UUID

    def rename_host(self, name: str) -> None:
        """The node is called so from now on, and ovn-controller tells Neutron.

        Raises:
            LabError: there is an agent, which takes its name from its configuration.
        """
        if self.mechanism is not Mechanism.OVN:
            raise LabError("the agent's host stands in its configuration")
        self.ovs.vsctl("set", "Open_vSwitch", ".", f"external_ids:hostname={name}")
        self.host = name

    def remove_ports(self) -> None:
        """Delete every port."""
        for port in self.ask("GET", "/ports?fields=id")["ports"]:
            self.ask("DELETE", f"/ports/{port['id']}")

    def wait_for_status(self, port: str, status: str, timeout: float = 30.0) -> float:
        """Wait until a port has a status; returns the seconds that it took."""
        began = time.monotonic()
        self._until(
            lambda: self.ask("GET", f"/ports/{port}?fields=status")["port"]["status"] == status,
            f"port {port} is {status}",
            timeout,
        )
        return time.monotonic() - began

    @staticmethod
    def _until(holds: Callable[[], bool], what: str, timeout: float = START) -> None:
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not holds():
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {timeout:g} s")
            pause.wait(_LOOK_AGAIN)

    def options(self, user: str = "service") -> dict[str, str]:
        """What podvif's configuration has to say in [neutron] to reach it."""
        if self.auth is Auth.NONE:
            return {"auth_type": "none", "endpoint_override": self.url}
        account = {"username": user, "password": PASSWORD}
        return {"auth_type": "http_basic", "endpoint": self.url, "endpoint_override": self.url} | account


def look_for_all(mechanism: Mechanism) -> None:
    """Look for every program, before anything is made.

    Raises:
        LabError: some are not there; the message names each with its Debian package.
    """
    clients = ("mariadbd", "mariadb", "mariadb-install-db", "mariadb-dump")
    finders = [functools.partial(programs.mariadb, name) for name in clients]
    if mechanism is Mechanism.OVN:
        ovn = ("ovn-northd", "ovn-controller", "ovn-nbctl", "ovn-sbctl")
        finders += [functools.partial(programs.ovn, name) for name in ovn]
        finders += [functools.partial(programs.ovn_schema, "nb")]
    else:
        agents = (programs.rabbitmq, programs.epmd, programs.iptables_save)
        finders += [functools.partial(find) for find in agents]
    missing = []
    switch = (programs.vswitchd, programs.ovsdb_server, programs.ovs_vsctl, programs.schema, programs.ip)
    for find in [functools.partial(find) for find in switch] + finders:
        try:
            find()
        except LabError as error:
            missing.append(str(error))
    if missing:
        raise LabError("\n".join(sorted(set(missing))))


__all__ = ["BRIDGE", "HOST", "Auth", "Mechanism", "NeutronError", "PrivateNeutron", "look_for_all"]
