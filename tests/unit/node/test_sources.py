"""From a request to what the journal keeps."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import errors
from podvif.errors import Refused
from podvif.model import Address, Addresses, Entry, Goal, IpamCall, Listener, Pod
from podvif.node.sources import Source, Standalone, same_intent
from podvif.node.volumes import Volumes
from podvif.settings import load
from tests.fakes.mounts import FakeMounts, FakePodDirectories
from tests.fakes.values import ATTACHMENT, config, request, vif

OWN = "/proc/self/ns/net"
IPAM = {"type": "host-local", "ranges": []}


@pytest.fixture
def source(tmp_path: Path) -> Standalone:
    """The source, with the specification's directories."""
    settings = msgspec.structs.replace(load([]), state_dir=str(tmp_path))
    return Standalone(settings, Volumes(settings, FakeMounts(), FakePodDirectories()))


async def entry(source: Standalone, verb: str, network: dict[str, Any], **variables: Any) -> Entry:
    """The one entry of an ADD."""
    (found,) = await source.entries(request(verb, network, **variables))
    return found


async def test_entry(source: Standalone) -> None:
    """What an ADD asks for is one entry that needs nothing else to be served, also by a later daemon."""
    network = config(vhostuserMode="client", ipam=IPAM, prevResult={"ips": []}, args={"cni": {"ips": ["10.0.0.5"]}})
    args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u"

    found = await entry(source, "ADD", network, CNI_ARGS=args)

    kept = {key: value for key, value in network.items() if key != "prevResult"}
    path = ("/opt/cni/bin", "/usr/lib/cni")
    assert (found.attachment, found.network, found.goal) == (ATTACHMENT, "dpdk-net", Goal.ATTACHING)
    assert found.vif == vif(Listener.OVS, pods="/var/run/vhostuser", ovs="/var/run/openvswitch")
    assert (found.netns, found.netns_inode) == (OWN, Path(OWN).stat().st_ino)  # noqa: ASYNC240
    assert found.pod == Pod("ns", "p", "u")
    assert found.ipam == IpamCall(kept, path, OWN, args, ("10.0.0.5",))
    assert found.addresses is None
    assert abs(found.created - time.time()) < 60


async def test_no_ipam(source: Standalone) -> None:
    """A network without IPAM has no call to make."""
    assert (await entry(source, "ADD", config())).ipam is None
    assert (await entry(source, "ADD", config(ipam={}))).ipam is None


@pytest.mark.parametrize(
    ("network", "variables", "code", "words"),
    [
        (config(mtu=40), {}, errors.INVALID_CONFIG, "mtu"),
        (
            config(),
            {"CNI_ARGS": "IP=10.0.0.1"},
            errors.INVALID_CONFIG,
            "address 10.0.0.1 was asked for and network dpdk-net",
        ),
        (config(), {"CNI_NETNS": "/proc/nobody/ns/net"}, errors.INVALID_ENVIRONMENT, "CNI_NETNS /proc/nobody/ns/net"),
        (config(), {"CNI_NETNS": "/dev/null"}, errors.INVALID_ENVIRONMENT, "CNI_NETNS /dev/null"),
        (config(), {"CNI_NETNS": "/proc/self/ns/mnt"}, errors.INVALID_ENVIRONMENT, "CNI_NETNS /proc/self/ns/mnt"),
        (config(), {"CNI_IFNAME": "lo"}, errors.INVALID_ENVIRONMENT, "has a network interface called lo already"),
    ],
)
async def test_refused(
    source: Standalone, network: dict[str, Any], variables: dict[str, Any], code: int, words: str
) -> None:
    """What cannot be served is refused with the key, the namespace or the interface, and CNI's code."""
    with pytest.raises(Refused) as caught:
        await source.entries(request("ADD", network, **variables))

    assert (caught.value.code, words in caught.value.message) == (code, True), caught.value.message


def test_leaving(source: Standalone) -> None:
    """A DEL that the journal knows nothing of has the names, and IPAM if the configuration still has it."""
    found = source.leaving(request("DEL", config(ipam=IPAM, prevResult={})))

    assert (found.goal, found.attachment) == (Goal.LEAVING, ATTACHMENT)
    assert found.vif.name == vif().name
    assert found.vif.socket == f"/var/run/vhostuser/{vif().name}"
    assert found.ipam is not None
    assert "prevResult" not in found.ipam.config


@pytest.mark.parametrize(
    "network", [config(), config(ipam={}), config(ipam=7), config(ipam={"type": 7}), config(mtu=1)]
)
def test_leaving_whatever_the_configuration(source: Standalone, network: dict[str, Any]) -> None:
    """DEL does not mind a configuration that ADD would refuse, nor a namespace that is gone or not given."""
    for netns in ("", "/proc/nobody/ns/net"):
        assert source.leaving(request("DEL", network, CNI_NETNS=netns)).ipam is None


async def test_same_intent(source: Standalone) -> None:
    """Two ADDs ask for the same whatever has come of them; another MTU, address or namespace is something else."""
    one = await entry(source, "ADD", config(ipam=IPAM))
    later = msgspec.structs.replace(
        one, goal=Goal.ATTACHED, created=one.created + 9, addresses=Addresses((Address("10.0.0.1/8"),))
    )

    assert same_intent(one, later)
    for network, args in ((config(ipam=IPAM, mtu=9000), ""), (config(), ""), (config(ipam=IPAM), "IP=10.0.0.5")):
        assert not same_intent(later, await entry(source, "ADD", network, CNI_ARGS=args))
    assert not same_intent(later, msgspec.structs.replace(one, netns_inode=7))


async def test_nobody_is_asked(source: Standalone) -> None:
    """It depends on nobody: it can serve from the start, and what it says never is old."""
    anybody: Source = source
    anybody.unwanted(ATTACHMENT)

    assert (anybody.why_not(), anybody.trouble()) == (None, None)
