"""Child processes and events: started in a session of their own, waited for through pidfds, gone when their block ends.

Law: nothing here sleeps to wait.  The end of a process is an event of its pidfd, the birth of a file one of inotify, and
every wait has a deadline.  A child is stopped by its own pid only: politely, then by SIGKILL.  Should the program that
started it be killed outright, the kernel sends the child SIGKILL (`setpriv --pdeathsig`), so that no forwarding thread
burns a core for ever; that signal follows the *thread* that started the child, so start children from one that lives on.
"""

import contextlib
import ctypes
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE = 10.0
"""Seconds between asking a process to end and SIGKILL."""

IN_MODIFY = 0x2
IN_CREATE = 0x100
IN_MOVED_TO = 0x80


class LabError(RuntimeError):
    """Something that a demo, test or bench stands on is missing or did not come up; the message says what to do."""


def cpus() -> list[int]:
    """Numbers of the CPUs that this process may use, in order; at least one."""
    return sorted(os.sched_getaffinity(0))


def output(command: Sequence[str], *, timeout: float = 20.0, env: Mapping[str, str] | None = None) -> str:
    """Run a short command to its end and return what it printed.

    Raises:
        LabError: it failed or took longer than `timeout` seconds; the message has its own words.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=env, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired as slow:
        raise LabError(f"{shlex.join(command)}: no end after {timeout:g} s") from slow
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{shlex.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout


def wait_any(descriptors: Sequence[int], timeout: float) -> list[int]:
    """Those of the descriptors that are readable, which for a pidfd means ended; empty after `timeout` seconds."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poller.poll(max(0.0, timeout) * 1000)]


class Child:
    """One child process with its log file.

    Args:
        command: the program and its arguments.
        log: where stdout and stderr go; appended to, so that a restart keeps what came before.
        env: the whole environment; None keeps ours.
        pipe: give stdout to the caller (`Child.stdout`) instead; stderr still goes to the log.
        name: what messages call it; the program's name by default.
        inherit: descriptors that it gets under the same numbers.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        pipe: bool = False,
        name: str = "",
        inherit: Sequence[int] = (),
    ) -> None:
        self.name = name or Path(command[0]).name
        self.log = log
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else sink,
                stderr=sink,
                env=env,
                pass_fds=inherit,
                # Ctrl-C in a terminal reaches the whole foreground group: children end in our order, not in the tty's.
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid)

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe asked for with `pipe=True`."""
        if self._popen.stdout is None:
            raise LabError(f"{self.name} was started without a pipe")
        return self._popen.stdout

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.returncode is None and not wait_any([self.pidfd], 0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended already."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit code, negative for the signal that ended it.

        Raises:
            LabError: it still runs after `timeout` seconds.
        """
        if self._popen.returncode is None:
            if not wait_any([self.pidfd], timeout):
                raise LabError(f"{self.name} (pid {self.pid}) still runs after {timeout:g} s")
            self._popen.wait()
            os.close(self.pidfd)
        return self._popen.returncode

    def stop(self, number: signal.Signals = signal.SIGTERM, grace: float = GRACE) -> int:
        """End it: ask by a signal, wake it should it be paused, and SIGKILL after `grace` seconds; returns the exit code."""
        try:
            self.send(number)
            self.send(signal.SIGCONT)
            return self.wait(grace)
        except LabError:
            return self.kill()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> int:
        """End it by SIGKILL and return the exit code."""
        self.send(signal.SIGKILL)
        return self.wait(GRACE)

    def rss_kib(self) -> int:
        """Its resident memory in KiB (VmRSS of proc(5))."""
        return self._status("VmRSS")

    def peak_rss_kib(self) -> int:
        """The most resident memory that it has had, in KiB (VmHWM)."""
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0])

    def last_words(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def died(self) -> LabError:
        """The error to raise when it ended before its time."""
        return LabError(
            f"{self.name} ended with code {self.wait(GRACE)} before it was ready; its last words:\n{self.last_words()}"
        )


@contextlib.contextmanager
def births(folder: Path, events: int = IN_CREATE | IN_MOVED_TO) -> Iterator[int]:
    """An inotify descriptor that becomes readable when a name appears in `folder`, or at other events of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        if libc.inotify_add_watch(descriptor, os.fsencode(folder), events) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))
        yield descriptor
    finally:
        os.close(descriptor)


def wait_for_path(path: Path, timeout: float, child: Child | None = None) -> None:
    """Wait until something is called `path`; its folder has to be there.

    Raises:
        LabError: nothing was after `timeout` seconds, or `child`, which should make it, ended.
    """
    deadline = time.monotonic() + timeout
    with births(path.parent) as born:
        while not path.exists():
            events = wait_any([born] if child is None else [born, child.pidfd], deadline - time.monotonic())
            if child is not None and child.pidfd in events:
                raise child.died()
            if not events:
                raise LabError(f"{path} did not appear within {timeout:g} s")
            os.read(born, 65536)


def wait_for_words(words: str, log: Path, timeout: float, child: Child) -> None:
    """Wait until a child's log has `words`; the log is looked at again each time that somebody has written to its folder.

    Raises:
        LabError: it had not after `timeout` seconds, or the child ended.
    """
    deadline = time.monotonic() + timeout
    with births(log.parent, IN_CREATE | IN_MODIFY) as written:
        while not (log.exists() and words in log.read_text(errors="replace")):
            ended = wait_any([written, child.pidfd], deadline - time.monotonic())
            if child.pidfd in ended:
                raise child.died()
            if not ended:
                raise LabError(
                    f"{child.name} did not say {words!r} within {timeout:g} s; its last words:\n{child.last_words()}"
                )
            os.read(written, 65536)
