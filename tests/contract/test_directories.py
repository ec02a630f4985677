"""What only real file systems do: two of them, and a full one."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from podvif import errors, names
from podvif.errors import PodvifError, Refused, Retry
from podvif.host import files
from podvif.lab.process import LabError
from podvif.lab.tmpfs import tmpfs as mounted
from podvif.model import Attachment, Entry, Goal, SocketFile
from podvif.node.journal import Journal
from tests.contract.conftest import not_here
from tests.fakes.node import Node
from tests.fakes.values import ATTACHMENT, config, entry

Mount = Callable[[str, str], Path]
OTHER = Attachment("beef", "net1")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a small tmpfs of that size under a name; all are gone at the end."""
    if os.geteuid() != 0:
        not_here("mounting a tmpfs needs root")
    with contextlib.ExitStack() as stack:

        def mount(name: str, size: str) -> Path:
            try:
                return stack.enter_context(mounted(tmp_path / name, size))
            except LabError as error:
                not_here(f"no tmpfs can be mounted here: {error}")

        yield mount


def fill(folder: Path, leave: int) -> Path:
    """Fill a file system but for so many bytes; returns the file that does."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        free = shutil.disk_usage(folder).free - leave
        file.write(b"\0" * free)
    return ballast


def test_two_file_systems(tmpfs: Mount) -> None:
    """Between two tmpfs nothing can be moved, which the probe and the move say with EXDEV and both paths."""
    ovs, pods = tmpfs("ovs", "64k"), tmpfs("pods", "64k")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(ovs / "vhu"))

        reason = files.why_not_movable(str(ovs), str(pods))
        assert "two file systems (EXDEV)" in (reason or "")
        with pytest.raises(Refused, match=f"{ovs}/vhu cannot be moved to {pods}/vhu: .*EXDEV") as caught:
            files.move(f"{ovs}/vhu", f"{pods}/vhu")

        assert (caught.value.code, "on one mount" in caught.value.remedy) == (errors.IO_FAILURE, True)
        assert files.look_at_socket(f"{ovs}/vhu", [None]) is SocketFile.BOUND
    assert [path.name for path in ovs.iterdir()] == ["vhu"]
    assert list(pods.iterdir()) == []


def test_one_file_system(tmpfs: Mount) -> None:
    """Between two directories of one tmpfs a socket can be moved, and lives on."""
    root = tmpfs("run", "64k")
    for name in ("ovs", "pods"):
        (root / name).mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "ovs" / "vhu"))
        assert files.why_not_movable(f"{root}/ovs", f"{root}/pods") is None
        files.move(f"{root}/ovs/vhu", f"{root}/pods/vhu")

        assert files.look_at_socket(f"{root}/pods/vhu", [None]) is SocketFile.BOUND


def test_bind_mount_of_one_file_system(tmpfs: Mount, tmp_path: Path) -> None:
    """Two mounts of one file system are two as well: rename does not cross mounts, which the probe finds."""
    root = tmpfs("run", "64k")
    for name in ("ovs", "pods"):
        (root / name).mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", str(root / "pods"), str(elsewhere)], check=True)
    try:
        assert "(EXDEV)" in (files.why_not_movable(f"{root}/ovs", str(elsewhere)) or "")
    finally:
        subprocess.run(["umount", str(elsewhere)], check=True)


# Room for nothing, and for the first page of a text of several.
@pytest.mark.parametrize("room", [0, 4096])
def test_full_disk(tmpfs: Mount, room: int) -> None:
    """On a full disk a text is not written in part: the former one stands, nothing is beside it, and a Retry has the path."""
    folder = tmpfs("full", "64k")
    files.write_texts(str(folder), {"name": "former"})
    ballast = fill(folder, room)

    with pytest.raises(Retry, match=f"{folder}/name cannot be written: No space left") as caught:
        files.write_texts(str(folder), {"name": "x" * 10_000})

    assert (caught.value.code, caught.value.remedy) == (errors.IO_FAILURE, "free some space")
    assert (folder / "name").read_text() == "former"
    assert sorted(path.name for path in folder.iterdir()) == ["ballast", "name"]
    ballast.unlink()
    files.write_texts(str(folder), {"name": "x" * 10_000})


def _large(made: Entry) -> Entry:
    return msgspec.structs.replace(made, network="n" * 10_000)


def test_journal_on_a_full_disk(tmpfs: Mount) -> None:
    """On a full disk the journal keeps what it has, takes no new entry, and can still note that one leaves, and forget it."""
    state = tmpfs("state", "64k")
    journal = Journal(str(state))
    journal.put(entry())
    fill(state, 0)

    with pytest.raises(Retry, match=names.journal_file(OTHER, Goal.ATTACHED)):
        journal.put(_large(entry(attachment=OTHER)))
    journal.mark(_large(entry(goal=Goal.LEAVING)))

    assert Journal(str(state)).all() == [entry(goal=Goal.LEAVING)]
    journal.remove(ATTACHMENT)
    assert Journal(str(state)).all() == []


async def test_add_and_del_on_a_full_disk(tmpfs: Mount, tmp_path: Path) -> None:
    """With a full state_dir ADD fails with the path and leaves nothing, while DEL of what stands leaves nothing too."""
    state = tmpfs("node/state", "64k")
    node = Node(tmp_path / "node")
    network = config(vhostuserMode="client", ipam={"type": "fake", "long": "x" * 8_000})
    await node.call("ADD", network)
    ballast = fill(state, 0)

    with pytest.raises(PodvifError, match=f"{state}/attachments/.* cannot be written") as caught:
        await node.call("ADD", network, OTHER)
    assert caught.value.code == errors.IO_FAILURE
    await node.call("DEL", config())
    assert node.left() == []

    ballast.unlink()
    await node.call("ADD", network, OTHER)
    await node.call("DEL", config(), OTHER)
    assert node.left() == []
    await node.switch.close()


async def test_add_on_two_file_systems(tmpfs: Mount, tmp_path: Path) -> None:
    """A client-mode ADD with the two directories on two file systems fails with EXDEV and leaves nothing; STATUS says so."""
    tmpfs("node/pods", "64k")
    node = Node(tmp_path / "node")

    with pytest.raises(PodvifError, match="EXDEV") as caught:
        await node.call("ADD", config(vhostuserMode="client"))

    assert caught.value.code == errors.IO_FAILURE
    assert node.left() == []
    with pytest.raises(PodvifError, match="EXDEV"):
        await node.call("STATUS")
    assert await node.call("ADD", config(vhostuserMode="server"))
    await node.switch.close()
