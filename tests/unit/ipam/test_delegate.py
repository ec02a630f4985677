"""Calling IPAM plugins: tiny shell scripts that behave, or do not, as plugins do."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podvif import errors
from podvif.errors import PodvifError, Refused, Retry
from podvif.ipam.delegate import Delegate, find, plugin_name
from podvif.model import Address, Addresses, Dns, IpamCall, Route
from tests.fakes.values import ATTACHMENT, config

GOOD = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
ALL = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


class Plugin:
    """A plugin in a directory of its own; what it was called with last lies beside it."""

    def __init__(self, folder: Path, does: str, versions: tuple[str, ...] | str) -> None:
        self.folder = folder
        self.path = folder / "fake-ipam"
        known = versions if isinstance(versions, str) else json.dumps({"supportedVersions": versions})
        self.path.write_text(
            f"#!/bin/sh\ncd {folder}\necho $CNI_COMMAND >> calls\n"
            f"if [ $CNI_COMMAND = VERSION ]; then printf '%b' '{known}'; exit 0; fi\n"
            f"cat > stdin; env > env\n{does}\n"
        )
        self.path.chmod(0o755)

    def call(self, **changes: Any) -> IpamCall:
        network = config(**{"ipam": {"type": "fake-ipam", "ranges": [1]}} | changes)
        return IpamCall(network, ("/nowhere", str(self.folder)), "/run/netns/a", "K=v;IP=10.1.0.5")

    @property
    def stdin(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "stdin").read_text())
        return found

    @property
    def env(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.folder / "env").read_text().splitlines() if "=" in line)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().split()


Make = Callable[..., Plugin]


@pytest.fixture
def plugin(tmp_path: Path) -> Make:
    """Makes a plugin that does what a shell script says, and knows some versions of CNI."""

    def make(does: str = "", versions: tuple[str, ...] | str = ALL) -> Plugin:
        return Plugin(tmp_path, does, versions)

    return make


def says(document: Any) -> str:
    return f"echo '{json.dumps(document)}'"


@pytest.fixture
def delegate() -> Delegate:
    """The caller, with a long limit."""
    return Delegate(timeout=20)


async def failure(delegate: Delegate, made: Plugin) -> PodvifError:
    with pytest.raises(PodvifError) as caught:
        await delegate.add(ATTACHMENT, made.call())
    return caught.value


async def test_add(plugin: Make, delegate: Delegate) -> None:
    """The addresses, routes and resolvers that a plugin gives are taken as they are."""
    assert await delegate.add(ATTACHMENT, plugin(says(GOOD)).call()) == Addresses(
        ips=(Address("10.1.0.5/24", "10.1.0.1"), Address("fd00::5/64")),
        routes=(Route("0.0.0.0/0", gw="10.1.0.1"),),
        dns=Dns(nameservers=("10.1.0.1",)),
    )


async def test_what_the_plugin_gets(plugin: Make, delegate: Delegate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin gets the whole configuration and our own call's variables, and no variable of CNI that is not of this call."""
    monkeypatch.setenv("CNI_CONTAINERID", "somebody-else")
    monkeypatch.setenv("CNI_EXTRA", "x")
    made = plugin(says(GOOD))
    await delegate.add(ATTACHMENT, made.call(mtu=9000))

    assert made.stdin == made.call(mtu=9000).config
    assert {key: value for key, value in made.env.items() if key.startswith("CNI_")} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c0ffee",
        "CNI_IFNAME": "net1",
        "CNI_NETNS": "/run/netns/a",
        "CNI_PATH": f"/nowhere:{made.folder}",
        "CNI_ARGS": "K=v;IP=10.1.0.5",
    }
    assert made.env["PATH"] == os.environ["PATH"]


async def test_remove(plugin: Make, delegate: Delegate) -> None:
    """DEL is called with what ADD was called with, and needs no answer."""
    made = plugin()
    await delegate.remove(ATTACHMENT, made.call())

    assert (made.env["CNI_COMMAND"], made.env["CNI_CONTAINERID"], made.stdin) == ("DEL", "c0ffee", made.call().config)


@pytest.mark.parametrize(
    ("asked", "known", "used"),
    [
        ("1.1.0", ALL, "1.1.0"),
        ("1.1.0", ("0.3.1", "0.4.0", "1.0.0"), "1.0.0"),
        ("1.1.0", ("1.0.0",), "1.0.0"),
        ("1.0.0", ALL, "1.0.0"),
        ("0.4.0", ALL, "0.4.0"),
        ("0.4.0", ("1.0.0",), "0.4.0"),
        ("1.1.0", ("9.9.9",), "1.1.0"),
        ("1.1.0", "", "1.1.0"),
        ("1.1.0", "garbage", "1.1.0"),
        ("1.1.0", "[]", "1.1.0"),
        ("1.1.0", "{}", "1.1.0"),
        ("1.1.0", '{"supportedVersions": 7}', "1.1.0"),
        ("1.1.0", '{"supportedVersions": [7, "1.0.0"]}', "1.0.0"),
        ("1.1.0", r"\0377", "1.1.0"),
        ("1.1.0", r'{"a": "\0377"}', "1.1.0"),
    ],
)
async def test_version(plugin: Make, delegate: Delegate, asked: str, known: tuple[str, ...] | str, used: str) -> None:
    """A plugin is asked in the newest version that both know; one that does not tell is asked in the configuration's."""
    made = plugin(says(GOOD), known)
    await delegate.add(ATTACHMENT, made.call(cniVersion=asked))

    assert made.stdin["cniVersion"] == used


async def test_version_is_asked_once(plugin: Make, delegate: Delegate) -> None:
    """Which versions a plugin knows is asked once, and again when another one lies in its place."""
    made = plugin(says(GOOD))
    for _ in range(2):
        await delegate.add(ATTACHMENT, made.call())
    assert made.calls == ["VERSION", "ADD", "ADD"]

    os.utime(made.path, (1, 1))
    await delegate.add(ATTACHMENT, made.call())
    assert made.calls[3:] == ["VERSION", "ADD"]


@pytest.mark.parametrize(
    "does",
    [
        "",
        "echo hello",
        r"printf '\377\376'",
        r"""printf '{"ips": [{"address": "\377"}]}'""",
        "echo []",
        says({"ips": 7}),
        says({"ips": [{"gateway": "10.1.0.1"}]}),
        says({"ips": [{"address": "garbage"}]}),
        says({"ips": [{"address": "10.1.0.5/33"}]}),
        says(GOOD | {"routes": [{"gw": "10.1.0.1"}]}),
    ],
)
async def test_garbage(plugin: Make, delegate: Delegate, does: str) -> None:
    """A plugin that succeeds with something that is no result is refused with its name, as what cannot be decoded."""
    error = await failure(delegate, plugin(does))

    assert isinstance(error, Refused)
    assert (error.code, "IPAM plugin fake-ipam answered ADD" in error.message) == (errors.DECODING_FAILURE, True)


async def test_no_address(plugin: Make, delegate: Delegate) -> None:
    """A plugin that succeeds without an address is refused."""
    assert "without an address" in (await failure(delegate, plugin(says({"ips": []})))).message


@pytest.mark.parametrize(
    ("document", "family", "code", "words"),
    [
        ({"code": 100, "msg": "no range", "details": "is left"}, Refused, 100, "failed to ADD: no range: is left"),
        ({"code": 11, "msg": "later"}, Retry, 11, "failed to ADD: later"),
        ({"code": "11", "msg": "later"}, Retry, 11, "failed to ADD: later"),
        ({"msg": "no code"}, Refused, 999, "failed to ADD: no code"),
        ({"code": "x", "msg": "bad code"}, Refused, 999, "exit code 3 and no error document"),
        ([], Refused, 999, "exit code 3 and no error document"),
        (None, Refused, 999, "exit code 3 and no error document"),
    ],
)
async def test_failure(  # noqa: PLR0917  a row of the table
    plugin: Make, delegate: Delegate, document: Any, family: type[PodvifError], code: int, words: str
) -> None:
    """A plugin's error keeps its code and words; code 11 is worth a repeat, the others are for somebody to change."""
    error = await failure(delegate, plugin(f"{says(document)}; exit 3"))

    assert (type(error), error.code) == (family, code)
    assert f"IPAM plugin fake-ipam {words}" in error.message or words in error.message


@pytest.mark.parametrize("does", ["exit 3", "echo hello; exit 3", r"printf '\377'; exit 3", "kill -9 $$"])
async def test_failure_without_a_document(plugin: Make, delegate: Delegate, does: str) -> None:
    """A plugin that fails without an error document, or is killed, is said to have."""
    error = await failure(delegate, plugin(does))

    assert "IPAM plugin fake-ipam failed to ADD: exit code" in error.message
    assert "no error document" in error.message


# The shell becomes sleep, or waits for one: killing the plugin does not end what it has started.
@pytest.mark.parametrize("does", ["exec sleep 4", "sleep 4; exit 0"])
async def test_hanging(plugin: Make, does: str) -> None:
    """A plugin that does not end in time is killed, which is worth a repeat, whatever it has started itself."""
    began = time.monotonic()
    error = await failure(Delegate(timeout=0.2), plugin(does))

    assert isinstance(error, Retry)
    assert "has not ended after 0.2 s" in error.message
    assert time.monotonic() - began < 3


async def test_given_up(plugin: Make, delegate: Delegate) -> None:
    """A call that is given up leaves no plugin running."""
    made = plugin("echo $$ > pid; exec sleep 60")
    task = asyncio.ensure_future(delegate.add(ATTACHMENT, made.call()))
    pid = made.folder / "pid"
    while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110  another process writes it
        await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_configuration_is_not_read(plugin: Make, delegate: Delegate) -> None:
    """A plugin that answers without reading its configuration, however long that is, has answered."""
    made = plugin()
    made.path.write_text(f"#!/bin/sh\n{says(GOOD)}\n")

    assert (await delegate.add(ATTACHMENT, made.call(long="x" * 500_000))).ips[0].address == "10.1.0.5/24"


async def test_missing(plugin: Make, delegate: Delegate) -> None:
    """A plugin that is in no directory of CNI_PATH, or cannot be run, is refused with its name and the directories."""
    made = plugin()
    made.path.chmod(0o644)
    assert f"IPAM plugin fake-ipam is in none of /nowhere, {made.folder}" in (await failure(delegate, made)).message

    made.path.write_text("no program")
    made.path.chmod(0o755)
    assert f"IPAM plugin {made.path} cannot be run" in (await failure(delegate, made)).message


@pytest.mark.parametrize("name", ["/bin/sh", "../sh", "..", "."])
def test_path_for_a_name(name: str) -> None:
    """An ipam.type that is a path is refused: it names an executable in CNI_PATH."""
    with pytest.raises(Refused, match=r"ipam\.type .* is no plugin name"):
        find(IpamCall(config(ipam={"type": name}), ("/",), "", ""))


def test_first_directory_wins(tmp_path: Path) -> None:
    """Of two plugins of one name the one in the earlier directory of CNI_PATH is taken; a directory is no plugin."""
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "x").mkdir()
    for folder in ("b", "c"):
        (tmp_path / folder / "x").touch(0o755)
    call = IpamCall(config(ipam={"type": "x"}), tuple(str(tmp_path / folder) for folder in "abc"), "", "")

    assert (plugin_name(call), find(call)) == ("x", str(tmp_path / "b" / "x"))


@pytest.mark.parametrize(
    ("versions", "called"), [(ALL, True), (("0.4.0",), True), (("0.3.1",), False), (("1.0.0",), True)]
)
async def test_check(plugin: Make, delegate: Delegate, versions: tuple[str, ...], *, called: bool) -> None:
    """CHECK goes, with prevResult, to a plugin whose version has it."""
    made = plugin(versions=versions)
    await delegate.check(ATTACHMENT, made.call(), GOOD)

    assert ("CHECK" in made.calls) is called
    assert not called or made.stdin["prevResult"] == GOOD


async def test_check_fails(plugin: Make, delegate: Delegate) -> None:
    """A lease that the plugin does not know any more fails CHECK with the plugin's words."""
    with pytest.raises(Refused, match="failed to CHECK: no such lease"):
        await delegate.check(ATTACHMENT, plugin(f"{says({'msg': 'no such lease'})}; exit 1").call(), GOOD)


@pytest.mark.parametrize(("versions", "called"), [(ALL, True), (("0.4.0", "1.0.0"), False)])
async def test_collect(plugin: Make, delegate: Delegate, versions: tuple[str, ...], *, called: bool) -> None:
    """GC goes, without an attachment and with the list of valid ones, to a plugin that knows CNI 1.1 alone."""
    made = plugin(versions=versions)
    valid = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "b"}]}
    await delegate.collect(made.call(**valid))

    assert ("GC" in made.calls) is called
    if called:
        assert "CNI_CONTAINERID" not in made.env
        assert made.stdin["cni.dev/valid-attachments"] == valid["cni.dev/valid-attachments"]
