"""Addresses, from asking IPAM to giving them back."""

from pathlib import Path
from typing import Any

import pytest

from podvif.errors import Bug, Refused, Retry
from podvif.model import IpamCall
from podvif.node.journal import Journal
from podvif.node.leases import Leases
from tests.fakes.ipam import FakeIpam
from tests.fakes.values import ATTACHMENT, config, entry

CALL = IpamCall(config(ipam={"type": "host-local"}), ("/opt/cni/bin",), "/proc/self/ns/net", "")


class Parts:
    """Leases over a journal that has one entry, and a fake IPAM."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.journal = Journal(str(folder))
        self.journal.put(entry(**{"ipam": CALL, **changes}))
        self.ipam = FakeIpam()
        self.leases = Leases(self.journal, self.ipam)

    def entry(self) -> Any:
        return self.journal.get(ATTACHMENT)


async def test_reserve_and_release(tmp_path: Path) -> None:
    """What IPAM gave is in the journal, and after giving it back neither there nor at IPAM."""
    parts = Parts(tmp_path)

    await parts.leases.reserve(ATTACHMENT)
    assert parts.entry().addresses.ips
    assert list(parts.ipam.leases) == [ATTACHMENT]

    await parts.leases.release(ATTACHMENT)
    assert (parts.entry().ipam, parts.entry().addresses) == (None, None)
    assert not parts.ipam.leases


async def test_another_address(tmp_path: Path) -> None:
    """An address that was asked for and not given is refused; the journal goes on naming the plugin that gave another."""
    parts = Parts(tmp_path, ipam=IpamCall(CALL.config, CALL.path, CALL.netns, "", ("192.0.2.77",)))

    with pytest.raises(Refused, match=r"192\.0\.2\.77 was asked for"):
        await parts.leases.reserve(ATTACHMENT)

    assert parts.entry().ipam
    assert parts.entry().addresses is None


@pytest.mark.parametrize("act", ["reserve", "release"])
async def test_without_ipam(tmp_path: Path, act: str) -> None:
    """Without IPAM in the journal there is nothing to ask: asking for it is a bug."""
    parts = Parts(tmp_path, ipam=None)

    with pytest.raises(Bug):
        await getattr(parts.leases, act)(ATTACHMENT)


async def test_plugin_is_gone(tmp_path: Path) -> None:
    """A plugin that cannot be run keeps what it gave; one that never gave anything is not waited for."""
    parts = Parts(tmp_path)

    class Broken(FakeIpam):
        async def remove(self, *arguments: Any) -> None:
            raise Refused("IPAM plugin host-local is in none of /opt/cni/bin")

    broken = Leases(parts.journal, Broken())
    await parts.leases.reserve(ATTACHMENT)
    with pytest.raises(Refused):
        await broken.release(ATTACHMENT)
    assert parts.entry().addresses

    nothing = Parts(tmp_path / "other")
    await Leases(nothing.journal, Broken()).release(ATTACHMENT)
    assert nothing.entry().ipam is None


async def test_plugin_fails(tmp_path: Path) -> None:
    """A release that fails for now is a Retry, and the journal still knows of the lease."""
    parts = Parts(tmp_path)

    class Failing(FakeIpam):
        async def remove(self, *arguments: Any) -> None:
            raise Retry("it is busy")

    with pytest.raises(Retry):
        await Leases(parts.journal, Failing()).release(ATTACHMENT)
    assert parts.entry().ipam
