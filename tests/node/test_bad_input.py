"""What a runtime, an administrator or a pod can do wrong: the answer names it, and nothing is left behind."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podvif.core import cni, translate
from podvif.host import netns
from podvif.lab import programs
from podvif.lab.cni import call
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import LabError, output
from podvif.lab.sandbox import Sandbox
from podvif.lab.testpmd import read_env
from podvif.lab.tmpfs import tmpfs
from tests.node.support import BRIDGE, MODES, MakeNode, Node, leave_dead_socket, port_of, refused

Boxes = Callable[[], Sandbox]
modes = pytest.mark.parametrize("mode", MODES)


# -- the configuration ---------------------------------------------------------------------------------------------------


@pytest.fixture
def by_default_socket(node: Node, folder: Path) -> Path:
    """The shim in a mount namespace where the standing daemon's socket lies at the default path.

    From a configuration that is no JSON the shim cannot learn of another one, and the machine's own is not a test's.
    """
    script = folder / "shim"
    run = os.path.realpath("/var/run")
    script.write_text(
        "#!/bin/sh\nexec unshare --mount sh -c '"
        f'mount -t tmpfs tmpfs {run} && mkdir {run}/podvif && mount --bind "$0" {run}/podvif && exec "$1"'
        f"' {node.daemon.socket.parent} {programs.shim()}\n"
    )
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    "stdin",
    [b"", b"{", b"not json", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"cniVersion": "1.1.0", "name": "net"} x'],
)
def test_no_json(node: Node, box: Sandbox, by_default_socket: Path, stdin: bytes) -> None:
    """A configuration that is not a JSON object is code 6, for ADD as for DEL."""
    for command in ("ADD", "DEL"):
        document = refused(
            node.cni(command, stdin, box, executable=by_default_socket), 6, "the network configuration on stdin"
        )
        assert document["cniVersion"] in cni.SUPPORTED_VERSIONS


@pytest.mark.parametrize("name", [None, "", 5])
def test_no_name(node: Node, box: Sandbox, name: object) -> None:
    """A configuration without a name is code 7."""
    refused(node.cni("ADD", node.network(name=name), box), 7, "name")


@pytest.mark.parametrize("version", ["0.1.0", "0.3.0", "1.2.0", "", "new", 1, [1]])
def test_unknown_version(node: Node, box: Sandbox, version: object) -> None:
    """A cniVersion that podvif does not speak is code 1, answered in one that it does speak."""
    document = refused(node.cni("ADD", node.network(cniVersion=version), box), 1, "cniVersion", str(version))
    assert document["cniVersion"] in cni.SUPPORTED_VERSIONS
    assert "1.1.0" in document["details"]


WRONG: list[tuple[str, object]] = [
    ("bridge", 5),
    ("bridge", ""),
    ("bridge", "br/dpdk"),
    ("bridge", ".."),
    ("bridge", "br dpdk"),
    ("bridge", "a-bridge-of-16-c"),
    ("vhostuserMode", "master"),
    ("vhostuserMode", "Server"),
    ("vhostuserMode", ["server"]),
    ("mtu", 40),
    ("mtu", 67),
    ("mtu", 100000),
    ("mtu", "1500"),
    ("mtu", 1500.5),
    ("queues", 0),
    ("queues", -1),
    ("queues", 1000),
    ("queues", "2"),
    ("vlan", 0),
    ("vlan", 4095),
    ("vlan", -1),
    ("vlan", "100"),
    ("vlan", True),
    ("mac", "02:00:00:00:00"),
    ("mac", "02-00-00-00-00-01"),
    ("mac", "02:00:00:00:00:0g"),
    ("mac", 2),
    ("ipam", []),
    ("ipam", {"type": 5}),
    ("daemonTimeout", "soon"),
    ("daemonTimeout", -1),
    ("runtimeConfig", {"mac": 5}),
    ("runtimeConfig", {"ips": "10.9.0.5"}),
    ("args", {"cni": {"mac": "x"}}),
    ("args", "MAC=1"),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={json.dumps(value)}" for key, value in WRONG])
def test_a_wrong_value(node: Node, box: Sandbox, key: str, value: object) -> None:
    """A key with the wrong type, or a value that cannot work, is code 7 and named."""
    refused(node.cni("ADD", node.network(**{key: value}), box), 7, key)


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_a_mac_that_is_none_of_one_interface(node: Node, box: Sandbox, mac: str) -> None:
    """A group address, broadcast or zero is refused as a MAC, and named."""
    refused(node.cni("ADD", node.network(mac=mac), box), 7, mac)


@pytest.mark.parametrize("mtu", [translate.MTU_MIN, translate.MTU_MAX])
def test_the_mtus_that_are_taken(node: Node, box: Sandbox, mtu: int) -> None:
    """The least and the largest MTU that podvif takes are taken by OVS too."""
    with node.attached(node.network("client", mtu=mtu), box) as attached:
        node.settle()
        assert node.ovs.interfaces()[attached.port]["error"] is None


# -- the call ------------------------------------------------------------------------------------------------------------

CALLS = [
    ("ADD", {"container_id": ""}, "CNI_CONTAINERID"),
    ("ADD", {"netns": ""}, "CNI_NETNS"),
    ("ADD", {"ifname": ""}, "CNI_IFNAME"),
    ("ADD", {"cni_path": ""}, "CNI_PATH"),
    ("CHECK", {"netns": ""}, "CNI_NETNS"),
    ("DEL", {"container_id": ""}, "CNI_CONTAINERID"),
    ("DEL", {"ifname": ""}, "CNI_IFNAME"),
    ("GC", {"cni_path": ""}, "CNI_PATH"),
    ("STATUS", {"cni_path": ""}, "CNI_PATH"),
    ("UPDATE", {}, "UPDATE"),
    ("add", {}, "add"),
    ("", {}, "CNI_COMMAND"),
    ("ADD", {"container_id": "a/b"}, "a/b"),
    ("ADD", {"container_id": ".."}, ".."),
    ("ADD", {"container_id": "../../etc/x"}, "../../etc/x"),
    ("ADD", {"container_id": "-a"}, "-a"),
    ("ADD", {"container_id": "a b"}, "a b"),
    ("ADD", {"container_id": "a" * 201}, "a" * 20),
    ("DEL", {"container_id": "../a"}, "../a"),
    ("ADD", {"ifname": "a-name-of-16-chr"}, "a-name-of-16-chr"),
    ("ADD", {"ifname": "a/b"}, "a/b"),
    ("ADD", {"ifname": ".."}, ".."),
    ("ADD", {"ifname": "a:b"}, "a:b"),
    ("ADD", {"ifname": "a b"}, "a b"),
    ("DEL", {"ifname": "a/b"}, "a/b"),
    ("ADD", {"args": "MAC"}, "MAC"),
    ("ADD", {"netns": "/var/run/netns/none-of-this-name"}, "/var/run/netns/none-of-this-name"),
    ("ADD", {"netns": "/etc/passwd"}, "/etc/passwd"),
]


@pytest.mark.parametrize(
    ("command", "given", "subject"), CALLS, ids=[f"{command} {given}"[:50] for command, given, _ in CALLS]
)
def test_a_wrong_call(node: Node, box: Sandbox, command: str, given: dict[str, str], subject: str) -> None:
    """A variable that is missing or has a value that cannot be is code 4 and named."""
    refused(node.cni(command, node.network(), box, **given), 4, subject)


def test_a_mac_in_cni_args_that_is_none(node: Node, box: Sandbox) -> None:
    """A MAC in CNI_ARGS that is none is refused and named."""
    refused(node.cni("ADD", node.network(), box, args="IgnoreUnknown=1;MAC=nonsense"), 7, "MAC=nonsense")


def test_the_longest_names(node: Node, box: Sandbox) -> None:
    """A container id of 200 characters and an ifname of 15 work."""
    config, given = node.network("client"), {"container_id": "c" * 200, "ifname": "i" * 15}
    result = node.cni("ADD", config, box, **given).checked()
    assert node.cni("CHECK", {**config, "prevResult": result}, box, **given).code == 0
    assert node.cni("DEL", config, box, **given).code == 0


def test_an_ifname_that_a_shell_would_run(node: Node, box: Sandbox) -> None:
    """An ifname with a shell's special characters comes out of the shell file as it went in."""
    name = "a'$(id)`b\"\\;"
    with node.attached(node.network(), box, name):
        assert read_env(node.mount_point / f"{box.container_id}.env")["VHOSTUSER_0_IFNAME"] == name


@pytest.mark.parametrize("ifname", ["lo", "veth-there"])
def test_an_interface_of_that_name(node: Node, box: Sandbox, ifname: str) -> None:
    """ADD of an ifname that the sandbox has already is code 4 and names it; the interface stays."""
    if ifname != "lo":
        output([programs.ip(), "-n", box.name, "link", "add", ifname, "type", "veth", "peer", "name", "other"])
    refused(node.cni("ADD", node.network(), box, ifname), 4, ifname)
    assert ifname in output([programs.ip(), "-n", box.name, "link", "show", ifname])


def test_a_daemon_socket_of_108_bytes(node: Node, box: Sandbox) -> None:
    """A daemonSocket that does not fit into a socket's address is code 7, and the path is named."""
    path = "/tmp/" + "s" * 103
    assert len(path) == 108
    refused(node.cni("ADD", node.network(daemonSocket=path), box), 7, path)


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("DEL", 11), ("GC", 11), ("STATUS", 50)])
def test_no_daemon(node: Node, box: Sandbox, folder: Path, command: str, code: int) -> None:
    """Without a daemon the shim says so and names the socket: 11, and 50 for STATUS."""
    path = str(folder / "none.sock")
    refused(node.cni(command, node.network(daemonSocket=path), box), code, path)


# -- the switch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datapath", ["system", ""])
@modes
def test_a_kernel_bridge(node: Node, box: Sandbox, mode: str, datapath: str) -> None:
    """A bridge with the kernel's datapath is refused, named, and never flipped."""
    node.ovs.vsctl("add-br", "br-kernel", "--", "set", "Bridge", "br-kernel", f'datapath_type="{datapath}"')
    try:
        refused(node.cni("ADD", node.network(mode, bridge="br-kernel"), box), 7, "br-kernel", "netdev")
        assert node.column("Bridge", "br-kernel", "datapath_type").strip('"') == datapath
        assert node.ovs.vsctl("list-ports", "br-kernel") == ""
    finally:
        node.ovs.vsctl("del-br", "br-kernel")


@pytest.fixture
def foreign(node: Node, box: Sandbox) -> Iterator[str]:
    """A port of somebody else that has the name which ours would get."""
    port = port_of(box)
    node.ovs.vsctl("--may-exist", "add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
    path = f"options:vhost-server-path={node.folder}/foreign.sock"
    interface = ["type=dpdkvhostuserclient", path, "external_ids:iface-id=7d0e2d1c-0000-4000-8000-000000000000"]
    node.ovs.vsctl("add-port", BRIDGE, port, "--", "set", "Interface", port, *interface)
    yield port
    node.ovs.vsctl("del-port", port)


@modes
def test_a_foreign_port_of_our_name(node: Node, box: Sandbox, foreign: str, mode: str) -> None:
    """A port of our name that is not ours is named by ADD, and neither ADD nor DEL touches it."""
    columns = ("--columns=_uuid,type,options,external_ids", "list", "Interface", foreign)
    before = node.ovs.vsctl(*columns)
    refused(node.cni("ADD", node.network(mode), box), 7, foreign)
    assert node.cni("DEL", node.network(mode), box).code == 0
    assert node.ovs.vsctl(*columns) == before


def test_what_ovs_cannot_make(node: Node, box: Sandbox) -> None:
    """When vswitchd refuses the port, ADD fails with the port's name and OVS's own words, and leaves nothing."""
    place = node.ovs.rundir / port_of(box)
    bound = node.ovs.rundir / ".s"

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(bound))
        return listener

    # Somebody living beside vswitchd holds the name that it has to bind to.
    with netns.inside(f"/proc/{node.ovs.vswitchd_pid}/ns/net", listen):
        bound.rename(place)
        refused(node.cni("ADD", node.network("client"), box), 5, port_of(box), "could not")
        assert place.is_socket()
    place.unlink()


# -- directories and files -----------------------------------------------------------------------------------------------


@modes
def test_no_mount_point(node: Node, box: Sandbox, mode: str) -> None:
    """Without the pods' directory ADD is code 5, names it, and does not make it."""
    node.mount_point.rmdir()
    try:
        refused(node.cni("ADD", node.network(mode), box), 5, str(node.mount_point))
        assert not node.mount_point.exists()
        assert node.cni("DEL", node.network(mode), box).code == 0
    finally:
        node.mount_point.mkdir()


def test_two_file_systems(make_node: MakeNode, box: Sandbox, folder: Path) -> None:
    """With mount_point on another file system than ovs_vhu_path ADD in client mode is code 5, names both, leaves nothing."""
    with tmpfs(folder / "pods") as mount_point:
        node = make_node(mount_point=mount_point)
        with node.running():
            paths = str(node.ovs.rundir / port_of(box)), str(mount_point / port_of(box))
            refused(node.cni("ADD", node.network("client"), box), 5, *paths, "EXDEV")
            node.finish()
            with node.attached(node.network("server"), box):
                pass  # nothing has to be moved there
            node.finish()


@modes
def test_a_full_disk(make_node: MakeNode, boxes: Boxes, folder: Path, mode: str) -> None:
    """On a full disk in state_dir ADD is code 5, names the file and leaves nothing; what stands can leave all the same."""
    with tmpfs(folder / "state", "64k") as state:
        node = make_node(more={"node": {"state_dir": str(state)}})
        with node.running():
            node.daemon.journal = state / "attachments"
            standing, fresh = boxes(), boxes()
            attached = node.add(node.network(mode), standing)
            fill(state)
            refused(node.cni("ADD", node.network(mode), fresh), 5, str(state), fresh.container_id)
            assert node.ovs.ports() == [attached.port]
            assert node.cni("CHECK", attached.checking, standing).code == 0
            node.delete(attached)
            node.finish()
            (state / "filler").unlink()
            with node.attached(node.network(mode), fresh):
                pass
            node.finish()


def test_a_disk_with_room_for_half_an_entry(make_node: MakeNode, box: Sandbox, folder: Path) -> None:
    """A journal entry is written whole or not at all: what does not fit is refused, and never cut short."""
    with tmpfs(folder / "state", "64k") as state:
        node = make_node(more={"node": {"state_dir": str(state)}})
        with node.running():
            node.daemon.journal = state / "attachments"
            fill(state)
            os.truncate(state / "filler", (state / "filler").stat().st_size - 4096)
            # The configuration is kept for IPAM's DEL; with this it is longer than the one page that is left.
            answer = node.cni("ADD", node.network(label="x" * 6000), box)
            entries = [json.loads(path.read_text()) for path in node.daemon.journal.glob("*.json")]
            node.cni("DEL", node.network(), box)
            node.finish()
        assert entries == []
        refused(answer, 5, str(state))


def fill(folder: Path) -> None:
    """Fill the file system of a folder to its last byte."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 4096):
                pass
        except OSError:
            return


@modes
def test_a_directory_at_the_sockets_place(node: Node, box: Sandbox, mode: str) -> None:
    """A directory where the socket belongs is code 5, named, and left alone."""
    place = node.mount_point / port_of(box)
    place.mkdir()
    try:
        refused(node.cni("ADD", node.network(mode), box), 5, str(place))
        assert node.cni("DEL", node.network(mode), box).code == 0
        assert place.is_dir()
    finally:
        place.rmdir()


def _a_file(place: Path, victim: Path) -> None:
    place.write_text("old")


def _a_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def _a_fifo(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def _a_dead_socket(place: Path, victim: Path) -> None:
    leave_dead_socket(place)


@modes
@pytest.mark.parametrize("put", [_a_file, _a_link, _a_fifo, _a_dead_socket])
def test_what_a_pod_puts_in_our_way(
    node: Node, box: Sandbox, folder: Path, mode: str, put: Callable[[Path, Path], None]
) -> None:
    """Files, links, FIFOs and dead sockets under our names are replaced, never followed, and hold nothing up."""
    victim = folder / "victim"
    victim.write_text("untouched")
    names = [port_of(box), f"{box.container_id}-eth0", f"{box.container_id}.json", f"{box.container_id}.env"]
    for name in [*names, f".{box.container_id}.json.new"]:
        put(node.mount_point / name, victim)
    with node.attached(node.network(mode), box) as attached:
        assert node.cni("CHECK", attached.checking, box).code == 0
        assert victim.read_text() == "untouched"
        for name in names[1:]:
            assert (node.mount_point / name).is_file()
            assert not (node.mount_point / name).is_symlink()


def test_what_a_pod_puts_in_our_way_later(node: Node, box: Sandbox, folder: Path) -> None:
    """What the pod has made of its files meanwhile does not keep DEL from removing them, and nothing behind a link goes."""
    victim = folder / "victim"
    victim.write_text("untouched")
    attached = node.add(node.network("client"), box)
    for name in (attached.port, f"{box.container_id}-eth0", f"{box.container_id}.json"):
        (node.mount_point / name).unlink()
        (node.mount_point / name).symlink_to(victim)
    node.delete(attached)
    assert victim.read_text() == "untouched"


# -- IPAM ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(folder: Path) -> Callable[[str], str]:
    """Makes an IPAM plugin called `ours` from the shell commands that answer ADD; returns its CNI_PATH."""

    def make(add: str, delete: str = "exit 0") -> str:
        script = folder / "ours"
        versions = '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'
        script.write_text(
            f'#!/bin/sh\necho "$CNI_COMMAND" >> "$0.calls"\ncase $CNI_COMMAND in\n'
            f"VERSION) echo '{versions}' ;;\nADD) {add} ;;\nDEL) {delete} ;;\nesac\n"
        )
        script.chmod(0o755)
        return str(folder)

    return make


def _error(code: int, words: str) -> str:
    document = json.dumps({"cniVersion": "1.1.0", "code": code, "msg": words, "details": "because"})
    return f"echo '{document}'; exit 1"


Plugin = Callable[..., str]
OURS = {"type": "ours"}


def test_no_ipam_plugin(node: Node, box: Sandbox, folder: Path) -> None:
    """An IPAM plugin that is in no directory of CNI_PATH is code 7 and named with the directories; nothing is left."""
    answer = node.cni("ADD", node.network(ipam=OURS), box, cni_path=f"{folder}:/elsewhere")
    refused(answer, 7, "ours", str(folder), "/elsewhere")
    assert node.leftovers() == []
    assert node.cni("DEL", node.network(ipam=OURS), box, cni_path=str(folder)).code == 0


@pytest.mark.parametrize("name", ["../ours", "/bin/true", "..", "."])
def test_an_ipam_plugin_that_is_a_path(node: Node, box: Sandbox, name: str) -> None:
    """A path as the IPAM plugin's name is refused and named: only CNI_PATH says where plugins lie."""
    refused(node.cni("ADD", node.network(ipam={"type": name}), box), 7, name)
    assert node.leftovers() == []


@pytest.mark.parametrize(
    ("add", "code", "words"),
    [
        (_error(7, "no ranges"), 7, "no ranges"),
        (_error(11, "come back"), 11, "come back"),
        (_error(117, "all used up"), 117, "all used up"),
        ("exit 3", 999, "exit code 3"),
        ("kill -9 $$", 999, "ours"),
        ("echo garbage", 6, "no result"),
        ("true", 6, "no result"),
        ("echo '[]'", 6, "no result"),
        ("""echo '{"cniVersion": "1.1.0", "ips": [{"address": 5}]}'""", 6, "no result"),
        ("""echo '{"cniVersion": "1.1.0"}'""", 7, "without an address"),
        ("printf '\\377\\376'", 6, "no result"),
        ("printf '\\377\\376'; exit 1", 999, "exit code 1"),
        ("echo garbage; exit 1", 999, "exit code 1"),
    ],
)
def test_an_ipam_plugin_that_fails(
    node: Node, box: Sandbox, plugin: Plugin, *, add: str, code: int, words: str
) -> None:
    """When IPAM fails or talks nonsense ADD fails with its code and words, gives back what may be held, leaves nothing."""
    path = plugin(add)
    refused(node.cni("ADD", node.network(ipam=OURS), box, cni_path=path), code, "ours", words)
    assert Path(path, "ours.calls").read_text().split() == ["VERSION", "ADD", "DEL"]
    assert node.leftovers() == []
    assert node.cni("DEL", node.network(ipam=OURS), box, cni_path=path).code == 0


@pytest.mark.parametrize("address", ["10.9.0.5", "nonsense", "10.9.0.5/33", ""])
def test_an_ipam_plugin_that_gives_no_address(node: Node, box: Sandbox, plugin: Plugin, address: str) -> None:
    """An address that is none, or has no prefix length, is IPAM's garbage (code 6) and nothing of it stands."""
    path = plugin(f"""echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "{address}"}}]}}'""")
    refused(node.cni("ADD", node.network(ipam=OURS), box, cni_path=path), 6, "ours")
    assert node.leftovers() == []


def test_an_ipam_plugin_that_hangs(make_node: MakeNode, box: Sandbox, plugin: Plugin) -> None:
    """An IPAM plugin that does not end is killed after ipam_timeout; ADD is code 11 and leaves nothing."""
    node = make_node(more={"node": {"ipam_timeout": "0.5"}})
    path = plugin("exec sleep 1000")
    with node.running():
        refused(node.cni("ADD", node.network(ipam=OURS), box, cni_path=path), 11, "ours", "0.5 s")
        node.finish()


def test_an_ipam_plugin_that_fails_at_del(node: Node, box: Sandbox, plugin: Plugin) -> None:
    """A DEL that IPAM fails is a failure with IPAM's words, and succeeds once IPAM does."""
    address = """echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/16"}]}'"""
    config, path = node.network(ipam=OURS), plugin(address, _error(7, "store is broken"))
    node.cni("ADD", config, box, cni_path=path).checked()
    refused(node.cni("DEL", config, box, cni_path=path), 7, "ours", "store is broken")
    assert node.ovs.ports() == []
    plugin(address)
    assert node.cni("DEL", config, box, cni_path=path).code == 0


def test_an_ipam_plugin_that_fails_at_del_of_the_unknown(node: Node, box: Sandbox, plugin: Plugin) -> None:
    """A DEL of what nobody knows succeeds though IPAM fails it: Multus repeats DEL with what IPAM cannot read any more."""
    path = plugin("exit 1", _error(7, "no IP ranges specified"))
    assert node.cni("DEL", node.network(ipam=OURS), box, cni_path=path).code == 0
    assert node.leftovers() == []


def test_arguments_that_host_local_does_not_know(node: Node, box: Sandbox) -> None:
    """CNI_ARGS that host-local refuses, at ADD and at DEL, are told in its words, and no address is held: nothing is left."""
    answer = node.cni("ADD", node.network(), box, args="COLOUR=green")
    assert answer.code != 0
    assert "COLOUR" in answer.text
    assert node.leftovers() == []


def test_an_address_that_the_network_does_not_have(node: Node, box: Sandbox) -> None:
    """An address that is asked for and cannot be had fails ADD with its name, and leaves no lease."""
    answer = node.cni("ADD", node.network(), box, args="IgnoreUnknown=1;IP=192.0.2.1")
    assert answer.code != 0
    assert "192.0.2.1" in answer.text
    assert node.leftovers() == []


def test_an_address_that_ipam_does_not_give(node: Node, box: Sandbox, plugin: Plugin) -> None:
    """An address that is asked for and that IPAM quietly replaces by another fails ADD and is named."""
    path = plugin("""echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/16"}]}'""")
    answer = node.cni("ADD", node.network(ipam=OURS), box, cni_path=path, args="IP=10.9.0.6")
    refused(answer, 7, "10.9.0.6")
    assert node.leftovers() == []


def test_an_address_without_ipam(node: Node, box: Sandbox) -> None:
    """An address that is asked for in a network without IPAM is refused and named, never forgotten."""
    refused(node.cni("ADD", node.network(ipam=None), box, args="IP=10.9.0.6"), 7, "10.9.0.6")


def test_no_address_left(node: Node, boxes: Boxes) -> None:
    """When the network has no address left ADD fails in IPAM's words; the next one works once one is free again."""
    config = node.network(ipam=node.host_local("10.8.0.0/30"))
    first, second = boxes(), boxes()
    with node.attached(config, first):
        answer = node.cni("ADD", config, second)
        assert answer.code != 0
        assert "host-local" in answer.text
        assert len(node.ovs.ports()) == 1
        assert node.cni("DEL", config, second).code == 0
    with node.attached(config, second):
        pass


# -- the daemon's own configuration --------------------------------------------------------------------------------------


def padded(folder: Path, length: int) -> Path:
    """A path below a folder that has so many bytes."""
    missing = length - len(str(folder)) - 1
    assert missing > 0
    return folder / ("x" * missing)


SOCKET_NAME = len("/vhu01234567-89")


def refuses_to_start(node: Node, *words: str) -> None:
    """The daemon does not start, and its last words have all of these."""
    with pytest.raises(LabError) as failed, node.running():
        pass
    for word in words:
        assert word in str(failed.value)


def test_a_mount_point_that_is_too_long(make_node: MakeNode, folder: Path) -> None:
    """A mount_point that makes socket paths of 108 bytes is refused at start, with the path."""
    mount_point = padded(folder, 108 - SOCKET_NAME)
    refuses_to_start(make_node(mount_point=mount_point), "mount_point", str(mount_point), "108")


def test_an_ovs_vhu_path_that_is_too_long(make_node: MakeNode, folder: Path) -> None:
    """An ovs_vhu_path that makes socket paths of 108 bytes is refused at start, with the path."""
    path = padded(folder, 108 - SOCKET_NAME)
    refuses_to_start(make_node(more={"vhostuser": {"ovs_vhu_path": str(path)}}), "ovs_vhu_path", str(path), "108")


def test_a_cni_socket_that_is_too_long(make_node: MakeNode, folder: Path) -> None:
    """A cni_socket of 108 bytes is refused at start, with the path."""
    path = padded(folder, 108)
    refuses_to_start(make_node(more={"node": {"cni_socket": str(path)}}), "cni_socket", str(path), "108")


@modes
def test_the_longest_paths(make_node: MakeNode, box: Sandbox, folder: Path, mode: str) -> None:
    """Socket paths of 107 bytes work, in both modes."""
    node = make_node(mount_point=padded(folder, 107 - SOCKET_NAME))
    with node.running(), node.attached(node.network(mode), box) as attached:
        assert len(str(attached.socket)) == 107
        assert node.cni("CHECK", attached.checking, box).code == 0
        if mode == "client":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as application:
                application.connect(str(attached.socket))


@pytest.mark.parametrize(
    ("section", "options", "words"),
    [
        ("vhostuser", {"mount_pont": "/x"}, ["[vhostuser]", "mount_pont"]),
        ("node", {"metrics": "yes"}, ["[node]", "metrics"]),
        ("vhost_user", {"mount_point": "/x"}, ["[vhost_user]"]),
        ("node", {"add_timeout": "soon"}, ["[node]", "add_timeout", "soon"]),
        ("node", {"add_timeout": "-1"}, ["[node]", "add_timeout"]),
        ("node", {"source": "magic"}, ["[node]", "source", "magic"]),
        ("vhostuser", {"mount_point": "pods"}, ["mount_point", "pods"]),
        ("node", {"state_dir": "/proc/nowhere"}, ["state_dir", "/proc/nowhere"]),
        ("node", {"cni_socket": "/proc/nowhere/cni.sock"}, ["cni_socket", "/proc/nowhere/cni.sock"]),
    ],
)
def test_a_wrong_kuryr_conf(make_node: MakeNode, section: str, options: dict[str, str], words: list[str]) -> None:
    """An unknown option or section, or a value that cannot work, is refused at start with section and name."""
    refuses_to_start(make_node(more={section: options}), *words)


def test_the_file_of_a_wrong_option_is_named(make_node: MakeNode) -> None:
    """The refusal of an option names the file it stands in."""
    node = make_node(more={"node": {"colour": "green"}})
    refuses_to_start(node, str(node.daemon.config), "colour")


def test_one_directory_for_both(make_node: MakeNode, ovs: PrivateOvs) -> None:
    """OVS's own directory as mount_point is refused: pods would see the sockets that control OVS."""
    refuses_to_start(make_node(more={"vhostuser": {"mount_point": str(ovs.rundir)}}), "mount_point", "ovs_vhu_path")


# -- two daemons ---------------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_socket(node: Node, make_node: MakeNode) -> None:
    """A daemon does not start on the socket of a living one, names it, and does that one no harm."""
    refuses_to_start(make_node(more={"node": {"cni_socket": str(node.daemon.socket)}}), str(node.daemon.socket))
    assert node.cni("STATUS", node.network()).code == 0


def test_a_second_daemon_on_the_journal(node: Node, make_node: MakeNode) -> None:
    """A daemon does not start on the state_dir of a living one, names it, and does that one no harm."""
    refuses_to_start(make_node(more={"node": {"state_dir": str(node.daemon.state_dir)}}), str(node.daemon.state_dir))
    assert node.cni("STATUS", node.network()).code == 0


def test_the_socket_of_a_dead_daemon(make_node: MakeNode) -> None:
    """The socket that a killed daemon has left is replaced by the next one."""
    node = make_node()
    with node.running() as daemon:
        daemon.kill()
        assert daemon.socket.is_socket()
        refused(node.cni("STATUS", node.network()), 50, str(daemon.socket))
        daemon.start()
        assert node.cni("STATUS", node.network()).code == 0


def test_a_file_in_place_of_the_socket(make_node: MakeNode, folder: Path) -> None:
    """A file that is no socket at cni_socket's path is refused, named and left alone."""
    path = folder / "precious"
    path.write_text("text")
    refuses_to_start(make_node(more={"node": {"cni_socket": str(path)}}), str(path))
    assert path.read_text() == "text"


def test_a_client_that_talks_nonsense(node: Node) -> None:
    """Bytes that are no request, half of one, or none at all do not keep the daemon from serving the next."""
    for data in (b"", b"\0", b"\0\0\0\x05{", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x02{}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(node.daemon.socket))
            client.sendall(data)
    assert node.cni("STATUS", node.network()).code == 0


def test_an_enormous_configuration(node: Node, box: Sandbox) -> None:
    """A configuration of a megabyte works, one that does not fit into a message is refused by the shim (code 7)."""
    with node.attached(node.network(label="x" * (1 << 20)), box):
        pass
    refused(call("ADD", node.network(label="x" * (13 << 20)), container_id="c"), 7, "too large")
