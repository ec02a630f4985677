"""The vocabulary's own promises."""

import msgspec
import pytest

from podvif.model import Address, Addresses, Attachment, Dns, Entry, Goal, IpamCall, Listener, Pod, Route
from tests.fakes.values import ATTACHMENT, BOTH, config, entry, vif


def test_frozen() -> None:
    """A value cannot be changed, only replaced."""
    with pytest.raises(AttributeError):
        vif().mtu = 9000  # type: ignore[misc]
    assert msgspec.structs.replace(vif(), mtu=9000).mtu == 9000


def test_words() -> None:
    """An attachment and a pod are called as people write them; a runtime that names no pod leaves it empty."""
    assert str(ATTACHMENT) == "c0ffee:net1"
    assert str(Pod("ns", "name", "uid")) == "ns/name"
    assert str(Pod()) == ""


def test_keys() -> None:
    """Attachments are keys: equal by value and in an order."""
    assert {Attachment("a", "x"): 1}[Attachment("a", "x")] == 1
    assert Attachment("a", "a") < Attachment("a", "b") < Attachment("b", "a")


@pytest.mark.parametrize("listener", BOTH)
@pytest.mark.parametrize("goal", Goal)
def test_entry_outlives_the_daemon(listener: Listener, goal: Goal) -> None:
    """An entry read back from the journal's JSON is the entry that was written, the IPAM configuration included."""
    call = IpamCall(
        config(ipam={"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/8"}]]}), ("/bin",), "/ns", "A=b"
    )
    addresses = Addresses((Address("10.0.0.2/8", "10.0.0.1"),), (Route("::/0", mtu=1400),), Dns(domain="x"))
    made = entry(
        listener, goal=goal, ipam=call, addresses=addresses, netns="/ns", netns_inode=7, pod=Pod("a", "b", "c")
    )

    assert msgspec.json.decode(msgspec.json.encode(made), type=Entry) == made
