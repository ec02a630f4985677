"""The files that the application reads."""

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import names
from podvif.core import podfiles, translate
from podvif.model import Address, Addresses, Attachment, Dns, Entry, Listener, Pod, Route, SocketDir, SocketPath, Volume
from tests.fakes.values import BOTH, entry, kernel_vif, vif

# As printed in the specification (vhostuser-port-integration.rst, "Proposed solution"), without the page's own indent.
SPECIFIED = """\
{
  "vhostname": "vhu9c9cc8f5-88",
  "vhostmac": "fa:16:3e:ef:b0:ed",
  "mode": "server"
}
"""

FIRST, SECOND = Attachment("c0ffee", "eth1"), Attachment("c0ffee", "net2")
ADDRESSES = Addresses(
    ips=(Address("10.1.0.5/24", "10.1.0.1"), Address("fd00:0:0::5/64", "fd00::1")),
    routes=(Route("0.0.0.0/0", gw="10.1.0.1"), Route("10.9.0.0/16")),
    dns=Dns(nameservers=("10.1.0.1",)),
)


def two() -> list[Entry]:
    """Two interfaces of one sandbox, one in each mode, the second without addresses."""
    first = entry(
        Listener.APPLICATION, FIRST, addresses=ADDRESSES, vif=vif(Listener.APPLICATION, FIRST, vlan=100, queues=2)
    )
    return [first, entry(Listener.OVS, SECOND)]


def sourced(file: Path) -> dict[str, str]:
    """What a POSIX shell has in its variables after it has read the file."""
    script = 'set -u; . "$1"; set -a; . "$1"; exec env -0'
    text = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(file)],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pairs = [line.partition("=") for line in text.split("\0") if line]
    return {key: value for key, _, value in pairs if key.startswith("VHOSTUSER_")}


def test_specified_file() -> None:
    """The specification's file is, byte for byte, what the specification prints."""
    port = vif(name="vhu9c9cc8f5-88", mac="fa:16:3e:ef:b0:ed")
    files = podfiles.render([entry(attachment=Attachment("f" * 64, "eth0"), vif=port)])

    assert files["f" * 64 + "-eth0"] == SPECIFIED


def test_file_names() -> None:
    """Each interface has the specification's file, and the sandbox one for machines and one for shells."""
    assert set(podfiles.render(two())) == {"c0ffee-eth1", "c0ffee-net2", "c0ffee.json", "c0ffee.env"}
    assert podfiles.render([]) == {}


@pytest.mark.parametrize(
    ("listener", "form"),
    [
        (Listener.APPLICATION, "net_virtio_user3,path={socket},mac={mac},server=1,queues=2"),
        (Listener.OVS, "net_virtio_user3,path={socket},mac={mac},queues=2"),
    ],
)
def test_vdev(listener: Listener, form: str) -> None:
    """DPDK is told to listen exactly where the application is the one who listens."""
    port = vif(listener, queues=2)

    assert podfiles.vdev(entry(listener, vif=port), 3) == form.format(socket=port.socket, mac=port.mac)


def test_json() -> None:
    """The JSON file has every interface in the order of their ADD, with all that is known of each."""
    document = json.loads(podfiles.render(two())["c0ffee.json"])
    first, second = document["interfaces"]
    port = two()[0].vif

    assert document["containerId"] == "c0ffee"
    assert first == {
        "ifname": "eth1",
        "socket": port.socket,
        "mode": "server",
        "listener": "application",
        "mac": port.mac,
        "mtu": 1500,
        "queues": 2,
        "vlan": 100,
        "ips": ["10.1.0.5/24", "fd00::5/64"],
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "10.9.0.0/16"}],
        "dns": {"nameservers": ["10.1.0.1"]},
        "vdev": f"net_virtio_user0,path={port.socket},mac={port.mac},server=1,queues=2",
    }
    assert (second["ifname"], second["mode"], second["listener"]) == ("net2", "client", "ovs")
    assert (second["ips"], second["gateway"], second["vlan"]) == ([], None, None)
    assert second["vdev"].startswith("net_virtio_user1,")


def test_env_says_what_json_says(tmp_path: Path) -> None:
    """A shell that reads the .env file has the values of the JSON file, lists as words, nothing as an empty string."""
    files = podfiles.render(two())
    (tmp_path / "env").write_text(files["c0ffee.env"])
    interfaces: list[dict[str, Any]] = json.loads(files["c0ffee.json"])["interfaces"]
    wanted = {"VHOSTUSER_COUNT": "2", "VHOSTUSER_VDEVS": " ".join(f"--vdev={each['vdev']}" for each in interfaces)}
    for index, each in enumerate(interfaces):
        for key in ("ifname", "socket", "mode", "listener", "mac", "mtu", "queues", "vlan", "ips", "gateway", "vdev"):
            value = " ".join(each[key]) if key == "ips" else each[key]
            wanted[f"VHOSTUSER_{index}_{key.upper()}"] = "" if value is None else str(value)

    assert sourced(tmp_path / "env") == wanted


@pytest.mark.parametrize("nasty", ["a b", "it's", '"$HOME"', "$(touch /tmp/x)`id`", "a\\nb\\", "*;&|<>", "-n", "é\n2"])
def test_env_with_nasty_values(tmp_path: Path, nasty: str) -> None:
    """No value, whatever it holds, is anything but a value to the shell."""
    port = msgspec.structs.replace(vif(), socket=SocketPath(f"/{nasty}/vhu"))
    (tmp_path / "env").write_text(podfiles.render([entry(vif=port)])["c0ffee.env"])

    assert sourced(tmp_path / "env")["VHOSTUSER_0_SOCKET"] == f"/{nasty}/vhu"


def test_env_lines_can_be_found() -> None:
    """Each line of the .env file is NAME='value', quoted also where a shell would not need it."""
    lines = podfiles.render(two())["c0ffee.env"].splitlines()

    assert "VHOSTUSER_COUNT='2'" in lines
    assert "VHOSTUSER_0_MTU='1500'" in lines
    assert all(line.startswith("VHOSTUSER_") and line.endswith("'") for line in lines)


@pytest.mark.parametrize("listener", BOTH)
def test_socket_is_found_from_the_specified_file(listener: Listener) -> None:
    """`vhostname` is the socket's name in the directory, as the specification's own command uses it."""
    made = entry(listener)
    document = json.loads(podfiles.render([made])[names.attachment_file(made.attachment)])

    assert f"/pods/{document['vhostname']}" == made.vif.socket


def test_kernel_port() -> None:
    """A kernel port is in no file: the first socket of a sandbox has number 0, whatever was added before it."""
    pair = entry(attachment=FIRST, vif=kernel_vif(attachment=FIRST))

    assert podfiles.render([pair]) == {}
    assert podfiles.render([pair, *two()[1:]]) == podfiles.render(two()[1:])


OWN, MOUNTED_AT = SocketDir("/run/podvif/pods/u"), SocketDir("/sockets")


def own() -> list[Entry]:
    """The same two in their pod's own directory."""
    volume = Volume("v", "/t", Pod("ns", "p", "u"), MOUNTED_AT)
    return [msgspec.structs.replace(each, vif=translate.in_own_directory(each.vif, OWN, volume)) for each in two()]


def test_own_directory_has_fixed_names() -> None:
    """In a pod's own directory it need not know its container's id, and the specification's file is the same as ever."""
    files, shared = podfiles.render(own()), podfiles.render(two())

    assert set(files) == {"interfaces.json", "vhostuser.env", "c0ffee-eth1", "c0ffee-net2"}
    assert {name: files[name] for name in ("c0ffee-eth1", "c0ffee-net2")} == {
        name: shared[name] for name in ("c0ffee-eth1", "c0ffee-net2")
    }


def test_own_directory_is_named_as_the_pod_has_it(tmp_path: Path) -> None:
    """Each path in the files is the one under which the pod finds the socket, and nothing tells of the host's."""
    files = podfiles.render(own())
    (tmp_path / "env").write_text(files["vhostuser.env"])
    first, second = (each.vif.name for each in own())

    variables = sourced(tmp_path / "env")
    interfaces = json.loads(files["interfaces.json"])["interfaces"]

    assert [each["socket"] for each in interfaces] == [f"/sockets/{first}", f"/sockets/{second}"]
    assert variables["VHOSTUSER_0_SOCKET"] == f"/sockets/{first}"
    assert f"path=/sockets/{second}," in variables["VHOSTUSER_1_VDEV"]
    assert not [name for name, text in files.items() if "/run/podvif" in text]
