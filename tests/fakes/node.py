"""A node daemon of real parts, real directories and sockets, around a fake switch, fake devices and a fake IPAM.

It can be made to fail at a step, or to die at any moment: a dead daemon touches nothing more, and another one can be built
on what it left on disk, in the switch and at IPAM.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podvif.core.attach import Step, Want
from podvif.core.cni import parse_request
from podvif.model import Attachment, Entry, Listener, Pod, Seen, SocketDir, Vif, Volume
from podvif.node.drivers import Drivers
from podvif.node.journal import Journal
from podvif.node.readiness import Readiness
from podvif.node.recover import Recovery, Why
from podvif.node.sources import Source, Standalone
from podvif.node.verbs import Verbs
from podvif.node.volumes import Volumes
from podvif.settings import Settings
from tests.fakes.devices import FakeDevices
from tests.fakes.ipam import FakeIpam
from tests.fakes.mounts import FakeMounts, FakePodDirectories
from tests.fakes.switch import FakeSwitch
from tests.fakes.values import ATTACHMENT, config, environment, vif

MODE = {Listener.APPLICATION: "server", Listener.OVS: "client"}


class Death(BaseException):
    """The daemon's process has ended here: nothing of it runs any more."""


@dataclass
class Life:
    """What happens to a daemon.

    Attributes:
        moments: how many moments between two acts have passed.
        last: the moment at which it dies; 0 never.
        failures: the step that fails, with what it raises; once, before it is done or after.
        looks: how often it has observed an attachment.
    """

    moments: int = 0
    last: int = 0
    failures: dict[tuple[str, Step], Exception] = field(default_factory=dict)
    looks: int = 0

    def moment(self) -> None:
        """Between two acts: die here, and stay dead."""
        self.check()
        self.moments += 1
        self.check()

    def check(self) -> None:
        """Refuse to go on when dead."""
        if self.last and self.moments >= self.last:
            raise Death

    def fail(self, when: str, step: Step) -> None:
        """Raise what was ordered for this step."""
        if error := self.failures.pop((when, step), None):
            raise error


class _Driver(Drivers):
    life = Life()

    def observe(self, want: Want) -> Seen:
        self.life.check()
        self.life.looks += 1
        return super().observe(want)

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        self.life.moment()
        self.life.fail("before", step)
        await super().do(want, step, seen)
        self.life.fail("after", step)
        self.life.moment()


class _Journal(Journal):
    life = Life()

    def put(self, entry: Entry) -> None:
        self.life.moment()
        super().put(entry)
        self.life.moment()

    def remove(self, attachment: Attachment) -> None:
        self.life.moment()
        super().remove(attachment)
        self.life.moment()


class Node:
    """A daemon in `folder`; `switch`, `ipam` and `devices` are the world's and outlive it."""

    def __init__(
        self,
        folder: Path,
        *,
        switch: FakeSwitch | None = None,
        ipam: FakeIpam | None = None,
        life: Life | None = None,
        devices: FakeDevices | None = None,
        mounts: FakeMounts | None = None,
        add_timeout: float = 20.0,
        source: "Callable[[Node], Source] | None" = None,
    ) -> None:
        self.folder = folder
        self.make_source = source
        self.life = life or Life()
        self.pods, self.rundir, self.own = folder / "pods", folder / "ovs", folder / "run" / "pods"
        for directory in (self.pods, self.rundir):
            directory.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(
            mount_point=SocketDir(str(self.pods)),
            ovs_vhu_path=SocketDir(str(self.rundir)),
            ovsdb_connection=f"unix:{self.rundir}/db.sock",
            cni_socket=str(folder / "cni.sock"),
            state_dir=str(folder / "state"),
            source="standalone",
            add_timeout=add_timeout,
            ipam_timeout=5.0,
            resync_interval=30.0,
            sweep_grace=60.0,
            log_format="console",
            run_dir=str(folder / "run"),
        )
        self.switch = switch or FakeSwitch(self.rundir)
        self.ipam = ipam or FakeIpam()
        self.devices = devices or FakeDevices()
        self.switch.has_device = lambda name: self.devices.look_at(name) is not None
        self.journal = _Journal(self.settings.state_dir)
        self.driver = _Driver(self.switch, self.journal, self.ipam, self.settings, self.devices)
        self.journal.life = self.driver.life = self.life
        self.mounts = mounts or FakeMounts()
        self.volumes = Volumes(self.settings, self.mounts, FakePodDirectories())
        self.source = source(self) if source else Standalone(self.settings, self.volumes)
        self.readiness = Readiness(self.switch, self.settings, self.source.why_not)
        self.verbs = Verbs(self.settings, self.journal, self.driver, self.ipam, self.readiness, source=self.source)
        self.recovery = Recovery(
            self.journal, self.verbs, self.driver, self.switch, self.settings, volumes=self.volumes
        )

    def again(self) -> "Node":
        """Another daemon after this one has died: the disk, the switch and IPAM are as they were left."""
        self.life.last = self.life.last or 1
        self.life.moments = max(self.life.moments, self.life.last)
        self.switch.regain_ovsdb()
        return Node(
            self.folder,
            switch=self.switch,
            ipam=self.ipam,
            devices=self.devices,
            mounts=self.mounts,
            source=self.make_source,
        )

    async def recover(self) -> None:
        """Have recovery run until every attachment is looked at and none waits for vswitchd."""
        running = asyncio.ensure_future(self.recovery.run())
        await asyncio.sleep(0)
        while not running.done() and self._recovering():  # noqa: ASYNC110  the loop's own next round is the event
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})

    def _recovering(self) -> bool:
        again = self.recovery._again.values()
        return bool(self.recovery._workers) or any(each.why is Why.WAITING for each in again)

    async def call(
        self, command: str, network: dict[str, Any] | None = None, attachment: Attachment = ATTACHMENT, **variables: str
    ) -> dict[str, Any]:
        """One call of the runtime; {} when it succeeds without an answer."""
        stdin = json.dumps(config() if network is None else network).encode()
        answer, _ = await self.verbs.answer(parse_request(environment(command, attachment, **variables), stdin))
        return answer or {}

    def vif(
        self, listener: Listener = Listener.APPLICATION, attachment: Attachment = ATTACHMENT, **changes: Any
    ) -> Vif:
        """The port that an ADD makes here."""
        return vif(listener, attachment, str(self.pods), str(self.rundir), **changes)

    def left(self) -> list[str]:
        """Everything that stands for some attachment, once vswitchd has made its round."""
        self.switch.round()
        return [
            *(f"port {name}" for name in self.switch.ports()),
            *(f"file {path.name}" for path in sorted(self.pods.iterdir())),
            *(f"file {path.parent.name}/{path.name}" for path in sorted(self.own.glob("*/*"))),
            *(f"socket {path.name}" for path in sorted(self.rundir.iterdir())),
            *(f"device {name}" for name in self.devices.names()),
            *(f"lease {attachment}" for attachment in self.ipam.leases),
            *(f"entry {path.name}" for path in sorted(Path(self.settings.state_dir, "attachments").iterdir())),
        ]


MakeNode = Callable[..., Node]


@contextlib.asynccontextmanager
async def recovering(node: Node) -> AsyncIterator[None]:
    """Recovery runs, and has taken its first look at everything."""
    running = asyncio.ensure_future(node.recovery.run())
    await until(lambda: not node.recovery._workers)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


async def until(ready: Callable[[], bool]) -> None:
    """Wait for a fact that some event brings about; a test that hangs here has failed."""
    async with asyncio.timeout(10):
        while not ready():  # noqa: ASYNC110  whatever event brings it, the fact is what counts
            await asyncio.sleep(0.005)


POD_UID = "0d5bd2f5-6d0a-4a57-9d7e-2b1f6f3c7a41"


def volume(node: Node, uid: str = POD_UID, **changes: Any) -> Volume:
    """What kubelet asks for a pod of that UID."""
    target = node.folder / "kubelet" / uid
    target.parent.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "id": f"csi-{uid}",
        "target": str(target),
        "pod": Pod("ns", "p", uid),
        "mounted_at": SocketDir("/sockets"),
    }
    return Volume(**values | changes)
