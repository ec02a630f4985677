"""Bind mounts: a directory shown at another place too.

Law: the kernel's mount table says what is mounted, and is asked each time.  mount(2) is called itself: the programs around
it are a dependency that an image need not have.  What lies at a target is never followed when it is a link, and a mount
that is not of the directory in question is never taken away.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from podvif import errors
from podvif.errors import Bug, Refused, Retry

# linux/mount.h
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
_DETACH, _NOFOLLOW = 0x2, 0x8  # umount2(2)
_FLAGS = _NOSUID | _NODEV | _NOEXEC
_STACKED_MAX = 64
_libc = ctypes.CDLL(None, use_errno=True)


def ensure_bound(directory: str, target: str, *, read_only: bool) -> None:
    """Have `directory` mounted at `target`, which is made when it is missing, without devices, set-uid programs or programs.

    Raises:
        Refused: something else is there, or the kernel refuses it.
        Retry: an I/O error.
    """
    try:
        if not os.path.lexists(target):
            os.mkdir(target, 0o750)  # noqa: PTH102  its parent is the caller's to make (CSI spec, "NodePublishVolume")
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            raise Refused(f"{target} is no directory", "remove what lies there", code=errors.IO_FAILURE)
        if not _is_same(directory, target):
            if (found := mounted_at(target)) is not None:
                raise Refused(
                    f"something else is mounted at {target}: {found.root}", f"umount {target}", code=errors.IO_FAILURE
                )
            _mount(directory, target, _BIND)
        # Each time: a daemon that was killed between the two has left it without its flags.
        _mount(directory, target, _BIND | _REMOUNT | _FLAGS | (_RDONLY if read_only else 0))
    except OSError as error:
        raise _translated(error, f"{directory} cannot be mounted at {target}") from error


def ensure_unbound(directory: str, target: str) -> None:
    """Have nothing mounted at `target`, and `target` gone; gone already is fine.

    Raises:
        Refused: something other than `directory` is mounted there, or something lies in it.
        Retry: an I/O error.
    """
    try:
        for _ in range(_STACKED_MAX):
            found = mounted_at(target)
            if found is None:
                break
            if not is_of(found, directory):
                raise Refused(
                    f"something else than {directory} is mounted at {target}: {found.root}",
                    f"look at it with findmnt {target}",
                    code=errors.IO_FAILURE,
                )
            # Detached at once: who still has a file open there keeps that file, and nobody finds the way to it any more.
            _checked(_libc.umount2(os.fsencode(target), _DETACH | _NOFOLLOW), target)
        else:
            raise Bug(f"{target} is a mount point after {_STACKED_MAX} unmounts")
        os.rmdir(target)  # noqa: PTH106
    except FileNotFoundError:
        return
    except OSError as error:
        raise _translated(error, f"{target} cannot be unmounted and removed") from error


class Place(NamedTuple):
    """A directory as the mount table names it: number of the file system, and path from its root.

    Of a directory that was removed meanwhile the path ends with `//deleted`.
    """

    device: str
    root: str


def mounted_at(target: str) -> Place | None:
    """What is mounted at `target` (uppermost), None when it is no mount point."""
    wanted, found = _resolved(target), None
    for point, place in _table():
        if point == wanted:
            found = place
    return found


def mount_points(among: Collection[str]) -> set[str]:
    """Those of the paths at which something is mounted; the table is read once, however many they are."""
    points = {point for point, _ in _table()}
    return {path for path in among if _resolved(path) in points}


def is_of(place: Place, directory: str) -> bool:
    """Whether that is the directory, which need not be there any more."""
    resolved, holder = _resolved(directory), ("", Place("", ""))
    for point, mounted in _table():
        inside = resolved == point or resolved.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(holder[0]):
            holder = point, mounted
    point, mounted = holder
    root = f"{mounted.root.rstrip('/')}/{resolved[len(point) :].strip('/')}"
    return (place.device, place.root.removesuffix("//deleted")) == (mounted.device, root)


def _resolved(path: str) -> str:
    parent, name = os.path.split(path.rstrip("/"))
    return f"{os.path.realpath(parent).rstrip('/')}/{name}"


def _table() -> Iterator[tuple[str, Place]]:
    """Mount points and what is mounted there (proc(5), "mountinfo"), in the order in which the kernel looks through them."""
    # Bytes, and newlines alone: the kernel escapes nothing else, and a pod's subPath may hold what str.splitlines takes for one.
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError as error:
        raise Retry(f"the mount table cannot be read: {error.strerror}", "look at the limit of open files") from error
    for line in table.split(b"\n"):
        if line:
            _, _, device, root, point, _ = os.fsdecode(line).split(" ", 5)
            yield _unescaped(point), Place(device, _unescaped(root))


def _is_same(directory: str, target: str) -> bool:
    left, right = os.stat(directory), os.lstat(target)  # noqa: PTH116
    return (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)


def _mount(source: str, target: str, flags: int) -> None:
    flags_long = ctypes.c_ulong(flags)
    _checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, flags_long, None), target)


def _checked(result: int, path: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _unescaped(field: str) -> str:
    # Space, tab, newline and backslash are written as octal numbers.
    parts = field.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])


def _translated(error: OSError, what: str) -> Refused | Retry:
    message = f"{what}: {error.strerror}"
    match error.errno:
        case errno.EPERM:
            return Refused(message, "podvif has to run as root with CAP_SYS_ADMIN", code=errors.IO_FAILURE)
        case errno.ENOENT | errno.ENOTDIR | errno.ENOTEMPTY | errno.EEXIST | errno.ELOOP | errno.EACCES | errno.EROFS:
            return Refused(message, "look at the path and its rights", code=errors.IO_FAILURE)
    return Retry(message, "look at the path", code=errors.IO_FAILURE)
