"""What the daemon says of itself."""

import socket
from pathlib import Path

import msgspec

from podvif.daemon.version import version
from podvif.node import about
from tests.fakes.settings import settings


async def test_about(tmp_path: Path) -> None:
    """The daemon tells its version, what it runs with, and the version of the plugin that called last."""
    conf = settings(tmp_path)

    found = msgspec.json.decode(msgspec.json.encode(await about.about(conf, "1.2", "127.0.0.1:9655")))

    assert found["plugin_version"] == "1.2"
    assert found["metrics"] == "127.0.0.1:9655"
    assert found["version"] == version()
    assert found["settings"]["mount_point"] == conf.mount_point


def test_node_name(tmp_path: Path) -> None:
    """The node is called what it is told, else as kubelet calls it: by the host's name in lower case."""
    assert about.node_name(settings(tmp_path, node_name="N1.example")) == "N1.example"
    assert about.node_name(settings(tmp_path, node_name="")) == socket.gethostname().lower()
