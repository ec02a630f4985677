"""CNI's verbs through the real shim: what they make, what they answer, what they take away again."""

import json
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from podvif.core import cni
from podvif.lab import programs
from podvif.lab.cni import call
from podvif.lab.sandbox import Sandbox
from podvif.lab.testpmd import read_env
from podvif.lab.tmpfs import tmpfs
from tests.node.support import (
    BRIDGE,
    MODES,
    OVS_TYPE,
    Attached,
    MakeNode,
    Node,
    leave_dead_socket,
    port_of,
    refused,
)

Boxes = Callable[[], Sandbox]
OF_A_POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod-1;K8S_POD_INFRA_CONTAINER_ID=5;K8S_POD_UID=7"
"""CNI_ARGS as a container runtime gives it."""

modes = pytest.mark.parametrize("mode", MODES)


# -- ADD, CHECK, DEL -----------------------------------------------------------------------------------------------------


@modes
def test_add_check_and_del(node: Node, box: Sandbox, mode: str) -> None:
    """ADD makes the interface and answers with it, CHECK agrees, and DEL leaves nothing and says nothing."""
    attached = node.add(node.network(mode), box)
    interface = attached.result["interfaces"][0]
    assert attached.result["cniVersion"] == "1.1.0"
    assert interface == {
        "name": "eth0",
        "mac": attached.mac,
        "mtu": 1500,
        "sandbox": str(box.netns),
        "socketPath": str(node.mount_point / port_of(box)),
    }
    (address,) = attached.result["ips"]
    assert address["interface"] == 0
    assert address["address"].endswith("/16")
    assert address["gateway"] == "10.9.0.1"
    checked = node.cni("CHECK", attached.checking, box)
    assert (checked.code, checked.text) == (0, "")
    node.delete(attached)


@modes
def test_the_port_in_ovs(node: Node, box: Sandbox, mode: str) -> None:
    """OVS has a port of the right type in the right bridge that says whose it is, and its own socket is where the pod looks."""
    with node.attached(node.network(mode), box, args=OF_A_POD) as attached:
        row = node.ovs.interfaces()[attached.port]
        assert row["type"] == OVS_TYPE[mode]
        assert row["error"] is None
        assert row["external_ids"]["attached-mac"] == attached.mac
        assert row["external_ids"]["podvif-container-id"] == box.container_id
        assert row["external_ids"]["podvif-ifname"] == "eth0"
        assert row["external_ids"]["podvif-pod"] == "ns/pod-1"
        assert node.ovs.vsctl("port-to-br", attached.port).strip() == BRIDGE
        assert node.column("Bridge", BRIDGE, "datapath_type") == "netdev"
        if mode == "server":
            assert row["options"] == {"vhost-server-path": str(attached.socket)}
            assert not attached.socket.exists()
        else:
            assert attached.socket.is_socket()
            assert not (node.ovs.rundir / attached.port).exists()


@modes
def test_the_pods_files(node: Node, box: Sandbox, mode: str) -> None:
    """The specification's file has its three keys in its form; the JSON and the shell file say the same and more."""
    with node.attached(node.network(mode, mtu=1400, queues=2, vlan=7), box) as attached:
        specified = (node.mount_point / f"{box.container_id}-eth0").read_text()
        assert specified == (
            f'{{\n  "vhostname": "{attached.port}",\n  "vhostmac": "{attached.mac}",\n  "mode": "{mode}"\n}}\n'
        )
        (interface,) = json.loads((node.mount_point / f"{box.container_id}.json").read_text())["interfaces"]
        vdev = interface.pop("vdev")
        server = ",server=1" if mode == "server" else ""
        assert vdev == f"net_virtio_user0,path={attached.socket},mac={attached.mac}{server},queues=2"
        assert interface == {
            "ifname": "eth0",
            "socket": str(attached.socket),
            "mode": mode,
            "listener": "application" if mode == "server" else "ovs",
            "mac": attached.mac,
            "mtu": 1400,
            "queues": 2,
            "vlan": 7,
            "ips": [attached.result["ips"][0]["address"]],
            "gateway": "10.9.0.1",
            "routes": [],
            "dns": {},
        }
        variables = read_env(node.mount_point / f"{box.container_id}.env")
        assert variables["VHOSTUSER_COUNT"] == "1"
        assert variables["VHOSTUSER_VDEVS"] == f"--vdev={vdev}"
        for key in ("ifname", "socket", "mode", "listener", "mac", "mtu", "queues", "vlan", "gateway"):
            assert variables[f"VHOSTUSER_0_{key.upper()}"] == str(interface[key])
        assert variables["VHOSTUSER_0_IPS"] == interface["ips"][0]


@modes
def test_add_twice(node: Node, box: Sandbox, mode: str) -> None:
    """ADD repeated answers the same and makes nothing anew."""
    with node.attached(node.network(mode), box) as attached:
        before = node.column("Interface", attached.port, "_uuid")
        assert node.add(node.network(mode), box).result == attached.result
        assert node.column("Interface", attached.port, "_uuid") == before


@modes
def test_add_after_del(node: Node, box: Sandbox, mode: str) -> None:
    """An attachment that was removed can be added again at once, and is whole again."""
    for _ in range(3):
        with node.attached(node.network(mode), box) as attached:
            assert node.cni("CHECK", attached.checking, box).code == 0


def test_add_in_another_way(node: Node, box: Sandbox) -> None:
    """ADD of a standing attachment with other settings is refused and changes nothing."""
    with node.attached(node.network("server"), box) as attached:
        refused(node.cni("ADD", node.network("client"), box), 7, box.container_id)
        refused(node.cni("ADD", node.network("server", mtu=1400), box), 7, box.container_id)
        assert node.cni("CHECK", attached.checking, box).code == 0


@modes
def test_del_twice(node: Node, box: Sandbox, mode: str) -> None:
    """DEL of what is gone already succeeds."""
    attached = node.add(node.network(mode), box)
    node.delete(attached)
    node.delete(attached)


def _stripped(node: Node) -> dict[str, Any]:
    """What Multus hands DEL: every key of ours is gone; daemonSocket is there because the shim of a test needs it."""
    plugins = [{"ipam": {"type": "host-local"}, "type": "podvif-cni"}]
    return {"cniVersion": "1.1.0", "name": "net", "plugins": plugins, "daemonSocket": str(node.daemon.socket)}


@modes
@pytest.mark.parametrize("lost", ["netns", "the netns itself", "ipam", "every key of ours", "CNI_PATH"])
def test_del_from_little(node: Node, box: Sandbox, mode: str, lost: str) -> None:
    """DEL does its whole work from the container id and the ifname, whatever else the runtime has lost."""
    config = node.network(mode)
    node.add(config, box)
    given: dict[str, Any] = {}
    match lost:
        case "netns":
            given["netns"] = ""
        case "the netns itself":
            given["netns"] = str(box.netns) + "-gone"
        case "ipam":
            config = node.network(mode, ipam=None)
        case "every key of ours":
            config = _stripped(node)
        case "CNI_PATH":
            given["cni_path"] = ""
    answer = node.cni("DEL", config, box, **given)
    assert (answer.code, answer.text) == (0, "")


@pytest.mark.parametrize("stripped", [False, True])
def test_del_of_an_unknown_container(node: Node, box: Sandbox, stripped: bool) -> None:  # noqa: FBT001
    """DEL of a container that nobody knows succeeds, with a whole configuration and with a stripped one."""
    config = _stripped(node) if stripped else node.network()
    answer = node.cni("DEL", config, box)
    assert (answer.code, answer.text) == (0, "")


def test_del_in_another_network(node: Node, box: Sandbox) -> None:
    """DEL goes by container id and ifname, also when the network's name has changed meanwhile."""
    node.add(node.network(), box)
    assert node.cni("DEL", node.network(name="renamed", ipam=None), box).code == 0


def test_the_bridge_stays(node: Node, box: Sandbox) -> None:
    """A bridge that is missing is made with datapath netdev, and is not removed with its last port."""
    try:
        with node.attached(node.network(bridge="br-new"), box):
            assert node.column("Bridge", "br-new", "datapath_type") == "netdev"
        assert node.ovs.vsctl("list-ports", "br-new") == ""
    finally:
        node.ovs.vsctl("--if-exists", "del-br", "br-new")


# -- CHECK ---------------------------------------------------------------------------------------------------------------


def _lose_port(node: Node, attached: Attached) -> str:
    node.ovs.vsctl("--no-wait", "del-port", attached.port)
    return attached.port


def _lose_marks(node: Node, attached: Attached) -> str:
    node.ovs.vsctl("remove", "Interface", attached.port, "external_ids", "podvif-container-id")
    return attached.port


def _change_vlan(node: Node, attached: Attached) -> str:
    node.ovs.vsctl("set", "Port", attached.port, "tag=99")
    return attached.port


def _lose_specified_file(node: Node, attached: Attached) -> str:
    (node.mount_point / f"{attached.box.container_id}-eth0").unlink()
    return attached.port


def _lose_shell_file(node: Node, attached: Attached) -> str:
    (node.mount_point / f"{attached.box.container_id}.env").unlink()
    return attached.port


def _change_json_file(node: Node, attached: Attached) -> str:
    (node.mount_point / f"{attached.box.container_id}.json").write_text("{}")
    return attached.port


def _lose_lease(node: Node, attached: Attached) -> str:
    (node.leases / "net" / attached.address).unlink()
    return "host-local"


LOSSES = [_lose_port, _lose_marks, _change_vlan, _lose_specified_file, _lose_shell_file, _change_json_file]


@modes
@pytest.mark.parametrize("lose", LOSSES)
def test_what_is_lost_is_mended(node: Node, box: Sandbox, mode: str, lose: Callable[[Node, Attached], str]) -> None:
    """What somebody has taken away or changed comes back without a hand on it; a repeated ADD has the same answer."""
    with node.attached(node.network(mode), box) as attached:
        lose(node, attached)
        mended(node, attached, box)
        assert node.add(attached.config, box).result == attached.result


def mended(node: Node, attached: Attached, box: Sandbox) -> None:
    """Ask CHECK until all is well; what it says until then is about this attachment."""
    deadline = time.monotonic() + 30
    while (answer := node.cni("CHECK", attached.checking, box)).code != 0:
        assert time.monotonic() < deadline, answer.text
        assert answer.document is not None
        assert any(word in answer.document["msg"] for word in (attached.port, attached.box.container_id))


@modes
def test_check_names_what_is_lost(node: Node, box: Sandbox, mode: str) -> None:
    """While vswitchd does not make a lost port again CHECK fails with its name."""
    with node.attached(node.network(mode), box) as attached:
        node.ovs.pause_vswitchd()
        try:
            subject = _lose_port(node, attached)
            refused(node.cni("CHECK", attached.checking, box), 11, subject)
        finally:
            node.ovs.resume_vswitchd()
        mended(node, attached, box)


def test_check_asks_ipam(node: Node, box: Sandbox) -> None:
    """CHECK fails with IPAM's own words when the lease is gone."""
    with node.attached(node.network(), box) as attached:
        subject = _lose_lease(node, attached)
        answer = node.cni("CHECK", attached.checking, box)
        assert answer.code != 0
        assert answer.document is not None
        assert subject in answer.document["msg"]


def test_a_lost_socket_comes_back(node: Node, box: Sandbox) -> None:
    """A socket that somebody has removed from the pod's directory in client mode is made again, and is alive."""
    with node.attached(node.network("client"), box) as attached:
        attached.socket.unlink()
        mended(node, attached, box)
        assert attached.socket.is_socket()


def test_a_dead_socket_goes(node: Node, box: Sandbox) -> None:
    """A socket that a dead application has left in the way of the next in server mode is removed."""
    with node.attached(node.network("server"), box) as attached:
        leave_dead_socket(attached.socket)
        mended(node, attached, box)
        assert not attached.socket.exists()
        assert node.cni("CHECK", attached.checking, box).code == 0


@pytest.mark.parametrize(
    ("key", "value"), [("mac", "02:00:00:00:00:99"), ("socketPath", "/elsewhere"), ("name", "eth7")]
)
def test_check_compares_with_the_result(node: Node, box: Sandbox, key: str, value: str) -> None:
    """CHECK fails when prevResult says otherwise than what stands, and names the difference."""
    with node.attached(node.network(), box) as attached:
        previous = json.loads(json.dumps(attached.result))
        previous["interfaces"][0][key] = value
        refused(node.cni("CHECK", {**attached.config, "prevResult": previous}, box), 11, "eth0")


def test_check_needs_the_result(node: Node, box: Sandbox) -> None:
    """CHECK without prevResult fails and says so."""
    with node.attached(node.network(), box) as attached:
        answer = node.cni("CHECK", attached.config, box)
        assert answer.code != 0
        assert "prevResult" in answer.text


def test_check_of_what_is_not_attached(node: Node, box: Sandbox) -> None:
    """CHECK of an attachment that was never made or is removed says that there is none (code 3)."""
    config = node.network()
    refused(node.cni("CHECK", {**config, "prevResult": {}}, box), 3, box.container_id)
    attached = node.add(config, box)
    node.delete(attached)
    refused(node.cni("CHECK", attached.checking, box), 3, box.container_id)


# -- GC ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc(node: Node, boxes: Boxes, key: str) -> None:
    """GC removes what is not listed, of its own network only, whichever of the two keys the list comes in."""
    with ExitStack() as stack:
        kept = stack.enter_context(node.attached(node.network("client"), boxes()))
        gone = [stack.enter_context(node.attached(node.network(mode), boxes())) for mode in MODES]
        also_gone = stack.enter_context(node.attached(node.network("server"), kept.box, "net1"))
        foreign = stack.enter_context(node.attached(node.network("server", name="other"), boxes()))
        valid = [{"containerID": kept.box.container_id, "ifname": "eth0"}]
        collected = node.cni("GC", node.network(**{key: valid}))
        assert (collected.code, collected.text) == (0, "")
        assert sorted(node.ovs.ports()) == sorted([kept.port, foreign.port])
        for each in (kept, foreign):
            assert node.cni("CHECK", each.checking, each.box).code == 0
        for each in (*gone, also_gone):
            refused(node.cni("CHECK", each.checking, each.box, each.ifname), 3, each.box.container_id)
        leases = [path.name for path in (node.leases / "net").glob("10.*")]
        assert leases == [kept.address]


@pytest.mark.parametrize("nothing", [[], None])
def test_gc_with_an_empty_list(node: Node, box: Sandbox, nothing: list[Any] | None) -> None:
    """GC with an empty list removes everything of its network; libcni writes an empty list as null."""
    node.add(node.network(), box)
    # network() leaves out what is None, and here null is the point.
    config = {**node.network(), "cni.dev/valid-attachments": nothing, "cni.dev/attachments": nothing}
    collected = node.cni("GC", config)
    assert (collected.code, collected.text) == (0, "")
    assert node.leftovers() == []


@pytest.mark.parametrize(
    "wrong", [{}, {"cni.dev/valid-attachments": "all"}, {"cni.dev/valid-attachments": [{"containerID": 5}]}]
)
def test_gc_without_a_list(node: Node, box: Sandbox, wrong: dict[str, Any]) -> None:
    """GC that does not say what is valid removes nothing."""
    with node.attached(node.network(), box) as attached:
        node.cni("GC", node.network(**wrong))
        assert node.cni("CHECK", attached.checking, box).code == 0


def test_gc_goes_on_to_ipam(node: Node, folder: Path) -> None:
    """GC is handed on to an IPAM plugin that knows it, with the list of what is valid."""
    plugin = folder / "recorder"
    plugin.write_text(
        '#!/bin/sh\n[ "$CNI_COMMAND" = VERSION ] || cat > "$0.$CNI_COMMAND"\n'
        '[ "$CNI_COMMAND" != VERSION ] || echo \'{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}\'\n'
    )
    plugin.chmod(0o755)
    valid = [{"containerID": "abc", "ifname": "eth0"}]
    config = node.network(ipam={"type": "recorder"}, **{"cni.dev/valid-attachments": valid})
    assert node.cni("GC", config, cni_path=str(folder)).code == 0
    assert json.loads(Path(f"{plugin}.GC").read_text())["cni.dev/valid-attachments"] == valid


# -- STATUS, VERSION -----------------------------------------------------------------------------------------------------


def test_status(node: Node) -> None:
    """STATUS of a node that can serve an ADD succeeds and says nothing."""
    answer = node.cni("STATUS", node.network())
    assert (answer.code, answer.text) == (0, "")


def test_status_without_mount_point(node: Node) -> None:
    """STATUS without the pods' directory is 50 and names it."""
    node.mount_point.rmdir()
    try:
        refused(node.cni("STATUS", node.network()), 50, str(node.mount_point))
    finally:
        node.mount_point.mkdir()
    assert node.cni("STATUS", node.network()).code == 0


def test_status_with_two_file_systems(make_node: MakeNode, folder: Path) -> None:
    """STATUS is 50 and names both directories when a socket could not be moved from one to the other."""
    with tmpfs(folder / "one") as one, tmpfs(folder / "other") as other:
        node = make_node(mount_point=one, more={"vhostuser": {"ovs_vhu_path": str(other)}})
        with node.running():
            refused(node.cni("STATUS", node.network()), 50, str(one), str(other), "EXDEV")
            assert list(one.iterdir()) == list(other.iterdir()) == []


def test_version(node: Node) -> None:
    """VERSION lists the versions that ADD is answered in."""
    document = node.cni("VERSION", node.network()).checked()
    assert document["supportedVersions"] == list(cni.SUPPORTED_VERSIONS)
    assert document["cniVersion"] in cni.SUPPORTED_VERSIONS


def test_version_without_a_daemon(folder: Path) -> None:
    """VERSION is answered by the shim with the same list when no daemon is there."""
    document = call("VERSION", {"cniVersion": "1.0.0", "daemonSocket": str(folder / "none.sock")}).checked()
    assert document == {"cniVersion": "1.0.0", "supportedVersions": list(cni.SUPPORTED_VERSIONS)}


# -- versions and chains -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", cni.SUPPORTED_VERSIONS)
def test_answers_in_the_version_asked(node: Node, box: Sandbox, version: str) -> None:
    """ADD answers in the configuration's version, with the keys that this version has and no others."""
    with node.attached(node.network("client", cniVersion=version), box) as attached:
        assert attached.result["cniVersion"] == version
        interface, (address,) = attached.result["interfaces"][0], attached.result["ips"]
        assert (
            {"mtu", "socketPath"} <= interface.keys()
            if version == "1.1.0"
            else interface.keys()
            == {
                "name",
                "mac",
                "sandbox",
            }
        )
        assert address.get("version") == ("4" if version in {"0.3.1", "0.4.0"} else None)
        if version != "0.3.1":
            assert node.cni("CHECK", attached.checking, box).code == 0


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "0.4.0"), ("GC", "1.0.0"), ("STATUS", "1.0.0")]
)
def test_verbs_that_a_version_does_not_have(node: Node, box: Sandbox, command: str, version: str) -> None:
    """A verb that the configuration's version does not have is refused as incompatible (code 1)."""
    refused(node.cni(command, node.network(cniVersion=version), box), 1, command, version)


def test_chained(node: Node, box: Sandbox) -> None:
    """Behind another plugin of a list ADD passes on that plugin's result and adds its own; CHECK finds its own in it."""
    before: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "vethx", "mac": "02:00:00:00:00:01"}, {"name": "lo", "sandbox": str(box.netns)}],
        "ips": [{"interface": 1, "address": "192.0.2.5/24"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    with node.attached(node.network(prevResult=before), box, "net1") as attached:
        result = attached.result
        assert result["interfaces"][:2] == before["interfaces"]
        assert result["interfaces"][2]["name"] == "net1"
        assert result["ips"][0] == before["ips"][0]
        assert result["ips"][1]["interface"] == 2
        assert (result["routes"], result["dns"]) == (before["routes"], before["dns"])
        assert node.cni("CHECK", attached.checking, box, "net1").code == 0
        again = node.cni("ADD", node.network(prevResult=before), box, "net1")
        assert again.document == result


# -- two interfaces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", ["eth0", "net1"])
def test_two_interfaces_of_a_sandbox(node: Node, box: Sandbox, leaves: str) -> None:
    """The files of a sandbox list both of its interfaces; DEL of one leaves the other whole, in the files too."""
    with ExitStack() as stack:
        both = {
            "eth0": stack.enter_context(node.attached(node.network("server"), box, "eth0")),
            "net1": stack.enter_context(node.attached(node.network("client", name="second"), box, "net1")),
        }
        env, listed = node.mount_point / f"{box.container_id}.env", node.mount_point / f"{box.container_id}.json"
        variables = read_env(env)
        assert variables["VHOSTUSER_COUNT"] == "2"
        assert [variables[f"VHOSTUSER_{i}_IFNAME"] for i in (0, 1)] == ["eth0", "net1"]
        assert variables["VHOSTUSER_VDEVS"].count("--vdev=") == 2
        assert [item["ifname"] for item in json.loads(listed.read_text())["interfaces"]] == ["eth0", "net1"]
        for each in both.values():
            assert node.cni("CHECK", each.checking, box, each.ifname).code == 0

        left = both.pop(leaves)
        node.delete(left)
        (stays,) = both.values()
        assert node.cni("CHECK", stays.checking, box, stays.ifname).code == 0
        variables = read_env(env)
        assert (variables["VHOSTUSER_COUNT"], variables["VHOSTUSER_0_IFNAME"]) == ("1", stays.ifname)
        assert not (node.mount_point / f"{box.container_id}-{leaves}").exists()
        assert (node.mount_point / f"{box.container_id}-{stays.ifname}").exists()
        assert node.ovs.ports() == [stays.port]


# -- options -------------------------------------------------------------------------------------------------------------

ASKED = "02:11:22:33:44:55"


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ({"mac": ASKED}, ""),
        ({"mac": "02:11:22:33:44:55".upper()}, ""),
        ({}, f"IgnoreUnknown=1;MAC={ASKED}"),
        ({"args": {"cni": {"mac": ASKED}}}, ""),
        ({"runtimeConfig": {"mac": ASKED}}, ""),
        ({"mac": "02:00:00:00:00:77"}, f"IgnoreUnknown=1;MAC={ASKED}"),
        ({"runtimeConfig": {"mac": ASKED}, "mac": "02:00:00:00:00:77"}, ""),
    ],
    ids=["configuration", "upper case", "CNI_ARGS", "args.cni", "runtimeConfig", "CNI_ARGS wins", "runtimeConfig wins"],
)
def test_the_mac_asked_for(node: Node, box: Sandbox, keys: dict[str, Any], arguments: str) -> None:
    """A MAC that is asked for, wherever, is the interface's in the answer, in OVS and in the pod's files."""
    with node.attached(node.network(**keys), box, args=arguments) as attached:
        assert attached.mac == ASKED
        assert node.ovs.interfaces()[attached.port]["external_ids"]["attached-mac"] == ASKED
        assert json.loads((node.mount_point / f"{box.container_id}-eth0").read_text())["vhostmac"] == ASKED


def test_the_mac_that_nobody_asked_for(node: Node, box: Sandbox) -> None:
    """Without a wish the MAC is a locally administered unicast one, the same each time and another for each interface."""
    with node.attached(node.network(), box) as first, node.attached(node.network(), box, "net1") as second:
        assert int(first.mac[:2], 16) & 0b11 == 0b10
        assert first.mac != second.mac
    with node.attached(node.network(), box) as again:
        assert again.mac == first.mac


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ({}, "IgnoreUnknown=1;IP=10.9.0.77"),
        ({"args": {"cni": {"ips": ["10.9.0.77/16"]}}}, ""),
        ({"runtimeConfig": {"ips": ["10.9.0.77/16"]}, "capabilities": {"ips": True}}, ""),
    ],
    ids=["CNI_ARGS", "args.cni", "runtimeConfig"],
)
def test_the_address_asked_for(node: Node, box: Sandbox, keys: dict[str, Any], arguments: str) -> None:
    """An address that is asked for, wherever, is the interface's."""
    with node.attached(node.network(**keys), box, args=arguments) as attached:
        assert attached.address == "10.9.0.77"


@modes
def test_vlan_mtu_and_queues(node: Node, box: Sandbox, mode: str) -> None:
    """The VLAN is the Port's tag, the MTU the Interface's request and the answer's, the queues are told to the application."""
    with node.attached(node.network(mode, vlan=100, mtu=9000, queues=4), box) as attached:
        assert node.column("Port", attached.port, "tag") == "100"
        assert node.column("Interface", attached.port, "mtu_request") == "9000"
        assert attached.result["interfaces"][0]["mtu"] == 9000
        assert read_env(node.mount_point / f"{box.container_id}.env")["VHOSTUSER_0_VDEV"].endswith(",queues=4")


def test_untagged_by_default(node: Node, box: Sandbox) -> None:
    """Without a VLAN the Port has no tag."""
    with node.attached(node.network(), box) as attached:
        assert node.column("Port", attached.port, "tag") == "[]"


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_ipam(node: Node, box: Sandbox, nothing: dict[str, Any] | None) -> None:
    """A network without an IPAM plugin gives an interface without addresses."""
    with node.attached(node.network(ipam=nothing), box) as attached:
        assert "ips" not in attached.result
        assert node.cni("CHECK", attached.checking, box).code == 0


def test_static_addresses(node: Node, box: Sandbox) -> None:
    """IPAM is any CNI plugin in CNI_PATH: static's addresses, routes and DNS come through whole."""
    ipam = {
        "type": "static",
        "addresses": [{"address": "192.0.2.7/24", "gateway": "192.0.2.1"}, {"address": "2001:db8::7/64"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "192.0.2.9"}],
        "dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
    }
    if not (Path(programs.plugin_path()) / "static").exists():
        pytest.skip("no CNI plugin static beside host-local")
    with node.attached(node.network(ipam=ipam), box) as attached:
        assert attached.result["ips"] == [
            {"interface": 0, "address": "192.0.2.7/24", "gateway": "192.0.2.1"},
            {"interface": 0, "address": "2001:db8::7/64"},
        ]
        assert attached.result["routes"] == ipam["routes"]
        assert attached.result["dns"] == ipam["dns"]
        variables = read_env(node.mount_point / f"{box.container_id}.env")
        assert variables["VHOSTUSER_0_IPS"] == "192.0.2.7/24 2001:db8::7/64"
        assert variables["VHOSTUSER_0_GATEWAY"] == "192.0.2.1"


def test_unknown_keys_are_ignored(node: Node, box: Sandbox) -> None:
    """Keys that podvif does not know do not matter."""
    config = node.network(
        capabilities={"mac": True}, somethingElse=[1, {"a": None}], args={"cni": {"x": 1}, "labels": []}
    )
    with node.attached(config, box):
        pass


# -- who may look --------------------------------------------------------------------------------------------------------


def test_rights(node: Node, box: Sandbox) -> None:
    """The daemon's socket and journal are root's alone, and the pod's files are for everybody to read."""

    def rights(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    with node.attached(node.network(), box):
        assert rights(node.daemon.socket) == 0o600
        assert rights(node.daemon.journal) == 0o700
        assert [rights(entry) for entry in node.daemon.journal.iterdir()] == [0o600]
        assert {rights(path) for path in node.mount_point.iterdir()} == {0o644}


def test_podvif_status(node: Node, box: Sandbox) -> None:
    """`podvif status` shows what stands, and nothing once it is gone."""
    with node.attached(node.network("client"), box, args=OF_A_POD) as attached:
        (item,) = node.status()["attachments"]
        assert (item["container_id"], item["ifname"], item["pod"]) == (box.container_id, "eth0", "ns/pod-1")
        assert (item["port"], item["mode"], item["listener"]) == (attached.port, "client", "ovs")
        assert (item["socket"], item["mac"]) == (str(attached.socket), attached.mac)
        assert (item["trouble"], item["goal"]) == (None, "attached")
    status = node.status()
    assert status["attachments"] == []
    assert status["switch"]["dpdk_initialized"] is True
