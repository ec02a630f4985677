"""Installing: the configuration comes last, and goes when the DaemonSet does."""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podvif.errors import PodvifError, Refused, Retry
from podvif.kube.client import UnknownError
from podvif.kube.resources import DAEMONSETS, Document, Key, Resource
from podvif.node.install import Owner, Place, check, install, stay, uninstall
from podvif.settings import Settings
from tests.fakes.settings import settings as some_settings

CONFIGURATION = json.dumps({"cniVersion": "1.0.0", "name": "podvif", "plugins": [{"type": "podvif-cni"}]})
NAME = "10-podvif.conflist"
KEY = Key("kube-system", "podvif-node")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("bin", "conf"):
        (tmp_path / name).mkdir()
    (tmp_path / "plugin").write_bytes(b"plugin")
    return Place(str(tmp_path / "plugin"), str(tmp_path / "bin"), str(tmp_path / "conf"), NAME, CONFIGURATION)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A daemon's settings after it has run: its directories are there, and nothing is in them."""
    for name in ("state/attachments", "state/volumes", "run/pods", "sockets", "csi"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "state" / "lock").touch()
    return some_settings(
        tmp_path / "daemon",
        state_dir=str(tmp_path / "state"),
        run_dir=str(tmp_path / "run"),
        cni_socket=str(tmp_path / "run" / "cni.sock"),
        mount_point=str(tmp_path / "sockets"),
        csi_endpoint=str(tmp_path / "csi" / "csi.sock"),
    )


def installed(place: Place) -> list[str]:
    return sorted(os.listdir(place.bin_dir) + os.listdir(place.conf_dir))  # noqa: PTH208


class ApiServer:
    """Says what it is told to, in turn, and the last thing for ever."""

    def __init__(self, *answers: Document | PodvifError | None) -> None:
        self._answers = list(answers)

    async def get(self, resource: Resource, key: Key) -> Document | None:
        assert (resource, key) == (DAEMONSETS, KEY)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, PodvifError):
            raise answer
        return answer


def daemon_set(uid: str = "u1", **metadata: Any) -> Document:
    return {"metadata": {"name": KEY.name, "uid": uid, **metadata}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("podvif", CONFIGURATION),
        (".x.conf", CONFIGURATION),
        ("a/b.conf", CONFIGURATION),
        (NAME, '{"type": "bridge"}'),
        (NAME, "{"),
    ],
)
def test_check(place: Place, name: str, text: str) -> None:
    """A configuration that no runtime would take, or that is not ours, is refused before anything is touched."""
    with pytest.raises(Refused):
        check(Place(place.plugin, place.bin_dir, place.conf_dir, name, text))


async def test_configuration_comes_last(place: Place) -> None:
    """While the daemon is not ready there is the executable alone; the configuration follows when it is."""
    seen = []

    def reasons() -> Iterator[str | None]:
        yield "OVSDB is away"
        yield None

    answers = reasons()

    def why_not_ready() -> str | None:
        seen.append(installed(place))
        return next(answers)

    await install(place, why_not_ready)

    assert seen == [["podvif-cni"], ["podvif-cni"]]
    assert installed(place) == [NAME, "podvif-cni"]


async def test_without_configuration(place: Place) -> None:
    """Where Multus finds the plugin there is nothing to wait for."""
    alone = Place(place.plugin, place.bin_dir, place.conf_dir)
    check(alone)
    await install(alone, lambda: pytest.fail("nobody waits"))

    assert installed(place) == ["podvif-cni"]


async def test_uninstall(place: Place, settings: Settings, tmp_path: Path) -> None:
    """Nothing is left: neither files nor the daemon's directories."""
    await install(place, lambda: None)

    assert uninstall(place, settings) == []
    assert installed(place) == []
    assert sorted(os.listdir(tmp_path)) == ["bin", "conf", "daemon", "plugin"]  # noqa: PTH208


def test_uninstall_twice(place: Place, settings: Settings) -> None:
    """Where nothing was installed there is nothing to do."""
    uninstall(place, settings)

    assert uninstall(place, settings) == []


def test_attachments_stay(place: Place, settings: Settings, tmp_path: Path) -> None:
    """What pods still have is said and stays in the journal, for a daemon that comes back."""
    (tmp_path / "state" / "attachments" / "c:net1.json").touch()

    (said,) = uninstall(place, settings)

    assert "1 attachments" in said
    assert (tmp_path / "state" / "attachments" / "c:net1.json").exists()


def test_running_daemon(place: Place, settings: Settings, tmp_path: Path) -> None:
    """The state of a daemon that runs is left alone, and so are its directories."""
    Path(settings.mount_point).mkdir(parents=True, exist_ok=True)
    with (tmp_path / "state" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert any("in use" in said for said in uninstall(place, settings))
        assert (tmp_path / "state" / "attachments").exists()
        assert Path(settings.mount_point).exists()


AT_THE_END: dict[str, tuple[Document | PodvifError | None, bool]] = {
    "it is gone": (None, True),
    "it is being deleted": (daemon_set(deletionTimestamp="2026-01-01T00:00:00Z"), True),
    "our rights are gone": (Refused("forbidden"), True),
    "our account is gone": (UnknownError("401"), True),
    "it is there": (daemon_set(), False),
    "another has its name": (daemon_set("u2"), False),
    "the API server is away": (Retry("no route"), False),
}


@pytest.mark.parametrize("what", AT_THE_END)
async def test_end(what: str) -> None:
    """What is installed goes when the DaemonSet has, and stays when it has not or nobody knows."""
    answer, goes = AT_THE_END[what]
    owner = Owner(ApiServer(daemon_set(), answer), KEY)
    await owner.learn()

    assert (await owner.why_stays(0.05, sure=0.0) is None) is goes


@pytest.mark.parametrize("refusal", [Refused("forbidden"), UnknownError("401")])
async def test_refused_for_a_moment(refusal: PodvifError) -> None:
    """An API server that refuses whoever asks for a moment, as one that has just started may, takes nothing away."""
    owner = Owner(ApiServer(daemon_set(), refusal, daemon_set()), KEY)
    await owner.learn()

    assert await owner.why_stays() == f"DaemonSet {KEY} is there: the next pod takes over"


@pytest.mark.parametrize("answer", [Refused("forbidden"), None])
async def test_never_known(answer: PodvifError | None) -> None:
    """Who could not ask at the start cannot tell the end: everything stays."""
    owner = Owner(ApiServer(answer), KEY)
    await owner.learn()

    assert await owner.why_stays(0.05) is not None


async def test_api_server_comes_late() -> None:
    """An API server that is not there at the start is asked until it is."""
    owner = Owner(ApiServer(Retry("no route"), daemon_set(), None), KEY)
    await owner.learn()

    assert await owner.why_stays() is None


@pytest.mark.parametrize(("answer", "left"), [(None, []), (daemon_set(), [NAME, "podvif-cni"])])
async def test_stay(place: Place, settings: Settings, answer: Document | None, left: list[str]) -> None:
    """A pod that ends takes everything with it if the DaemonSet is gone, and leaves it for the next pod if not."""
    stop = asyncio.Event()

    def why_not_ready() -> str | None:
        loop.call_soon_threadsafe(loop.call_later, 0.1, stop.set)
        return None

    loop = asyncio.get_running_loop()
    await stay(place, settings, why_not_ready, Owner(ApiServer(daemon_set(), answer), KEY), stop)

    assert installed(place) == left


async def test_stay_ends_when_it_cannot_install(place: Place, settings: Settings) -> None:
    """An installer that cannot do its work ends with the reason."""
    broken = Place(place.plugin, f"{place.bin_dir}/no-such", place.conf_dir)
    with pytest.raises(Refused, match="no-such"):
        await stay(broken, settings, lambda: None, Owner(ApiServer(daemon_set()), KEY), asyncio.Event())
