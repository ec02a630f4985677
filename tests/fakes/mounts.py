"""A mount table in memory, and pods' directories without owners: what a test may have that is not root.

It refuses what the kernel refuses: a target that is no directory, a mount over a foreign one, the removal of what is not
empty.  `tests/contract/test_mounts.py` runs it beside the real one.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from podvif import errors
from podvif.errors import Refused
from podvif.host import poddir
from podvif.host.mounts import Place
from podvif.model import Access


class FakeMounts:
    """`podvif.host.mounts`, with `table`: what is mounted at each target, and whether read-only."""

    def __init__(self) -> None:
        self.table: dict[str, tuple[Place, bool]] = {}

    def ensure_bound(self, directory: str, target: str, *, read_only: bool) -> None:
        if not os.path.lexists(target):
            try:
                Path(target).mkdir()
            except OSError as error:
                raise Refused(f"{target}: {error.strerror}", code=errors.IO_FAILURE) from error
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            raise Refused(f"{target} is no directory", code=errors.IO_FAILURE)
        there = self.mounted_at(target)
        if there is not None and there != _place(directory):
            raise Refused(f"something else is mounted at {target}", code=errors.IO_FAILURE)
        self.table[target] = (_place(directory), read_only)

    def ensure_unbound(self, directory: str, target: str) -> None:
        there = self.mounted_at(target)
        if there is not None and not self.is_of(there, directory):
            raise Refused(f"something else than {directory} is mounted at {target}", code=errors.IO_FAILURE)
        self.table.pop(target, None)
        try:
            Path(target).rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"{target}: {error.strerror}", code=errors.IO_FAILURE) from error

    def mounted_at(self, target: str) -> Place | None:
        place, _ = self.table.get(target, (None, False))
        return place

    def mount_points(self, among: Collection[str]) -> set[str]:
        return self.table.keys() & set(among)

    def is_of(self, place: Place, directory: str) -> bool:
        return place == _place(directory)


def _place(directory: str) -> Place:
    return Place("0:1", os.path.realpath(directory))


class FakePodDirectories:
    """`podvif.node.volumes.OwnDirectories` without owners; `owners` has whom each directory would have been given to."""

    def __init__(self) -> None:
        self.owners: dict[str, Access] = {}

    def ensure_pod_directory(self, path: str, access: Access) -> None:
        Path(path).mkdir(mode=0o770, parents=True, exist_ok=True)
        self.owners[path] = access

    def remove_pod_directory(self, path: str) -> None:
        poddir.remove_pod_directory(path)
        self.owners.pop(path, None)
