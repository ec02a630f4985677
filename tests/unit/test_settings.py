"""kuryr.conf."""

from collections.abc import Callable
from pathlib import Path

import pytest

from podvif import errors
from podvif.errors import Refused
from podvif.settings import (
    CONTROLLER_SECTIONS,
    SECTIONS,
    ControllerSettings,
    Settings,
    field_of,
    load,
    load_controller,
    parse_address,
)

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file and returns its path."""

    def write(text: str, name: str = "kuryr.conf") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


DEFAULTS = Settings(
    mount_point="/var/run/vhostuser",  # type: ignore[arg-type]
    ovs_vhu_path="/var/run/openvswitch",  # type: ignore[arg-type]
    ovsdb_connection="unix:/var/run/openvswitch/db.sock",
    cni_socket="/var/run/podvif/cni.sock",
    state_dir="/var/lib/podvif",
    source="standalone",
    add_timeout=180.0,
    ipam_timeout=60.0,
    resync_interval=30.0,
    sweep_grace=60.0,
    log_format="console",
    metrics_bind="127.0.0.1:9655",
    kubeconfig="",
    node_name="",
    cluster_network=True,
    additional_ifname_prefix="eth",
    run_dir="/var/run/podvif",
    csi_endpoint="",
    csi_registration_dir="/var/lib/kubelet/plugins_registry",
)

CONTROLLER_DEFAULTS = ControllerSettings(
    project="",
    pod_subnet="",
    pod_security_groups=(),
    resource_tags=(),
    kubeconfig="",
    cluster_network=True,
    additional_ifname_prefix="eth",
    metrics_bind="127.0.0.1:9656",
    workers=16,
    resync_interval=300.0,
    retry_max=60.0,
    sweep_grace=300.0,
    lease_name="podvif-controller",
    lease_namespace="",
    lease_duration=15.0,
    lease_renew_deadline=10.0,
    lease_retry_period=2.0,
    log_format="console",
)


def test_defaults(write: Write) -> None:
    """Without a file, and with an empty one, every option has its documented default: the specification's paths."""
    assert load([]) == load([write("")]) == DEFAULTS


def test_every_option(write: Write) -> None:
    """Each option of each section is read from the file."""
    values = {
        "mount_point": "/a",
        "ovs_vhu_path": "/b",
        "ovsdb_connection": "tcp:127.0.0.1:6640",
        "cni_socket": "/c",
        "state_dir": "/d",
        "source": "cluster",
        "add_timeout": 1.5,
        "ipam_timeout": 2.0,
        "resync_interval": 3.0,
        "sweep_grace": 4.0,
        "log_format": "json",
        "metrics_bind": "[::1]:80",
        "kubeconfig": "/e",
        "node_name": "n1",
        "cluster_network": False,
        "additional_ifname_prefix": "net",
        "vswitchd_user": "openvswitch:hugetlbfs",
        "socket_group": "dpdk",
        "socket_mode": "0660",
        "selinux_context": "system_u:object_r:container_file_t:s0",
        "run_dir": "/f",
        "csi_endpoint": "/g",
        "csi_registration_dir": "/h",
    }
    lines = []
    for section, options in SECTIONS.items():
        lines += [f"[{section}]", *(f"{option.name} = {values[field_of(section, option.name)]}" for option in options)]

    assert load([write("\n".join(lines))]) == Settings(**values)  # type: ignore[arg-type]


def test_every_option_is_explained() -> None:
    """Each option has a help text, from which the reference is made."""
    sections = [*SECTIONS.values(), *CONTROLLER_SECTIONS.values()]
    assert all(len(option.help) > 20 for options in sections for option in options)


def test_later_file_wins(write: Write) -> None:
    """A later file wins over an earlier one, option by option."""
    first = write("[vhostuser]\nmount_point = /a\novs_vhu_path = /b\n", "first")
    second = write("[vhostuser]\nmount_point = /c\n", "second")

    found = load([first, second])

    assert (found.mount_point, found.ovs_vhu_path) == ("/c", "/b")


def test_sections_of_others(write: Write) -> None:
    """Sections of Kuryr and of the controller are let be, whatever is in them."""
    text = "[DEFAULT]\ndebug = true\n[kubernetes]\napi_root = x\n[controller]\nx = 1\n[neutron]\nanything = 1\n[neutron_defaults]\na = b\n[vif_pool]\nc=\n"

    assert load([write(text)]) == DEFAULTS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[vhostuser]\nmount_pount = /a\n", "[vhostuser] mount_pount is not an option"),
        ("[vif_plug_ovs]\novs_vsctl_timeout = 1\n", "[vif_plug_ovs] ovs_vsctl_timeout is not an option"),
        ("[nodes]\nstate_dir = /a\n", "unknown section [nodes]"),
        ("[Node]\nstate_dir = /a\n", "unknown section [Node]"),
        ("[node]\nsource = cloud\n", "[node] source"),
        ("[node]\nadd_timeout = soon\n", "[node] add_timeout"),
        ("[node]\nadd_timeout = 0\n", "[node] add_timeout"),
        ("[node]\nadd_timeout = nan\n", "[node] add_timeout"),
        ("[node]\nipam_timeout = inf\n", "[node] ipam_timeout"),
        ("[node]\nlog_format = xml\n", "[node] log_format"),
        ("[vhostuser]\nmount_point = pods\n", "[vhostuser] mount_point = pods is no absolute path"),
        ("[vhostuser]\nmount_point =\n", "[vhostuser] mount_point =  is no absolute path"),
        ("[vhostuser]\novs_vhu_path = ~/ovs\n", "[vhostuser] ovs_vhu_path = ~/ovs is no absolute path"),
        ("[node]\ncni_socket = cni.sock\n", "[node] cni_socket = cni.sock is no absolute path"),
        ("[node]\nstate_dir = ./state\n", "[node] state_dir = ./state is no absolute path"),
        ("[vhostuser]\nmount_point = /run/$nothing\n", "[vhostuser] mount_point"),
        ("[vif_plug_ovs]\novsdb_connection = /run/db.sock\n", "[vif_plug_ovs] ovsdb_connection"),
        ("[vif_plug_ovs]\novsdb_connection =\n", "[vif_plug_ovs] ovsdb_connection"),
        ("[node]\nmetrics_bind = 9655\n", "[node] metrics_bind = 9655 is no address"),
        ("[node]\nmetrics_bind = localhost:http\n", "[node] metrics_bind = localhost:http is no address"),
        ("[node]\nmetrics_bind = ::1:9655\n", "[node] metrics_bind = ::1:9655 is no address"),
        ("[node]\nmetrics_bind = 127.0.0.1:65536\n", "[node] metrics_bind = 127.0.0.1:65536 is no address"),
        ("[kubernetes]\nkubekonfig = /a\n", "[kubernetes] kubekonfig is not an option"),
        ("[kubernetes]\ncluster_network = perhaps\n", "[kubernetes] cluster_network"),
        ("[kubernetes]\nadditional_ifname_prefix =\n", "[kubernetes] additional_ifname_prefix =  cannot begin"),
        ("[kubernetes]\nadditional_ifname_prefix = a/b\n", "additional_ifname_prefix = a/b cannot begin"),
        ("mount_point = /a\n", "is not INI"),
        ("[vhostuser\n", "is not INI"),
    ],
)
def test_refused(write: Write, text: str, words: str) -> None:
    """An unknown section or option, or a value that cannot work, is refused with file, section and name."""
    file = write(text)
    with pytest.raises(Refused) as caught:
        load([file])

    assert file in caught.value.message
    assert words in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("path", ["missing.conf", "."])
def test_no_file(tmp_path: Path, path: str) -> None:
    """A file that is not there, or is a directory, is refused with its name."""
    with pytest.raises(Refused) as caught:
        load([str(tmp_path / path)])

    assert str(tmp_path / path) in caught.value.message
    assert caught.value.code == errors.IO_FAILURE


def test_no_text(tmp_path: Path) -> None:
    """A file that is no text is refused with its name."""
    (tmp_path / "kuryr.conf").write_bytes(b"[vhostuser]\nmount_point = /\xff\n")
    with pytest.raises(Refused, match=r"kuryr\.conf is not INI"):
        load([str(tmp_path / "kuryr.conf")])


# A directory takes a slash and the 14 characters of a socket's name; sun_path has 107 bytes and a zero.
@pytest.mark.parametrize(
    ("section", "name", "longest"),
    [("vhostuser", "mount_point", 92), ("vhostuser", "ovs_vhu_path", 92), ("node", "cni_socket", 107)],
)
def test_socket_paths(write: Write, section: str, name: str, longest: int) -> None:
    """A directory with which a socket's path would have 108 bytes is refused with that path; 107 are taken."""
    fits = "/" + "é" * ((longest - 1) // 2) + "x" * ((longest - 1) % 2)
    load([write(f"[{section}]\n{name} = {fits}\n")])

    with pytest.raises(Refused) as caught:
        load([write(f"[{section}]\n{name} = {fits}x\n")])

    assert f"[{section}] {name} = {fits}x" in caught.value.message
    assert "108 bytes" in caught.value.message


@pytest.mark.parametrize("other", ["/run/x", "/run/x/", "/run/./x", "/run/y/../x"])
def test_one_directory_for_both(write: Write, other: str) -> None:
    """Pods are not given the directory in which OVS's own control sockets lie."""
    with pytest.raises(Refused, match="mount_point and ovs_vhu_path are both /run/x"):
        load([write(f"[vhostuser]\nmount_point = /run/x\novs_vhu_path = {other}\n")])


def test_not_a_global(write: Write) -> None:
    """What one call was told is not known to the next."""
    load([write("[vhostuser]\nmount_point = /a\n")])

    assert load([]) == DEFAULTS


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9655", "127.0.0.1", 9655),
        ("localhost:0", "localhost", 0),
        (":9655", "", 9655),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_address(text: str, host: str, port: int) -> None:
    """An address has a host, which may be none or an IPv6 address in brackets, and a port."""
    assert parse_address(text) == (host, port)


def test_no_metrics(write: Write) -> None:
    """An empty address is none."""
    assert load([write("[node]\nmetrics_bind =\n")]).metrics_bind == ""


# -- the controller ----------------------------------------------------------------------------------------------------


def test_defaults_of_the_controller(write: Write) -> None:
    """Without a file, with an empty one, and with the node's options and Neutron's alone, the controller has its defaults."""
    others = "[vhostuser]\nx = 1\n[node]\nx = 1\n[vif_plug_ovs]\nx = 1\n[neutron]\nauth_url = x\n[vif_pool]\nc=\n"

    assert (
        load_controller([]) == load_controller([write("")]) == load_controller([write(others)]) == CONTROLLER_DEFAULTS
    )


def test_every_option_of_the_controller(write: Write) -> None:
    """Each option of each section is read from the file; lists are written with commas."""
    text = """
        [neutron_defaults]
        project = p
        pod_subnet = s
        pod_security_groups = a, b
        resource_tags = t
        [kubernetes]
        kubeconfig = /k
        node_name = n1
        cluster_network = false
        additional_ifname_prefix = net
        [controller]
        metrics_bind = :1
        workers = 2
        resync_interval = 3
        retry_max = 4
        sweep_grace = 5
        lease_name = l
        lease_namespace = ns
        lease_duration = 9
        lease_renew_deadline = 8
        lease_retry_period = 7
        log_format = json
    """
    lines = [line.strip() for line in text.splitlines()]
    options = [option.name for section in CONTROLLER_SECTIONS.values() for option in section]
    assert sorted(line.partition(" =")[0] for line in lines if " = " in line) == sorted(options)

    assert load_controller([write("\n".join(lines))]) == ControllerSettings(
        project="p",
        pod_subnet="s",
        pod_security_groups=("a", "b"),
        resource_tags=("t",),
        kubeconfig="/k",
        cluster_network=False,
        additional_ifname_prefix="net",
        metrics_bind=":1",
        workers=2,
        resync_interval=3.0,
        retry_max=4.0,
        sweep_grace=5.0,
        lease_name="l",
        lease_namespace="ns",
        lease_duration=9.0,
        lease_renew_deadline=8.0,
        lease_retry_period=7.0,
        log_format="json",
    )


def test_kuryrs_file(write: Write) -> None:
    """A file of Kuryr's is read as it is: what means the same is taken, the rest is let be."""
    file = write(
        "[DEFAULT]\nbindir = /x\n[kubernetes]\napi_root = https://k:6443\nmulti_vif_drivers = npwg_multiple_interfaces\n"
        "vif_pool_driver = neutron\nadditional_ifname_prefix = eth\n"
        "[neutron]\nauth_type = password\n[neutron_defaults]\novs_bridge = br-int\nproject = p\npod_subnet = s\n"
        "pod_security_groups = a,b\nservice_subnet = t\n[octavia_defaults]\nmember_mode = L3\n"
    )
    found = load_controller([file])

    assert (found.project, found.pod_subnet, found.pod_security_groups) == ("p", "s", ("a", "b"))
    assert load([file]) == DEFAULTS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[controller]\nworker = 1\n", "[controller] worker is not an option"),
        ("[neutron_defaults]\npod_subnets = x\n", "[neutron_defaults] pod_subnets is not an option"),
        ("[controllers]\nworkers = 1\n", "unknown section [controllers]"),
        ("[controller]\nworkers = 0\n", "[controller] workers"),
        ("[controller]\nsweep_grace = nan\n", "[controller] sweep_grace"),
        ("[controller]\nretry_max = inf\n", "[controller] retry_max"),
        ("[controller]\nlog_format = xml\n", "[controller] log_format"),
        ("[controller]\nlease_name =\n", "[controller] lease_name is empty"),
        ("[controller]\nlease_duration = 10\n", "lease_duration = 10 has to be more than lease_renew_deadline = 10"),
        ("[controller]\nlease_renew_deadline = 1\n", "lease_renew_deadline = 1 has to be more than lease_retry_period = 2"),
        ("[controller]\nmetrics_bind = 9656\n", "[controller] metrics_bind = 9656 is no address"),
        ("[kubernetes]\nadditional_ifname_prefix = abcdefghijklmn\n", "additional_ifname_prefix = abcdefghijklmn cannot begin"),
        ("[neutron_defaults]\nresource_tags = a b\n", "[neutron_defaults] resource_tags: 'a b' is no tag"),
    ],
)  # fmt: skip
def test_controller_refuses(write: Write, text: str, words: str) -> None:
    """What the controller does not know, or cannot work with, is refused with file, section and name."""
    file = write(text)
    with pytest.raises(Refused) as caught:
        load_controller([file])

    assert file in caught.value.message
    assert words in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("mode", ["rw", "0o660", "1777", "66", "0668"])
def test_socket_mode(write: Write, mode: str) -> None:
    """A mode is three octal digits."""
    with pytest.raises(Refused, match=f"socket_mode = {mode} is no mode"):
        load([write(f"[vhostuser]\nsocket_mode = {mode}\n")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node]\nrun_dir = run\n", r"\[node\] run_dir = run is no absolute path"),
        ("[csi]\nendpoint = csi.sock\n", r"\[csi\] endpoint = csi.sock is no absolute path"),
        (f"[node]\nrun_dir = /{'x' * 50}\n", r"\[node\] run_dir = .* 108 bytes"),
        (f"[csi]\nendpoint = /{'x' * 106}\n", r"\[csi\] endpoint = .* 108 bytes"),
        (
            f"[csi]\nendpoint = /x\nregistration_dir = /{'x' * 83}\n",
            r"\[csi\] registration_dir = .*csi.podvif.io-reg.sock 108 bytes",
        ),
        ("[node]\nrun_dir = /run/x\n[vhostuser]\nmount_point = /run/x\n", "one in the other"),
        ("[node]\nrun_dir = /run/x\n[vhostuser]\nmount_point = /run/x/pods/y/\n", "one in the other"),
    ],
)
def test_own_directories_refused(write: Write, text: str, words: str) -> None:
    """Paths that pods' own directories cannot have, or that pods share as well, are refused with their option."""
    with pytest.raises(Refused, match=words):
        load([write(text)])


def test_own_directories_beside_shared_one(write: Write) -> None:
    """The shared directory may lie beside the pods' own ones, and kubelet need not be told of the driver."""
    found = load(
        [write("[node]\nrun_dir = /run/x\n[vhostuser]\nmount_point = /run/x/shared\n[csi]\nregistration_dir =\n")]
    )

    assert found.csi_registration_dir == ""
