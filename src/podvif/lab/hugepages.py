"""Hugepages of 2 MiB for OVS-DPDK and the applications.

Law: the number of pages belongs to the whole machine.  It is put back only while it is still the number that was set here:
somebody who changed it since keeps what they asked for.  Demos and tests that run side by side share a ledger: each takes
back what it added, the last one puts back what the first one found, and one that was killed is tidied up after by the next.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from podvif.lab.process import LabError

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
"""The kernel's pool of 2 MiB pages (Documentation/admin-guide/mm/hugetlbpage.rst)."""

LEDGER = Path("/run/podvif-lab.hugepages")
"""What was found and set; it is there while somebody holds pages, and everybody who does holds a shared lock on it."""


COMPACT = Path("/proc/sys/vm/compact_memory")
"""Written to, the kernel puts what is in use together, so that whole pages of 2 MiB are free (Documentation/admin-guide/sysctl/vm.rst)."""

_COMPACTIONS = 5


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pool says: all numbers are pages of 2 MiB.

    Attributes:
        total: pages in the pool, the number that can be set.
        free: pages that nobody uses and nobody has reserved.
    """

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What was found and done.

    Attributes:
        before: the pool's number of pages before the first of us raised it.
        set: the number that was set.
        added: how many of them were added for this grant.
    """

    before: int
    set: int
    added: int = 0


def observe_pages() -> Pages:
    """Read the pool.

    Raises:
        LabError: this kernel has no 2 MiB pages.
    """
    if not POOL.is_dir():
        raise LabError(f"this kernel has no hugepages of 2 MiB: {POOL} is not there")
    total, free, reserved = (
        int((POOL / name).read_text()) for name in ("nr_hugepages", "free_hugepages", "resv_hugepages")
    )
    return Pages(total, free - reserved)


def why_not_restored(grant: Grant) -> str | None:
    """What is left of a grant after its block; None when the pool is as it was, or is somebody else's business now."""
    total = observe_pages().total
    ours = total == grant.set != grant.before and not LEDGER.exists()
    return f"{total} hugepages instead of {grant.before}" if ours else None


@contextlib.contextmanager
def hugepages(free: int) -> Iterator[Grant]:
    """Make sure that `free` pages are there for the block.

    Raises:
        LabError: no permission, or the kernel found fewer pages; the message names what was asked for and what was got.
    """
    observe_pages()
    grant: Grant | None = None
    with contextlib.ExitStack() as held:
        try:
            with _pool_locked() as pool:
                ledger = os.open(LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                held.callback(lambda: _give_back(ledger, grant.added if grant else 0))
                grant = _take(pool, ledger, free)
        except PermissionError as denied:
            raise LabError(f"may not set the number of hugepages ({POOL}/nr_hugepages): run as root") from denied
        yield grant


@contextlib.contextmanager
def _pool_locked() -> Iterator[int]:
    """A descriptor of the pool's number; whoever has it is alone in reading and writing number and ledger."""
    with (POOL / "nr_hugepages").open("r+b", buffering=0) as number:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield number.fileno()


def _take(pool: int, ledger: int, free: int) -> Grant:
    """Raise the pool as far as needed, write the ledger and hold it."""
    now, last, alone = observe_pages(), _entry(ledger), _alone(ledger)
    before = last.before if last is not None and last.set == now.total else now.total
    # Beside others of ours nothing counts as free: they may not have taken yet what they were granted.
    missing = max(0, free - now.free) if alone else free
    got = _raise(pool, now.total + missing) if missing else now
    short = got.total < now.total + missing
    if short:
        os.write(pool, b"%d" % now.total)
    _write(ledger, Grant(before, now.total if short else got.total))
    fcntl.flock(ledger, fcntl.LOCK_SH)
    if short:
        raise LabError(
            f"asked the kernel for {missing} more hugepages of 2 MiB, to have {free} free, and got {got.total - now.total}: "
            "memory is short or in pieces; free some, or reserve pages at boot (hugepages=N)"
        )
    return Grant(before, got.total, missing)


def _raise(pool: int, total: int) -> Pages:
    """Raise the pool to so many pages, or as far as the kernel finds them; it has to move others' memory for that on a machine that has run for a while."""
    os.write(pool, b"%d" % total)
    got = observe_pages()
    for _ in range(_COMPACTIONS):
        if got.total >= total:
            break
        with contextlib.suppress(OSError):  # a kernel without it finds what it finds
            COMPACT.write_text("1")
        os.write(pool, b"%d" % total)
        got = observe_pages()
    return got


def _give_back(ledger: int, added: int) -> None:
    """Take back what was added and let go of the ledger; the last one puts back what was there before all of us."""
    try:
        with _pool_locked() as pool:
            last, alone = _entry(ledger), _alone(ledger)
            if last is not None and observe_pages().total == last.set:
                total = last.before if alone else last.set - added
                os.write(pool, b"%d" % total)
                _write(ledger, Grant(last.before, total))
            if alone:
                LEDGER.unlink(missing_ok=True)
    finally:
        os.close(ledger)


def _alone(ledger: int) -> bool:
    """Whether nobody else holds the ledger."""
    try:
        fcntl.flock(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _entry(ledger: int) -> Grant | None:
    try:
        return Grant(**json.loads(os.pread(ledger, 4096, 0)))
    except (ValueError, TypeError):  # nothing was written yet
        return None


def _write(ledger: int, grant: Grant) -> None:
    text = json.dumps(asdict(grant)).encode()
    os.ftruncate(ledger, 0)
    os.pwrite(ledger, text, 0)
