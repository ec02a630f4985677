"""The parts that speak to the API server, put together."""

import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.errors import Refused
from podvif.node.apiserver import ApiServer, node_name
from podvif.settings import Settings, load


def settings(**changes: Any) -> Settings:
    return msgspec.structs.replace(load([]), source="cluster", **changes)


def test_node_name() -> None:
    """The node is called what it is told, else as kubelet calls it: by the host's name in lower case."""
    assert node_name(settings(node_name="N1.example")) == "N1.example"
    assert node_name(settings()) == socket.gethostname().lower()


async def test_nothing_is_asked_at_start(tmp_path: Path) -> None:
    """It is made without asking the API server, and says that nothing is known yet."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )

    found = ApiServer(settings(kubeconfig=str(path), node_name="n1"), dict)

    assert found.status() == {
        "node": "n1",
        "server": "https://127.0.0.1:1",
        "trouble": "podvifs.podvif.io are not listed yet",
        "podvifs": 0,
    }
    assert "not listed yet" in (found.source.why_not() or "")
    await found.close()


def test_without_credentials(tmp_path: Path) -> None:
    """Without a usable kubeconfig the daemon does not start, and says which option it is."""
    with pytest.raises(Refused) as caught:
        ApiServer(settings(kubeconfig=str(tmp_path / "none")), dict)

    assert "[kubernetes] kubeconfig" in caught.value.remedy
