"""A living socket is never removed, also in the millisecond after bind(2).

Law: several applications begin to listen and end as fast as they can, while the daemon, woken by each of their files and by
quick rounds besides, looks for dead sockets in their places.  Chance decides who comes when; so many tries leave it little.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from podvif.lab import programs
from podvif.lab.sandbox import Sandbox
from podvif.lab.tmpfs import tmpfs
from tests.node.support import Attached, MakeNode

HAMMER = Path(__file__).with_name("hammer.py")
SECONDS = 6
APPLICATIONS = 3
QUICK = {"node": {"resync_interval": "0.1"}}


@pytest.mark.parametrize("disk", ["default", "tmpfs"])
def test_a_living_socket_stays(make_node: MakeNode, boxes: Callable[[], Sandbox], folder: Path, disk: str) -> None:
    """Of thousands of sockets that come and go none is lost while it lives, and dead ones make room for the next."""
    place = tmpfs(folder / "run") if disk == "tmpfs" else contextlib.nullcontext(folder)
    with place as parent:  # where a file gets the number of the last one that was removed, and where it does not
        pods = parent / "pods"
        pods.mkdir()
        node = make_node(more=QUICK, mount_point=pods)
        with node.running():
            standing = [node.add(node.network("server"), boxes()) for _ in range(APPLICATIONS)]
            hammers = [hammer(each) for each in standing]
            found = [json.loads(hammer.communicate(timeout=SECONDS * 5)[0]) for hammer in hammers]
            for each in standing:
                node.delete(each)
            node.finish()
    print(found)
    assert [each["lost"] for each in found] == [0] * APPLICATIONS
    assert min(each["binds"] for each in found) > 100
    assert min(each["freed"] for each in found) > 10


def hammer(attached: Attached) -> "subprocess.Popen[bytes]":
    """An application of the pod that does nothing but begin and end."""
    inside = [programs.ip(), "netns", "exec", attached.box.name]
    command = [*inside, sys.executable, "-I", str(HAMMER), str(attached.socket), str(SECONDS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)
