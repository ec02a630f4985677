"""The machine, from a root directory of the test's own, and processes that run."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from podvif.host import machine
from podvif.host.machine import Identity, Machine, Pages

FREE, OVERRIDE = 0, 1 << 1


def put(root: Path, path: str, text: str) -> None:
    """A file below the root."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def hugepages(root: Path, size: int, **counts: int) -> None:
    for name in ("nr_hugepages", "free_hugepages", "nr_overcommit_hugepages", "surplus_hugepages"):
        put(root, f"/sys/kernel/mm/hugepages/hugepages-{size}kB/{name}", f"{counts.get(name, 0)}\n")


def test_hugepages(tmp_path: Path) -> None:
    """Each size is told with how many there are and are free, the smallest first; what the kernel may add counts as free."""
    hugepages(tmp_path, 1048576, nr_hugepages=2)
    hugepages(tmp_path, 2048, nr_hugepages=64, free_hugepages=3, nr_overcommit_hugepages=10, surplus_hugepages=4)

    assert Machine(str(tmp_path)).hugepages() == [Pages(2048, 70, 9), Pages(1048576, 2, 0)]


def test_empty_machine(tmp_path: Path) -> None:
    """What this kernel does not have is nothing, and no error."""
    host = Machine(str(tmp_path))

    assert host.hugepages() == []
    assert host.online_processors() == frozenset()
    assert host.selinux() is None
    assert host.cni_configurations("/etc/cni/net.d") == []
    assert host.executables("podvif-cni", ["/opt/cni/bin"]) == []
    assert host.identity(1) is None
    assert host.seen_by(1, "/etc") is None


@pytest.mark.parametrize(("text", "numbers"), [("0-3,8\n", {0, 1, 2, 3, 8}), ("0\n", {0}), ("\n", set())])
def test_processors(tmp_path: Path, text: str, numbers: set[int]) -> None:
    """The kernel's list of processors is understood."""
    put(tmp_path, "/sys/devices/system/cpu/online", text)

    assert Machine(str(tmp_path)).online_processors() == numbers


@pytest.mark.parametrize(("text", "mode"), [("1", "enforcing"), ("0", "permissive")])
def test_selinux(tmp_path: Path, text: str, mode: str) -> None:
    """SELinux is told with its mode."""
    put(tmp_path, "/sys/fs/selinux/enforce", text)

    assert Machine(str(tmp_path)).selinux() == mode


def test_cni_configurations(tmp_path: Path) -> None:
    """Configurations come in the order in which a runtime takes them; other files are none."""
    for name in ("20-b.conflist", "10-a.conf", "00-notes.txt", "30-c.json"):
        put(tmp_path, f"/etc/cni/net.d/{name}", name)
    (tmp_path / "etc/cni/net.d/05-folder.conf").mkdir()

    found = Machine(str(tmp_path)).cni_configurations("/etc/cni/net.d")

    assert [(Path(path).name, data) for path, data in found] == [
        ("10-a.conf", b"10-a.conf"),
        ("20-b.conflist", b"20-b.conflist"),
        ("30-c.json", b"30-c.json"),
    ]


def test_executables(tmp_path: Path) -> None:
    """An executable is found once, however many names lead to it; what may not be executed is none."""
    put(tmp_path, "/opt/cni/bin/podvif-cni", "")
    put(tmp_path, "/usr/lib/cni/podvif-cni", "")
    (tmp_path / "opt/cni/bin/podvif-cni").chmod(0o755)
    (tmp_path / "usr/libexec").mkdir()
    (tmp_path / "usr/libexec/cni").symlink_to(tmp_path / "opt/cni/bin")

    found = Machine(str(tmp_path)).executables("podvif-cni", ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"])

    assert found == [str(tmp_path / "opt/cni/bin/podvif-cni")]


def test_identity() -> None:
    """A process is told with the user and the groups that count for files."""
    who = Machine().identity(os.getpid())

    assert who is not None
    assert (who.uid, who.gid) == (os.geteuid(), os.getegid())
    assert who.groups == frozenset(os.getgroups())
    assert str(os.geteuid()) in who.name


def test_identity_without_a_name() -> None:
    """A user that has no name here is told by number."""
    assert Identity(4_000_000_000, 0).name == "uid 4000000000"


@pytest.mark.parametrize(
    ("who", "mode", "may"),
    [
        (Identity(1, 9), 0o100, True),
        (Identity(1, 9), 0o011, False),
        (Identity(2, 1), 0o010, True),
        (Identity(2, 1), 0o101, False),
        (Identity(2, 9, frozenset({1})), 0o010, True),
        (Identity(2, 9), 0o001, True),
        (Identity(2, 9), 0o770, False),
        (Identity(2, 9, capabilities=1 << 1), 0o000, True),
        (Identity(2, 9, capabilities=1 << 2), 0o000, True),
        (Identity(2, 9, capabilities=1 << 3), 0o000, False),
    ],
)
def test_may_enter(who: Identity, mode: int, *, may: bool) -> None:
    """A directory of user 1 and group 1 is entered by whom its mode or a capability lets in, the nearest class alone counting."""
    assert who.may_enter(os.stat_result((0o040000 | mode, 0, 0, 1, 1, 1, 0, 0, 0, 0))) is may


def test_why_not_reachable(tmp_path: Path) -> None:
    """The first closed directory on the way is named; what is missing is not."""
    stranger = Identity(4_000_000_000, 4_000_000_000)
    closed = tmp_path / "closed"
    (closed / "in").mkdir(parents=True)
    for path in (*reversed(tmp_path.parents), tmp_path):
        if not stranger.may_enter(path.stat()):
            closed = path  # pytest's folder is closed to others already
            break
    else:
        closed.chmod(0o700)

    assert machine.why_not_reachable(stranger, str(tmp_path / "closed/in")) == str(closed)
    assert machine.why_not_reachable(Identity(0, 0, capabilities=OVERRIDE), str(tmp_path / "closed/in")) is None
    assert machine.why_not_reachable(Identity(0, 0, capabilities=OVERRIDE), "/no/where") is None


def test_seen_by(tmp_path: Path) -> None:
    """A process in our own root sees what we see."""
    if os.geteuid() != 0 and not os.access(f"/proc/{os.getpid()}/root/.", os.X_OK):
        pytest.skip("this machine does not let a process look at its own root")
    assert Machine().seen_by(os.getpid(), str(tmp_path)) is True


def test_seen_by_another_root(tmp_path: Path) -> None:
    """A process whose root has something else at the path, or nothing, does not see what we see."""
    inside = tmp_path / "proc/7/root"
    (inside / str(tmp_path).lstrip("/")).mkdir(parents=True)
    host = Machine(str(tmp_path))

    assert host.seen_by(7, str(tmp_path)) is False
    assert host.seen_by(7, str(inside)) is False


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_pid_file_of_the_living(tmp_path: Path) -> None:
    """A daemon that holds its pid file's lock lives, whatever number is in it; without it, it is dead."""
    path = tmp_path / "ovs-vswitchd.pid"
    assert machine.pid_file(str(path)) is None

    path.write_text("1\n")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert machine.pid_file(str(path)) == machine.PidFile(str(path), alive=True, pid=holder.pid)
        holder.kill()
        holder.communicate()

    assert machine.pid_file(str(path)) == machine.PidFile(str(path), alive=False, pid=None)


def test_vswitchd(tmp_path: Path) -> None:
    """Of several pid files the one of a living vswitchd counts, wherever it lies; of dead ones the first."""
    rundirs = [str(tmp_path / name) for name in ("none", "one", "two")]
    assert machine.vswitchd(rundirs) is None

    for rundir in rundirs[1:]:
        Path(rundir).mkdir()
        Path(rundir, "ovs-vswitchd.pid").write_text("1\n")
    assert machine.vswitchd(rundirs) == machine.PidFile(f"{rundirs[1]}/ovs-vswitchd.pid", alive=False, pid=None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, f"{rundirs[2]}/ovs-vswitchd.pid"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert machine.vswitchd(rundirs) == machine.PidFile(
            f"{rundirs[2]}/ovs-vswitchd.pid", alive=True, pid=holder.pid
        )
        holder.kill()


def test_pid_file_is_not_locked_by_looking(tmp_path: Path) -> None:
    """Looking leaves the lock to the daemon."""
    path = tmp_path / "pid"
    path.touch()
    machine.pid_file(str(path))

    with path.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
