"""Every program that the demo, the node tests and the benches start, where it may be, and who has it.

Law: a program that is missing is named together with the Debian package to install, before it is needed.
"""

import shutil
import sys
from pathlib import Path

from podvif.lab.process import LabError

OVS = "openvswitch-switch-dpdk"
"""The Debian package that brings a vswitchd with DPDK, and by its dependencies every command of Open vSwitch."""

CNI_PATHS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where distributions put CNI plugins; Debian uses the second."""


def require(program: str, package: str, *places: str) -> str:
    """Path of a program, looked for in `places` first and then in PATH.

    Raises:
        LabError: it is not there; the message names the Debian package that has it.
    """
    for candidate in (*places, program):
        if found := shutil.which(candidate):
            return found
    raise LabError(f"the program {program} is not there: install the Debian package {package}")


def ovs_vsctl() -> str:
    """Path of ovs-vsctl."""
    return require("ovs-vsctl", OVS)


def ovs_appctl() -> str:
    """Path of ovs-appctl."""
    return require("ovs-appctl", OVS)


def ovsdb_tool() -> str:
    """Path of ovsdb-tool."""
    return require("ovsdb-tool", OVS)


def ovsdb_server() -> str:
    """Path of ovsdb-server."""
    return require("ovsdb-server", OVS, "/usr/sbin/ovsdb-server")


def vswitchd() -> str:
    """Path of vswitchd: Debian's build with DPDK where it is, else the usual one."""
    debian, usual = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", "/usr/sbin/ovs-vswitchd"
    return require("ovs-vswitchd", OVS, debian, usual)


def schema() -> str:
    """Path of the database's schema."""
    places = [Path(root, "openvswitch", "vswitch.ovsschema") for root in ("/usr/share", "/usr/local/share")]
    for place in places:
        if place.exists():
            return str(place)
    raise LabError(f"vswitch.ovsschema is not there ({places[0]}): install the Debian package {OVS}")


def ovn_schema(database: str) -> str:
    """Path of the schema of one of OVN's databases, `nb` or `sb`."""
    place = Path("/usr/share/ovn", f"ovn-{database}.ovsschema")
    if not place.exists():
        raise LabError(f"{place} is not there: install the Debian package ovn-central")
    return str(place)


def ovn(program: str) -> str:
    """Path of one of OVN's programs."""
    return require(program, "ovn-host" if program == "ovn-controller" else "ovn-central")


def mariadb(program: str) -> str:
    """Path of one of MariaDB's programs."""
    return require(program, "mariadb-server", f"/usr/sbin/{program}")


def rabbitmq() -> str:
    """Path of RabbitMQ's start script, not the wrapper in PATH, which wants its own user."""
    return require("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")


def epmd() -> str:
    """Path of Erlang's port mapper."""
    return require("epmd", "erlang-base")


def testpmd() -> str:
    """Path of dpdk-testpmd."""
    return require("dpdk-testpmd", "dpdk-dev")


def iptables_save() -> str:
    """Path of iptables-save, which the firewall of Neutron's agent begins with."""
    return require("iptables-save", "iptables", "/usr/sbin/iptables-save")


def ip() -> str:
    """Path of `ip`."""
    return require("ip", "iproute2", "/usr/sbin/ip", "/sbin/ip")


def unshare() -> str:
    """Path of unshare."""
    return require("unshare", "util-linux")


def nsenter() -> str:
    """Path of nsenter."""
    return require("nsenter", "util-linux")


def busybox() -> str:
    """Path of a busybox that needs no library."""
    return require("busybox", "busybox-static")


def openssl() -> str:
    """Path of openssl."""
    return require("openssl", "openssl")


def podvif() -> list[str]:
    """Podvif as a command: the one beside this Python, else the package of this Python."""
    beside = Path(sys.executable).with_name("podvif")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "podvif"]


def shim() -> Path:
    """The shim beside this interpreter, where `pip install` puts it, else the one in PATH.

    Raises:
        LabError: there is none.
    """
    beside = Path(sys.executable).with_name("podvif-cni")
    if beside.exists():
        return beside
    if found := shutil.which("podvif-cni"):
        return Path(found)
    raise LabError(
        f"the plugin podvif-cni is neither at {beside} nor in PATH: install podvif with pip, which puts it there"
    )


def plugin_path() -> str:
    """CNI_PATH: the folder that has the IPAM plugin host-local.

    Raises:
        LabError: none has.
    """
    for folder in CNI_PATHS:
        if (folder / "host-local").exists():
            return str(folder)
    raise LabError(
        f"no CNI plugin host-local in {' or '.join(map(str, CNI_PATHS))}: "
        "install the Debian package containernetworking-plugins"
    )


def look_for_all() -> None:
    """Look for every program, before anything is made.

    Raises:
        LabError: some are not there; the message names each with its Debian package.
    """
    missing = []
    for find in (
        ovs_vsctl,
        ovs_appctl,
        ovsdb_tool,
        ovsdb_server,
        vswitchd,
        schema,
        testpmd,
        ip,
        unshare,
        plugin_path,
        shim,
    ):
        try:
            find()
        except LabError as error:
            missing.append(str(error))
    if missing:
        raise LabError("\n".join(missing))
