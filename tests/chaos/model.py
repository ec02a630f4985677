"""What should be, according to what the runtime has asked for and been told.

Law: the model learns from answers alone, as a runtime does.  Where an answer was lost it is unsure, and the runtime has to
ask for DEL before anybody can be blamed for what is left.
"""

import enum
import subprocess
from dataclasses import dataclass, field
from typing import Any

from podvif import names
from podvif.lab.sandbox import Sandbox
from podvif.model import Attachment

IFNAMES = ("eth0", "net1")
"""Interfaces that a pod may have."""


class State(enum.Enum):
    """What a runtime knows of an interface."""

    ABSENT = "absent"
    PRESENT = "present"
    UNSURE = "unsure"
    """An answer was lost, or two calls crossed: only a DEL tells."""


class FaultError(AssertionError):
    """Something that should not be; the walk ends here."""


@dataclass
class Call:
    """A call of the plugin that runs or has ended.

    Attributes:
        verb: ADD or DEL.
        process: the shim.
        first: an ADD of what was not attached.
        crossed: another call for the same interface ran at the same time.
    """

    verb: str
    process: "subprocess.Popen[bytes]"
    first: bool = True
    crossed: bool = False


@dataclass
class Interface:
    """One interface of a pod.

    Attributes:
        number: of its application.
        ifname: its name.
        state: what is known of it.
        config: of the last ADD.
        result: of the last ADD that succeeded.
        calls: those that run.
    """

    number: int
    ifname: str
    state: State = State.ABSENT
    config: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    @property
    def mode(self) -> str:
        """Of the application."""
        return str(self.config.get("vhostuserMode", ""))

    @property
    def quiet(self) -> bool:
        """Whether nobody asks anything about it."""
        return not self.calls


@dataclass
class Pod:
    """A pod: its sandbox, if it has one, and its interfaces."""

    interfaces: list[Interface]
    box: Sandbox | None = None

    def attachment(self, interface: Interface) -> Attachment:
        """The key of an interface."""
        assert self.box is not None
        return Attachment(self.box.container_id, interface.ifname)

    def port(self, interface: Interface) -> str:
        """The name of an interface's OVS port."""
        return names.vif_name(names.port_id(self.attachment(interface)))

    @property
    def idle(self) -> bool:
        """Whether it has no interface and nobody asks for one."""
        return all(each.state is State.ABSENT and each.quiet for each in self.interfaces)


@dataclass(frozen=True)
class Foreign:
    """A port of somebody else, a VM's: it has an iface-id and none of our marks.

    Attributes:
        port: the OVS port's name.
        path: where the VM listens.
        number: of its application; None for a VM that is switched off and has left its socket.
    """

    port: str
    path: str
    number: int | None
