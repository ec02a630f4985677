"""What this machine is: hugepages, processors, SELinux, CNI's directories, and the process behind a pid file.

Law: everything is read from the kernel's and the distributions' own files, below one root directory, and nothing is changed.
What cannot be read is None or empty, never an error: whether that matters is for the one who asks.
"""

import errno
import fcntl
import os
import pwd
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

import msgspec

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) with 64-bit offsets, as every 64-bit Linux has it
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # linux/capability.h
_CNI_ENDINGS = frozenset({".conf", ".conflist", ".json"})  # libcni ConfFiles


class Pages(msgspec.Struct, frozen=True):
    """Hugepages of one size: how many there are, and how many could still be taken."""

    size_kib: int
    total: int
    free: int


class Identity(msgspec.Struct, frozen=True):
    """As whom a process acts on files (proc(5), status)."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    capabilities: int = 0

    @property
    def name(self) -> str:
        """The user, by name and number where it has a name here."""
        try:
            return f"{pwd.getpwuid(self.uid).pw_name} (uid {self.uid})"
        except KeyError:
            return f"uid {self.uid}"

    def passes_everywhere(self) -> bool:
        """Whether rights of files mean nothing to it."""
        return bool(self.capabilities & (1 << _DAC_OVERRIDE))

    def may_enter(self, found: os.stat_result) -> bool:
        """Whether it may go through a directory."""
        if self.capabilities & (1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH):
            return True
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid or found.st_gid in self.groups:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


class Machine:
    """The machine whose root directory is `root`."""

    def __init__(self, root: str = "/") -> None:
        """Take the root directory; a test has one of its own."""
        self._root = Path(root)

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def hugepages(self) -> list[Pages]:
        """The sizes of hugepages that the kernel has, smallest first; pages that it may still make count as free."""
        found = []
        for folder in self._at("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
            size = folder.name.removeprefix("hugepages-").removesuffix("kB")
            more = max(0, _number(folder / "nr_overcommit_hugepages") - _number(folder / "surplus_hugepages"))
            total = _number(folder / "nr_hugepages") + more
            found.append(Pages(int(size), total, _number(folder / "free_hugepages") + more))
        return sorted(found, key=lambda pages: pages.size_kib)

    def online_processors(self) -> frozenset[int]:
        """The processors that are online."""
        return _numbers(_text(self._at("/sys/devices/system/cpu/online")))

    def selinux(self) -> str | None:
        """`enforcing` or `permissive`; None when this kernel does not use SELinux, or it cannot be seen from here."""
        mode = _text(self._at("/sys/fs/selinux/enforce")).strip()
        return {"1": "enforcing", "0": "permissive"}.get(mode)

    def cni_configurations(self, directory: str) -> list[tuple[str, bytes]]:
        """Paths and contents of the configurations in `directory`, in the order in which runtimes take them."""
        try:
            paths = sorted(path for path in self._at(directory).iterdir() if path.suffix in _CNI_ENDINGS)
        except OSError:
            return []
        return [(str(path), _bytes(path)) for path in paths if path.is_file()]

    def executables(self, name: str, directories: Iterable[str]) -> list[str]:
        """Paths of the executables called `name` in the directories, each once, however many names lead to it."""
        found: dict[Path, str] = {}
        for directory in directories:
            path = self._at(f"{directory}/{name}")
            if path.is_file() and os.access(path, os.X_OK):
                found.setdefault(path.resolve(), str(path))
        return list(found.values())

    def identity(self, pid: int) -> Identity | None:
        """As whom a process acts on files; None when there is no such process to be seen."""
        fields = dict(
            line.split(":", 1)
            for line in _text(self._at(f"/proc/{pid}/status")).splitlines()
            if line.startswith(("Uid:", "Gid:", "Groups:", "CapEff:"))
        )
        try:
            return Identity(
                uid=int(fields["Uid"].split()[3]),  # of the file system's checks
                gid=int(fields["Gid"].split()[3]),
                groups=frozenset(map(int, fields["Groups"].split())),
                capabilities=int(fields["CapEff"], 16),
            )
        except (KeyError, ValueError, IndexError):
            return None

    def seen_by(self, pid: int, path: str) -> bool | None:
        """Whether a process finds at `path` what we find there; None when its root cannot be looked into.

        In a container it may find nothing there, or something else.
        """
        root = self._at(f"/proc/{pid}/root")
        try:
            theirs = os.stat(f"{root}{path}")  # noqa: PTH116
        except OSError as error:
            return False if error.errno == errno.ENOENT and os.access(f"{root}/.", os.X_OK) else None
        ours = os.stat(path)  # noqa: PTH116
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


class PidFile(msgspec.Struct, frozen=True):
    """A daemon's pid file.

    Attributes:
        path: where it lies.
        alive: whether its daemon runs.
        pid: the daemon's process id, None when it is dead or in a pid namespace that we do not see.
    """

    path: str
    alive: bool
    pid: int | None


def pid_file(path: str) -> PidFile | None:
    """What a daemon of Open vSwitch's left at `path`, None when nothing lies there (or may be read).

    It holds a lock on the file for as long as it lives (OVS lib/daemon-unix.c), which says more than the number in it: that may
    be another process's by now, and in a container means nothing outside of it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    alive = kind != fcntl.F_UNLCK
    return PidFile(path, alive, pid if alive and pid > 0 else None)


def vswitchd(rundirs: Iterable[str]) -> PidFile | None:
    """ovs-vswitchd's pid file, sought in `rundirs`: the first whose daemon lives, else the first of a dead one, else None."""
    dead = None
    for directory in rundirs:
        found = pid_file(f"{directory}/ovs-vswitchd.pid")
        if found is not None and found.alive:
            return found
        dead = dead or found
    return dead


def why_not_reachable(who: Identity, directory: str) -> str | None:
    """The first directory on the way to and including `directory` that `who` may not enter, or None."""
    for path in (*reversed(Path(directory).parents), Path(directory)):
        try:
            found = path.stat()
        except OSError:
            return None  # that it is missing is another's question
        if not who.may_enter(found):
            return str(path)
    return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _numbers(text: str) -> frozenset[int]:
    """A kernel's list of numbers: 0-3,8."""
    found: set[int] = set()
    for piece in text.strip().split(","):
        first, _, last = piece.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
