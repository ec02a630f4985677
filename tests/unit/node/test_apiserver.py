"""The parts that speak to the API server, put together."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.errors import Refused
from podvif.node.apiserver import ApiServer
from podvif.node.volumes import Volumes
from podvif.settings import Settings, load
from tests.fakes.mounts import FakeMounts, FakePodDirectories


def settings(**changes: Any) -> Settings:
    return msgspec.structs.replace(load([]), source="cluster", **changes)


def volumes(conf: Settings) -> Volumes:
    return Volumes(conf, FakeMounts(), FakePodDirectories())


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

    conf = settings(kubeconfig=str(path), node_name="n1", state_dir=str(tmp_path))
    found = ApiServer(conf, dict, volumes(conf))

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
    conf = settings(kubeconfig=str(tmp_path / "none"), state_dir=str(tmp_path))

    with pytest.raises(Refused) as caught:
        ApiServer(conf, dict, volumes(conf))

    assert "[kubernetes] kubeconfig" in caught.value.remedy
