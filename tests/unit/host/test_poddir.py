"""A pod's own directory goes, whatever the pod has left in it; owners stand in test_rights.py."""

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif.errors import PodvifError
from podvif.host import poddir


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A pod's own directory."""
    path = tmp_path / "pods" / "u"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Room for a few more descriptors than are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_with_everything(own: Path, tmp_path: Path) -> None:
    """Files, sockets, FIFOs, directories and links go, and what the links point to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (own / "file").touch()
    (own / "folder" / "within").mkdir(parents=True)
    (own / "folder" / "within" / "file").touch()
    (own / "folder" / "within" / "link").symlink_to(outside)
    (own / "link").symlink_to(outside)
    (own / "file link").symlink_to(outside / "precious")
    os.mkfifo(own / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own / "vhu"))

    poddir.remove_pod_directory(str(own))

    assert not own.exists()
    assert (outside / "precious").read_text() == "x"
    poddir.remove_pod_directory(str(own))


@pytest.mark.usefixtures("few_descriptors")
def test_deep(own: Path) -> None:
    """Directories in directories, deeper than a path can be long, use up neither descriptors nor the stack."""
    above = os.open(own, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)

    poddir.remove_pod_directory(str(own))

    assert not own.exists()


def test_wide(own: Path) -> None:
    """Many directories with many in each go."""
    for one in range(20):
        for other in range(20):
            (own / str(one) / str(other) / "x").mkdir(parents=True)

    poddir.remove_pod_directory(str(own))

    assert not own.exists()


def test_a_link_in_its_place(own: Path, tmp_path: Path) -> None:
    """A link in the directory's own place is not followed."""
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    own.rmdir()
    own.symlink_to(outside)

    with pytest.raises(PodvifError):
        poddir.remove_pod_directory(str(own))

    assert (outside / "x").exists()


def test_nothing_there(tmp_path: Path) -> None:
    """A directory that was never made is gone already, and so is one whose parent was not."""
    poddir.remove_pod_directory(str(tmp_path / "u"))
    poddir.remove_pod_directory(str(tmp_path / "none" / "u"))
