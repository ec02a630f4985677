"""Network devices, as far as they can be looked at without any rights; tests/contract makes real ones."""

import errno
import socket

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from podvif import errors
from podvif.errors import Refused, Retry
from podvif.host import veth
from podvif.model import Pair

OWN = "/proc/self/ns/net"


def test_loopback() -> None:
    """A device of this machine is seen as it is, and as no end of a pair."""
    found = veth.look_at("lo")

    assert found
    assert (found.index, found.mac, found.peer) == (socket.if_nametoindex("lo"), "00:00:00:00:00:00", 0)
    assert found == veth.look_at("lo")


def test_loopback_of_a_namespace() -> None:
    """Asked in a namespace, a device tells its addresses and checksums too."""
    found = veth.look_into(OWN, "lo")

    assert found
    assert found.checksums_left_out  # nothing leaves the machine over it, so nobody fills them in
    assert ("127.0.0.1/8" in found.addresses) is found.up


def test_nobody() -> None:
    """A device that is not there is none."""
    assert veth.look_at("nobody0") is None
    assert veth.look_into(OWN, "nobody0") is None


async def test_beside_an_event_loop() -> None:
    """It can be asked where an event loop runs, which pyroute2 cannot."""
    assert veth.look_at("lo")
    assert veth.look_into(OWN, "lo")


def test_own_namespace() -> None:
    """No pair is made whose pod's end would be on the host."""
    with pytest.raises(Refused, match="is the network namespace of the node itself") as caught:
        veth.make(Pair("tap0", "fe:00:00:00:00:01", OWN, "eth0", "02:00:00:00:00:01", 1500))

    assert caught.value.code == errors.INVALID_ENVIRONMENT


@pytest.mark.parametrize(
    ("raised", "family", "words"),
    [
        (NetlinkError(errno.ENODEV, "x"), Retry, "No such device"),
        (NetlinkError(errno.EEXIST, "x"), Refused, "File exists"),
        (NetlinkError(errno.EPERM, "x"), Refused, "Operation not permitted"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Retry, "No such file"),
        (Retry("it is gone"), Retry, "it is gone"),
    ],
)
def test_door(raised: Exception, family: type[Exception], words: str) -> None:
    """What the kernel and pyroute2 raise becomes one of ours, with the subject and the kernel's words."""
    with pytest.raises(family, match=words), veth._door("tap0 cannot be made"):
        raise raised


@pytest.mark.parametrize(("raised", "meant"), [(errno.EEXIST, {"there_already": True}), (errno.ENODEV, {"gone": True})])
def test_door_for_repeats(raised: int, meant: dict[str, bool]) -> None:
    """What a repeat finds there or gone already is fine where that was asked for, and only there."""

    def fail() -> None:
        raise NetlinkError(raised, "x")

    with veth._door("x", **meant):
        fail()
    with pytest.raises((Retry, Refused)), veth._door("x"):
        fail()
