"""`podvif controller` with a configuration of its own, as a Deployment would run it.

Law: it is there when it says that it stands for election, never after a while; one that dies first is reported with its own
last words.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import programs
from podvif.lab.daemon import Sections, kuryr_conf
from podvif.lab.process import Child, LabError, wait_for_words

START = 30.0
"""Seconds the controller may take until it stands for election."""


class Controller:
    """`podvif controller`; runs inside the `with` block unless a method stopped it.

    Args:
        folder: for its configuration and log; belongs to the caller, and stays.
        kubeconfig: how it reaches the API server.
        neutron: [neutron], as a private Neutron's `options` say it.
        more: more configuration, option by section; it wins over ours.
        program: what stands in for `podvif`.

    Attributes:
        config: the configuration file.
        log: its stderr, since it was started last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kubeconfig: Path,
        neutron: Mapping[str, str],
        more: Sections | None = None,
        program: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "kuryr.conf"
        self.log = folder / "podvif-controller.log"
        sections: Sections = {
            "kubernetes": {"kubeconfig": str(kubeconfig)},
            "neutron": neutron,
            # Another leader need not be waited for as long as in a cluster.
            "controller": {
                "metrics_bind": "",
                "lease_duration": "3",
                "lease_renew_deadline": "2",
                "lease_retry_period": "0.3",
            },
        }
        self.config.write_text(kuryr_conf(sections, more or {}))
        self._program = program or programs.podvif()
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self.stop()

    def start(self, timeout: float = START) -> None:
        """Start it and wait until it stands for election.

        Raises:
            LabError: it ended first, or took longer than `timeout` seconds; the message has its last words.
        """
        self.log.unlink(missing_ok=True)
        self.log.touch()
        command = [*self._program, "controller", "--config-file", str(self.config)]
        self._child = Child(command, log=self.log, env=dict(os.environ), name="podvif controller")
        wait_for_words("stands for election", self.log, timeout, self._child)

    @property
    def child(self) -> Child:
        """The process.

        Raises:
            LabError: it was never started.
        """
        if self._child is None:
            raise LabError("podvif controller was never started: use it in a with block")
        return self._child

    def stop(self) -> int:
        """End it by SIGTERM, as Kubernetes does, and return its exit code."""
        return self.child.stop(signal.SIGTERM, grace=30)

    def kill(self) -> int:
        """End it by SIGKILL, as a crash would."""
        return self.child.kill()

    def rss_kib(self) -> int:
        """Its resident memory in KiB (VmRSS of proc(5))."""
        return self.child.rss_kib()

    def peak_rss_kib(self) -> int:
        """The most resident memory that it has had, in KiB."""
        return self.child.peak_rss_kib()
