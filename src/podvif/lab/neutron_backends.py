"""What a Neutron server stands on: MariaDB, OVN, RabbitMQ; each a few processes in the private folder.

Law: nothing listens outside of the folder or of the private network namespace.  What these programs keep is thrown away
with the folder, so they are killed and not asked; durability is switched off.
"""

import contextlib
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from podvif.lab import programs
from podvif.lab.neutron_files import BRIDGE, HOST, PHYSICAL_NETWORK, PROVIDER, SCHEMA, Places, database_url
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import Child, output, wait_any, wait_for_path, wait_for_words

START = 60.0
"""Seconds that one of them may take to be ready; several start at once, on few cores."""


class Processes:
    """Children in one network namespace, killed in reverse order at the end of the block.

    Args:
        netns: the namespace's name; whatever is left in it at the end is killed too, helpers that their parents forgot.
        folder: for logs and temporary files.
        env: more environment variables for all of them.
    """

    def __init__(self, netns: str, folder: Path, env: Mapping[str, str]) -> None:
        self._inside = [programs.ip(), "netns", "exec", netns]
        self._netns = netns
        self._folder = folder
        self._env = {**os.environ, **env, "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
        self._children: list[Child] = []
        (folder / "tmp").mkdir(parents=True, exist_ok=True)

    def start(
        self, command: Sequence[str], name: str, *, env: Mapping[str, str] | None = None, inherit: Sequence[int] = ()
    ) -> Child:
        """Start one; its words go to `<name>.log`."""
        child = Child(
            [*self._inside, *command],
            log=self._folder / f"{name}.log",
            env={**self._env, **(env or {})},
            name=name,
            inherit=inherit,
        )
        self._children.append(child)
        return child

    def kill(self, child: Child) -> None:
        """End one of them."""
        child.kill()
        self._children.remove(child)

    @staticmethod
    def kill_pid(pid: int) -> None:
        """End a process that is no child of ours, should it still be there, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                wait_any([descriptor], START)
            finally:
                os.close(descriptor)

    def kill_all(self) -> None:
        """End all of them, and what else is in the namespace."""
        for child in reversed(self._children):
            child.kill()
        self._children.clear()
        for pid in output([programs.ip(), "netns", "pids", self._netns]).split():
            self.kill_pid(int(pid))


class MariaDb:
    """A MariaDB of Neutron's own, on a unix socket alone."""

    def __init__(self, places: Places, processes: Processes) -> None:
        self._places = places
        self._processes = processes
        self._data = places.folder / "maria"
        self._data.mkdir()
        command = [programs.mariadb("mariadb-install-db"), "--no-defaults", "--user=root", f"--datadir={self._data}"]
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        self._installing = processes.start([*command, *options], "mariadb-install-db")

    @property
    def _client(self) -> list[str]:
        return [programs.mariadb("mariadb"), "--no-defaults", "-uroot", f"--socket={self._places.database}"]

    def execute(self, statement: str) -> None:
        """Change what Neutron has written."""
        output([*self._client, "neutron", "-e", statement])

    def start(self, template: Path) -> None:
        """Start it with Neutron's empty tables: from `template`, which is made from Neutron's models if it is not there."""
        self._installing.wait(START)
        socket = self._places.database
        files = [f"--datadir={self._data}", f"--socket={socket}", f"--pid-file={self._places.folder}/maria.pid"]
        fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--innodb-buffer-pool-size=64M"]
        lean = ["--skip-networking", "--skip-log-bin", "--performance-schema=0", "--character-set-server=utf8mb3"]
        command = [programs.mariadb("mariadbd"), "--no-defaults", "--user=root", *files, *fast, *lean]
        wait_for_path(socket, START, self._processes.start(command, "mariadbd"))
        client = self._client
        output([*client, "-e", "create database neutron character set utf8mb3"])
        if template.exists():
            output([*client, "neutron", "-e", f"source {template}"], timeout=START)
            return
        script = self._places.folder / "schema.py"
        script.write_text(SCHEMA)
        output(
            [str(self._places.venv / "bin/python"), "-W", "ignore", str(script), database_url(self._places)],
            timeout=START,
        )
        dump = [
            programs.mariadb("mariadb-dump"),
            "--no-defaults",
            "-uroot",
            f"--socket={socket}",
            "--no-data",
            "neutron",
        ]
        made = template.with_suffix(f".{secrets.token_hex(4)}")
        made.write_text(output(dump, timeout=START))
        made.rename(template)


def start_ovn(places: Places, processes: Processes, ovs: PrivateOvs) -> None:
    """OVN's databases, northd and ovn-controller; returns when the node has registered."""
    for database in ("nb", "sb"):
        file, control = places.folder / f"{database}.db", places.folder / f"{database}.ctl"
        output([programs.ovsdb_tool(), "create", str(file), programs.ovn_schema(database)])
        remote = f"--remote=punix:{places.folder}/{database}.sock"
        child = processes.start([programs.ovsdb_server(), str(file), remote, f"--unixctl={control}"], f"ovn-{database}")
        # It opens its control socket after the one for clients.
        wait_for_path(control, START, child)
    output([programs.ovn("ovn-nbctl"), f"--db={places.northbound}", "init"])
    southbound = [programs.ovn("ovn-sbctl"), f"--db={places.southbound}"]
    output([*southbound, "init"])
    northd = [
        f"--ovnnb-db={places.northbound}",
        f"--ovnsb-db={places.southbound}",
        f"--unixctl={places.folder}/northd.ctl",
    ]
    processes.start([programs.ovn("ovn-northd"), *northd], "ovn-northd")
    ids = {
        "ovn-remote": places.southbound,
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": "127.0.0.1",
        "ovn-bridge": BRIDGE,
        "ovn-bridge-datapath-type": "netdev",
        "ovn-bridge-mappings": f"{PHYSICAL_NETWORK}:{PROVIDER}",
        "system-id": HOST,
        "hostname": HOST,
    }
    ovs.vsctl("set", "Open_vSwitch", ".", *(f"external_ids:{key}={value}" for key, value in ids.items()))
    processes.start([programs.ovn("ovn-controller"), ovs.ovsdb], "ovn-controller")
    output([*southbound, f"--timeout={START:g}", "wait-until", "Chassis", HOST], timeout=START + 5)


class RabbitMq:
    """A message broker on the loopback of the private namespace, for Neutron's agents."""

    def __init__(self, places: Places, processes: Processes) -> None:
        root = places.folder / "rabbit"
        (root / "mnesia").mkdir(parents=True)
        (root / "enabled_plugins").write_text("[].\n")
        cookie = root / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        env = {
            "HOME": str(root),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "podvif@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": "5672",
            "RABBITMQ_MNESIA_BASE": str(root / "mnesia"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(root / "pid"),
            "RABBITMQ_CONFIG_FILE": str(root / "none"),
            "RABBITMQ_CONF_ENV_FILE": str(root / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(root / "enabled_plugins"),
            # One scheduler that does not spin: the cores are needed elsewhere.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} +sbwt none +sbwtdcpu none +sbwtdio none +S 1:1",
        }
        # Else Erlang would start one that outlives it.
        processes.start([programs.epmd(), "-address", "127.0.0.1"], "epmd", env=env)
        self._child = processes.start([programs.rabbitmq()], "rabbitmq", env=env)

    def wait(self) -> None:
        """Return when clients can connect."""
        wait_for_words("started TCP listener on 127.0.0.1:5672", self._child.log, START, self._child)
