"""The container runtime's two directories of CNI: the plugin's executable and the configuration that names it.

Law: what a runtime may read at any moment appears whole, by a rename in the same directory, and only what is ours is written over
or removed.  A call that runs keeps the executable that it was started from.
"""

import contextlib
import os
import stat

import msgspec

from podvif import errors
from podvif.errors import Refused
from podvif.host import files

PLUGIN = "podvif-cni"

ENDINGS = (".conflist", ".conf", ".json")
"""Names that runtimes take for configurations; a temporary file has none of them."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def put_executable(source: str, directory: str) -> bool:
    """Put the plugin into the runtime's directory; false when the same is there already.

    Raises:
        Refused: the source cannot be read, or the directory cannot be written to.
        Retry: the disk is full or an I/O error.
    """
    try:
        with open(source, "rb") as file:  # noqa: PTH123
            data = file.read()
    except OSError as error:
        raise Refused(
            f"the CNI plugin {source} cannot be read: {error.strerror}",
            "it comes with the podvif package: name it with --plugin",
            code=errors.IO_FAILURE,
        ) from error
    return _put(directory, PLUGIN, data, 0o755)


def put_configuration(text: str, directory: str, name: str) -> bool:
    """Put a configuration that names the plugin; false when the same is there already.

    Raises:
        Refused: a configuration of somebody else's has that name, or the directory cannot be written to.
        Retry: the disk is full or an I/O error.
    """
    found = _read(directory, name)
    if found is not None and not names_plugin(found):
        raise Refused(
            f"{directory}/{name} is there and does not name {PLUGIN}: it is somebody else's",
            "give ours another name, or remove that one",
        )
    return _put(directory, name, text.encode(), 0o644)


def remove_executable(directory: str) -> bool:
    """Remove the plugin; false when there is none.

    Raises:
        Refused: it cannot be removed.
    """
    return _remove(directory, PLUGIN)


def remove_configuration(directory: str, name: str) -> bool:
    """Remove our configuration; false when there is none of that name, or it does not name the plugin.

    Raises:
        Refused: it cannot be removed.
    """
    found = _read(directory, name)
    return found is not None and names_plugin(found) and _remove(directory, name)


def names_plugin(data: bytes) -> bool:
    """Whether a CNI configuration, a list or a single plugin's, names our plugin."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    plugins = document.get("plugins", [document])
    return isinstance(plugins, list) and any(
        isinstance(plugin, dict) and plugin.get("type") == PLUGIN for plugin in plugins
    )


def _read(directory: str, name: str) -> bytes | None:
    try:
        with open(f"{directory}/{name}", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return None


def _put(directory: str, name: str, data: bytes, mode: int) -> bool:
    """Write, sync and rename: after a loss of power a runtime must not find a file of no bytes."""
    if _read(directory, name) == data and _mode(f"{directory}/{name}") == mode:
        return False
    temporary = files.temporary_name(name)  # one name: what a killed installer leaves is taken by the next
    with files.opened(directory) as parent:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            descriptor = os.open(temporary, _NEW, mode, dir_fd=parent)
            with open(descriptor, "wb") as file:  # noqa: PTH123
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise files.io_error(error, f"{directory}/{name} cannot be written") from error
    return True


def _mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def _remove(directory: str, name: str) -> bool:
    there = files.present(directory, [name])
    files.remove(directory, [files.temporary_name(name), name])
    return there


def remove_directory(path: str) -> bool:
    """Remove a directory that is empty, or the one that a link of that name leads to; false when it is not, or there is none."""
    try:
        os.rmdir(os.path.realpath(path))  # noqa: PTH106
    except OSError:
        return False
    return True
