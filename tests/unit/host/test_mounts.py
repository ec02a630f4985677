"""The mount table; what mounts and unmounts stands in tests/contract/test_mounts.py, since it takes root."""

from pathlib import Path

import pytest

from podvif.errors import PodvifError, Refused
from podvif.host import mounts


def test_mount_point() -> None:
    """What is mounted at a mount point is told by its file system and the directory in it."""
    found = mounts.mounted_at("/proc")

    assert found is not None
    assert (found.root, found.device.partition(":")[0]) == ("/", "0")
    assert mounts.mounted_at("/proc/") == found


def test_no_mount_point(tmp_path: Path) -> None:
    """Nothing is mounted at a directory, at a file, or where nothing is."""
    (tmp_path / "file").touch()

    assert [mounts.mounted_at(str(path)) for path in (tmp_path, tmp_path / "file", tmp_path / "none" / "x")] == [
        None
    ] * 3


def test_mount_points(tmp_path: Path) -> None:
    """Of several paths those at which something is mounted are told, as they were written."""
    (tmp_path / "link").symlink_to("/")
    behind = str(tmp_path / "link" / "proc")

    assert mounts.mount_points(["/proc/", behind, str(tmp_path), "/none/x"]) == {"/proc/", behind}


def test_is_of() -> None:
    """A directory is known by its place in its file system, also when it was removed, and another is not."""
    device = mounts.mounted_at("/proc")
    assert device is not None

    place = mounts.Place(device.device, "/sys/x")

    assert mounts.is_of(place, "/proc/sys/x")
    assert mounts.is_of(mounts.Place(device.device, "/sys/x//deleted"), "/proc/sys/x")
    assert not mounts.is_of(place, "/proc/other/x")
    assert not mounts.is_of(mounts.Place("9:9", "/sys/x"), "/proc/sys/x")


@pytest.mark.parametrize("name", ["file", "link", "none/x"])
def test_target_is_no_directory(tmp_path: Path, name: str) -> None:
    """Over something that is no directory, a link to one among them, nothing is mounted, and nothing without a parent is made."""
    (tmp_path / "own").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(Refused):
        mounts.ensure_bound(str(tmp_path / "own"), str(tmp_path / name), read_only=False)

    assert not (tmp_path / "none").exists()


def test_unbound_already(tmp_path: Path) -> None:
    """A target where nothing is mounted is removed, and one that is gone is fine."""
    (tmp_path / "target").mkdir()

    for _ in range(2):
        mounts.ensure_unbound("/run/podvif/pods/u", str(tmp_path / "target"))
        assert not (tmp_path / "target").exists()


def test_target_is_not_empty(tmp_path: Path) -> None:
    """What lies in a target where nothing is mounted is somebody else's, and stays."""
    (tmp_path / "target" / "x").mkdir(parents=True)

    with pytest.raises(PodvifError, match="not empty"):
        mounts.ensure_unbound("/run/podvif/pods/u", str(tmp_path / "target"))

    assert (tmp_path / "target" / "x").exists()


def test_names_with_spaces() -> None:
    """The table's octal numbers are read."""
    assert mounts._unescaped(r"/a\040b\134c") == r"/a b\c"
