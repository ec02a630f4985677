"""The floor's far end: asks `floor_worker` to plug and unplug.

Law: the worker lives as long as the block, keeps its one connection, and reports the time of os-vif alone; the pipe's way is
not in it.
"""

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podvif.lab.process import LabError

WORKER = Path(__file__).with_name("floor_worker.py")
MTU = 1500


class Floor:
    """Plain os-vif on one switch.

    Args:
        ovsdb: the database's address.
        bridge: where ports go.
        folder: where the sockets of ports for applications that listen would be; also for the worker's log.
    """

    def __init__(self, ovsdb: str, bridge: str, folder: Path) -> None:
        self._ovsdb = ovsdb
        self._bridge = bridge
        self._folder = folder
        self._log = folder / "floor-worker.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(WORKER), self._ovsdb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        try:
            self._line()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            # os-vif's connection has a thread that outlives stdin's end, so it is told by signal.
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
            self._process.communicate()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._running().pid

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise LabError("the os-vif worker was not started")
        return self._process

    def port(self, mode: str) -> dict[str, Any]:
        """A new port of that mode, for `plug` and `unplug`."""
        number = str(uuid.uuid4())
        name = f"vhu{number}"[:14]
        return {
            "id": number,
            "name": name,
            "mac": "02:" + ":".join(number[at : at + 2] for at in (0, 2, 4, 6, 9)),
            "mode": mode,
            "path": str(self._folder / name),
            "bridge": self._bridge,
            "mtu": MTU,
        }

    def plug(self, *ports: dict[str, Any]) -> list[float]:
        """Seconds of `os_vif.plug` for each port, back to back."""
        return self._ask("plug", ports)

    def unplug(self, *ports: dict[str, Any]) -> list[float]:
        """Seconds of `os_vif.unplug` for each port, back to back."""
        return self._ask("unplug", ports)

    def _ask(self, verb: str, ports: Sequence[dict[str, Any]]) -> list[float]:
        pipe = self._running().stdin
        assert pipe is not None
        pipe.write(json.dumps({"verb": verb, "ports": ports}) + "\n")
        pipe.flush()
        found: list[float] = json.loads(self._line())
        return found

    def _line(self) -> str:
        pipe = self._running().stdout
        assert pipe is not None
        line = pipe.readline()
        if not line:
            raise LabError(f"the os-vif worker ended; its last words:\n{self._log.read_text()[-2000:]}")
        return line
