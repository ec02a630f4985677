"""A pod as the node sees one: a sandbox with one interface that the real shim attached.

Law: everything known of the interface comes from the plugin's answer or from the pod's files, as it would in a real pod.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from podvif.lab.cni import Answer, call
from podvif.lab.programs import plugin_path
from podvif.lab.sandbox import Sandbox, sandbox
from podvif.lab.testpmd import read_env


@dataclass(frozen=True)
class Pod:
    """A sandbox with one interface.

    Attributes:
        box: its sandbox.
        ifname: its interface.
        config: the network configuration it was attached with.
        added: the answer of its ADD, which succeeded.
        env_file: the shell file that its application reads.
        args: CNI_ARGS of its calls.
    """

    box: Sandbox
    ifname: str
    config: Mapping[str, Any]
    added: Answer
    env_file: Path
    args: str = ""

    @cached_property
    def variables(self) -> dict[str, str]:
        """The variables of its shell file, read once."""
        return read_env(self.env_file)

    @property
    def port(self) -> str:
        """The OVS port's name, which is the name of the socket."""
        return Path(self.variables["VHOSTUSER_0_SOCKET"]).name

    @property
    def mac(self) -> str:
        """The application's MAC."""
        return self.variables["VHOSTUSER_0_MAC"]

    def delete(self) -> Answer:
        """Detach its interface; a repeat is allowed."""
        return verb("DEL", self.config, self.box, self.ifname, self.args)


def verb(command: str, config: Mapping[str, Any], box: Sandbox, ifname: str, args: str = "") -> Answer:
    """Call the shim for one interface of a sandbox, with the CNI_PATH of this machine."""
    return call(
        command,
        config,
        container_id=box.container_id,
        netns=box.netns,
        ifname=ifname,
        cni_path=plugin_path(),
        args=args,
    )


@contextlib.contextmanager
def pod(config: Mapping[str, Any], mount_point: Path, ifname: str = "eth0", args: str = "") -> Iterator[Pod]:
    """A pod with an interface; both are gone at the end of the block.

    Args:
        config: the network configuration.
        mount_point: where the daemon puts the pod's files.
        ifname: the interface's name in the pod.
        args: CNI_ARGS, which name the pod to a source that wants to know it.

    Raises:
        LabError: ADD failed, or DEL at the end of a block that succeeded; the message has the plugin's words.
    """
    with sandbox() as box:
        try:
            added = verb("ADD", config, box, ifname, args)
            added.checked()
            yield Pod(box, ifname, config, added, mount_point / f"{box.container_id}.env", args)
        except BaseException:
            verb("DEL", config, box, ifname, args)  # what went wrong before is the news, not what DEL says now
            raise
        verb("DEL", config, box, ifname, args).checked()
