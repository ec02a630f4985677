"""Files in directories that a pod can write to.

Law: the pod may put a link, a FIFO or a directory anywhere under the names we use.  So a directory is opened once, names in
it are reached by its descriptor, no link is followed, nothing is opened that could block, and a text appears whole under
its final name or not at all (temp file and rename in the same directory).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from podvif import errors
from podvif.errors import Refused, Retry
from podvif.host import sockdiag
from podvif.model import SocketFile

_TEXT_MAX = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def opened(directory: str) -> Iterator[int]:
    """The descriptor of a directory.

    Raises:
        Refused: it is missing or no directory; CNI code 5.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"directory {directory} cannot be opened: {error.strerror}", "make it", code=errors.IO_FAILURE
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_directory(path: str) -> bool:
    """Whether there is a directory."""
    return os.path.isdir(path)  # noqa: PTH112


def write_texts(directory: str, texts: Mapping[str, str], mode: int = 0o644) -> None:
    """Put each text under its name, atomically one by one.

    Raises:
        Retry: the disk is full or an I/O error.
        Refused: the directory is missing, or a directory lies at a name.
    """
    with opened(directory) as parent:
        for name, text in texts.items():
            _write_text(parent, directory, name, text, mode)


def _write_text(parent: int, directory: str, name: str, text: str, mode: int) -> None:
    # One name per file, so that what a killed daemon left behind is written over by the next and found by a remove.
    temporary = temporary_name(name)
    try:
        try:
            descriptor = os.open(temporary, _NEW, mode, dir_fd=parent)
        except FileExistsError:
            os.unlink(temporary, dir_fd=parent)
            descriptor = os.open(temporary, _NEW, mode, dir_fd=parent)
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, text.encode())
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise io_error(error, f"{directory}/{name} cannot be written") from error


def _write_all(descriptor: int, data: bytes) -> None:
    # A disk that fills up takes a part first and says so only at the next write.
    while data:
        data = data[os.write(descriptor, data) :]


def temporary_name(name: str) -> str:
    """Where a text is written before it gets its name."""
    return f".{name}.new"


def read_text(directory: str, name: str) -> str | None:
    """The text under that name; None when there is none, or what is there is no plain file of a size we would write."""
    try:
        with opened(directory) as parent:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except (OSError, Refused):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, _TEXT_MAX).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def present(directory: str, names: Iterable[str]) -> bool:
    """Whether anything lies under one of the names that is not a directory: we make none, so that is somebody else's."""
    return any(_is_no_directory(f"{directory}/{name}") for name in names)


def _is_no_directory(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def remove(directory: str, names: Iterable[str]) -> None:
    """Remove what lies under the names, whatever it is but a directory; gone already is fine.

    Raises:
        Refused: a directory lies there.
        Retry: an I/O error.
    """
    try:
        with opened(directory) as parent:
            for name in names:
                _remove(parent, directory, name)
    except Refused as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return
        raise


def _remove(parent: int, directory: str, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise io_error(error, f"{directory}/{name} cannot be removed") from error


def move(source: str, target: str) -> None:
    """Rename, over what is there: for a socket this keeps its listener.

    Raises:
        Refused: the two lie on two file systems (EXDEV), or a directory lies at the target.
        Retry: the source is gone, or an I/O error.
    """
    try:
        os.rename(source, target)  # noqa: PTH104
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise cross_device(source, target) from error
        raise io_error(error, f"{source} cannot be moved to {target}") from error


def cross_device(source: str, target: str) -> Refused:
    """The error for a rename across file systems: never worked around by copying, which would lose the listener."""
    return Refused(
        f"{source} cannot be moved to {target}: they lie on two file systems (EXDEV)",
        "put [vhostuser] ovs_vhu_path and the directory that pods mount (mount_point, [node] run_dir) on one mount",
        code=errors.IO_FAILURE,
    )


def why_not_movable(source: str, target: str) -> str | None:
    """Why a file made in directory `source` cannot be renamed into `target`: tried, with a file that is removed again."""
    name = ".podvif-probe"  # one name: what a killed daemon leaves is taken by the next try
    for directory in (source, target):
        if not is_directory(directory):
            return f"directory {directory} is missing"
    try:
        descriptor = os.open(f"{source}/{name}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        move(f"{source}/{name}", f"{target}/{name}")
    except OSError as error:
        return f"no file can be made in {source}: {error.strerror}"
    except (Refused, Retry) as error:
        # A directory of that name is the pods' doing; the kernel has looked at the mounts before it looked at that.
        return None if isinstance(error.__cause__, IsADirectoryError) else error.message
    finally:
        for directory in (source, target):
            with contextlib.suppress(OSError):
                os.unlink(f"{directory}/{name}")  # noqa: PTH108
    return None


def io_error(error: OSError, what: str) -> Refused | Retry:
    """An OSError in our words: a full disk passes, a directory in the way does not."""
    if error.errno in {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EACCES, errno.EPERM, errno.EROFS}:
        return Refused(f"{what}: {error.strerror}", "look at the path and its rights", code=errors.IO_FAILURE)
    remedy = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "look at the path"
    return Retry(f"{what}: {error.strerror}", remedy, code=errors.IO_FAILURE)


def look_at_socket(path: str, namespaces: Iterable[str | None]) -> SocketFile:
    """What lies at a socket's path, and whether somebody in one of the namespaces is bound to it.

    A namespace that is gone has no sockets.  None stands for our own.

    Raises:
        Retry: a namespace cannot be looked into.
        Refused: the kernel cannot list Unix sockets.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return SocketFile.ABSENT
    if stat.S_ISDIR(found.st_mode):
        return SocketFile.DIRECTORY
    if not stat.S_ISSOCK(found.st_mode):
        return SocketFile.OTHER
    for namespace in namespaces:
        try:
            bound = sockdiag.is_bound(path, found, namespace)
        except FileNotFoundError:
            continue
        except OSError as error:
            # Not knowing is not the same as nobody: the socket may live.
            raise Retry(f"podvif cannot look whether {path} is in use: {error}", "it has to run as root") from error
        if bound:
            return SocketFile.BOUND
    return SocketFile.DEAD


def remove_dead_socket(path: str, namespaces: Iterable[str | None]) -> None:
    """Remove a socket that nobody is bound to, or what lies in its place; what turns out to live stays.

    Looked at twice: between the making of the file and the kernel's note of who is bound to it lies a moment of bind(2).

    Raises:
        Retry: an I/O error.
        Refused: a directory lies there.
    """
    before = _inode(path)
    looks = {look_at_socket(path, namespaces), look_at_socket(path, namespaces)}
    now = _inode(path)
    if now is None or now != before or SocketFile.BOUND in looks:
        return
    directory, _, name = path.rpartition("/")
    if SocketFile.DIRECTORY in looks:
        remove(directory, [name])  # refuses it, with its name
    # Put aside first and looked at once more there, where nobody binds: between the looks and an unlink the application may
    # come, and a file system may give its new file the inode of the old one.  If it did, it gets its socket back.
    aside = temporary_name(name)
    move(path, f"{directory}/{aside}")
    if look_at_socket(f"{directory}/{aside}", namespaces) is SocketFile.BOUND:
        try:
            os.link(f"{directory}/{aside}", path)
        except FileExistsError:
            pass  # another listens there by now, and this one has lost its name to it as in any bind after an unlink
        except OSError as error:
            raise io_error(error, f"{path}, in use, cannot be put back from {aside}") from error
    remove(directory, [aside])


def _inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None
