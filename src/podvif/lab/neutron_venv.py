"""Neutron's own virtual environment, made once and kept in a cache folder.

Law: what is in it is what `requirements/neutron-lab.txt` locks, and its folder's name is that file's content; it never meets
podvif's environment, since Neutron brings eventlet.  A folder without its mark was not finished and is made again.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from podvif.lab.process import LabError, output

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements" / "neutron-lab.txt"
"""The lock file; it belongs to the source tree, as the tests and the demo that use it do."""

BUILD = 900.0
"""Seconds that making the environment may take: 130 packages from an index that may be slow."""


def cache_folder() -> Path:
    """Where podvif keeps what takes long to make: $PODVIF_CACHE, else `podvif` in the user's cache folder."""
    if own := os.environ.get("PODVIF_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "podvif"


def neutron_venv() -> Path:
    """The environment's folder; made if it is not there, which takes about a minute and the package index.

    Raises:
        LabError: there is no lock file (podvif is not run from its source tree), or pip failed.
    """
    if not REQUIREMENTS.is_file():
        raise LabError(f"{REQUIREMENTS} is not there: a private Neutron needs podvif's source tree")
    name = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_folder() / f"neutron-{name}"
    mark = folder / "podvif-complete"
    if mark.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock")):
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            output([sys.executable, "-m", "venv", str(folder)], timeout=BUILD)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            output([*pip, "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS)], timeout=BUILD)
            mark.touch()
    return folder


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only one in the block among all programs that use `path`."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
