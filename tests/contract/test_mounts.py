"""A pod's directory shown at kubelet's target, on the kernel's own mount table and on the fake one."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif.errors import Refused
from podvif.host import mounts, poddir
from podvif.model import Access
from podvif.node.guard import Guard
from podvif.node.volumes import Mounts, OwnDirectories
from tests.contract.conftest import not_here
from tests.fakes.mounts import FakeMounts
from tests.fakes.settings import settings


def table(folder: Path) -> list[str]:
    """The lines of the mount table that are about a folder."""
    text = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    return [line for line in text.split("\n") if str(folder) in line]


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounts]:
    """A mount table; what is mounted below the test's folder is gone at the end."""
    if request.param == "fake":
        yield FakeMounts()
        return
    if os.geteuid() != 0:
        not_here("mounting needs root")
    yield mounts
    for line in reversed(table(tmp_path)):
        subprocess.run(["umount", line.split(" ")[4]], check=True)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A pod's own directory."""
    (tmp_path / "pods" / "u").mkdir(parents=True)
    return str(tmp_path / "pods" / "u")


@pytest.mark.parametrize("name", ["\u2028", "\x0c", "\r", "\x85", "a b", "\udcff"], ids=ascii)
def test_bound_beside_another(world: Mounts, own: str, tmp_path: Path, name: str) -> None:
    """What others have mounted, whatever they call it (a pod's subPath is any text), is no hindrance."""
    other, target = tmp_path / f"o{name}o", str(tmp_path / "target")
    other.mkdir()
    world.ensure_bound(str(other), str(tmp_path / "elsewhere"), read_only=False)

    world.ensure_bound(own, target, read_only=False)
    world.ensure_unbound(own, target)

    assert world.mounted_at(target) is None


def test_bound(world: Mounts, own: str, tmp_path: Path) -> None:
    """A directory is mounted at a target that is made for it, once however often it is asked for, and known as what it is."""
    target = str(tmp_path / "target")

    for _ in range(3):
        world.ensure_bound(own, target, read_only=False)

    found = world.mounted_at(target)
    assert found is not None
    assert world.is_of(found, own)
    assert not world.is_of(found, str(tmp_path / "pods" / "v"))
    world.ensure_unbound(own, target)
    assert (world.mounted_at(target), Path(target).exists()) == (None, False)
    world.ensure_unbound(own, target)


def test_mount_points(world: Mounts, own: str, tmp_path: Path) -> None:
    """Of some paths those are told at which something is mounted, whosever it is."""
    mine, other, empty = (str(tmp_path / name) for name in ("mine", "other", "empty"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "empty").mkdir()
    world.ensure_bound(own, mine, read_only=False)
    world.ensure_bound(str(tmp_path / "foreign"), other, read_only=False)

    assert world.mount_points([mine, other, empty, str(tmp_path / "none" / "x")]) == {mine, other}
    world.ensure_unbound(own, mine)
    assert world.mount_points([mine]) == set()


def test_target_of_somebody_else(world: Mounts, own: str, tmp_path: Path) -> None:
    """What another has mounted at the target is neither covered nor taken away."""
    other, target = tmp_path / "other", str(tmp_path / "target")
    other.mkdir()
    world.ensure_bound(str(other), target, read_only=False)

    with pytest.raises(Refused, match="something else"):
        world.ensure_bound(own, target, read_only=False)
    with pytest.raises(Refused, match="something else"):
        world.ensure_unbound(own, target)

    found = world.mounted_at(target)
    assert found is not None
    assert world.is_of(found, str(other))
    world.ensure_unbound(str(other), target)


@pytest.fixture
def root() -> None:
    """What only root may do."""
    if os.geteuid() != 0:
        not_here("mounting needs root")


@pytest.mark.usefixtures("root")
class TestReal:
    def test_flags(self, own: str, tmp_path: Path) -> None:
        """No program runs and no device is opened there, and a read-only mount takes no file, whatever it was before."""
        target = tmp_path / "target"
        mounts.ensure_bound(own, str(target), read_only=False)
        (target / "written").touch()
        mounts.ensure_bound(own, str(target), read_only=True)

        (line,) = table(target)
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
        assert (Path(own) / "written").exists()
        with pytest.raises(OSError, match="Read-only"):
            (target / "again").touch()
        mounts.ensure_unbound(own, str(target))

    def test_stacked(self, own: str, tmp_path: Path) -> None:
        """A target at which it was mounted twice is free after one call."""
        target = tmp_path / "target"
        target.mkdir()
        for _ in range(2):
            subprocess.run(["mount", "--bind", own, target], check=True)

        mounts.ensure_unbound(own, str(target))

        assert table(target) == []

    def test_in_use(self, own: str, tmp_path: Path) -> None:
        """Somebody who still has a file open there does not keep it mounted."""
        target = tmp_path / "target"
        mounts.ensure_bound(own, str(target), read_only=False)
        with (target / "open").open("w") as file:
            mounts.ensure_unbound(own, str(target))
            file.write("x")

        assert table(target) == []

    def test_directory_is_gone(self, own: str, tmp_path: Path) -> None:
        """The mount of a directory that was removed meanwhile is known as its, and goes."""
        target = tmp_path / "target"
        mounts.ensure_bound(own, str(target), read_only=False)
        Path(own).rmdir()

        mounts.ensure_unbound(own, str(target))

        assert table(target) == []

    def test_behind_a_link(self, own: str, tmp_path: Path) -> None:
        """A target that is named by way of a link in its path, as /var/run is one, is found in the mount table."""
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        target = str(tmp_path / "link" / "target")

        mounts.ensure_bound(own, target, read_only=False)
        mounts.ensure_bound(own, target, read_only=False)

        assert len(table(tmp_path / "real")) == 1
        mounts.ensure_unbound(own, target)
        assert table(tmp_path) == []

    def test_owner(self, tmp_path: Path) -> None:
        """A pod's directory is made root's and its group's, whoever had it before, below one that pods do not go through."""
        path = tmp_path / "run" / "pods" / "u"
        directories = OwnDirectories(Guard(settings(tmp_path), lambda: None))

        directories.ensure_pod_directory(str(path), Access(gid=1234))
        path.chmod(0o777)
        directories.ensure_pod_directory(str(path), Access(gid=4321))

        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 4321, 0o2770)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        directories.remove_pod_directory(str(path))
        assert not path.exists()

    def test_mounted_within(self, tmp_path: Path) -> None:
        """What is mounted in a pod's directory is not entered, and keeps it until it is gone."""
        path, other = tmp_path / "pods" / "u", tmp_path / "other"
        for folder in (path / "a" / "m", other):
            folder.mkdir(parents=True)
        (other / "precious").touch()
        subprocess.run(["mount", "--bind", other, path / "a" / "m"], check=True)
        try:
            with pytest.raises(Exception, match="cannot be removed"):
                poddir.remove_pod_directory(str(path))
            assert (other / "precious").exists()
        finally:
            subprocess.run(["umount", path / "a" / "m"], check=True)
        poddir.remove_pod_directory(str(path))
        assert not path.exists()
