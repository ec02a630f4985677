"""cnitool, the reference runtime of the CNI project, drives the plugin."""

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podvif.lab import programs
from podvif.lab.process import output
from podvif.lab.sandbox import Sandbox
from tests.node.support import MODES, Node

VERSION = "v1.3.0"
GO = (1, 21)
"""The oldest Go that compiles it."""

RESULTS = Path("/var/lib/cni/results")
"""Where libcni keeps results; cnitool has no option for it."""


def why_not_build() -> str | None:
    """Why cnitool cannot be built here, or None when it can."""
    if shutil.which("go") is None:
        return "cnitool cannot be built: there is no Go"
    found = re.search(r"go(\d+)\.(\d+)", output(["go", "version"]))
    if found is None or (int(found[1]), int(found[2])) < GO:
        return f"cnitool {VERSION} cannot be built: it needs Go {GO[0]}.{GO[1]}, {output(['go', 'version']).strip()}"
    return None


@pytest.fixture(scope="module")
def cnitool() -> Path:
    """The program; built once and kept in a cache folder."""
    root = os.environ.get("PODVIF_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(root).expanduser() / ("" if os.environ.get("PODVIF_CACHE") else "podvif") / f"cnitool-{VERSION}"
    program = folder / "cnitool"
    if not program.exists():
        if reason := why_not_build():
            pytest.skip(reason)  # also in CI: Debian 12 packages no Go that is new enough
        environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        output(["go", "install", f"github.com/containernetworking/cni/cnitool@{VERSION}"], timeout=110, env=environment)
    return program


@dataclass(frozen=True)
class Runtime:
    """A machine's CNI set-up: one network, and a folder of plugins.

    Attributes:
        program: cnitool.
        network: the network's name, which nobody else on this machine has.
        folder: configuration and plugins.
        box: the sandbox.
    """

    program: Path
    network: str
    folder: Path
    box: Sandbox

    @property
    def container_id(self) -> str:
        """What cnitool makes of the namespace's path."""
        return "cnitool-" + hashlib.sha512(str(self.box.netns).encode()).hexdigest()[:20]

    def run(self, verb: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """One call of cnitool."""
        given = {"PATH": os.environ["PATH"], "NETCONFPATH": str(self.folder), "CNI_PATH": str(self.folder / "bin")}
        return subprocess.run(
            [self.program, verb, self.network, str(self.box.netns)],
            env=given | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def does(self, verb: str, **environment: str) -> str:
        """One call that has to succeed; what it printed."""
        done = self.run(verb, **environment)
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    def write(self, **keys: Any) -> None:
        """The network's configuration list, of one plugin with these keys."""
        plugin = {key: value for key, value in keys.items() if key not in {"name", "cniVersion"}}
        document = {"cniVersion": keys.get("cniVersion", "1.1.0"), "name": self.network, "plugins": [plugin]}
        (self.folder / "10-net.conflist").write_text(json.dumps(document))

    @property
    def cached(self) -> list[Path]:
        """What libcni remembers of this network."""
        return list(RESULTS.glob(f"{self.network}-*"))


@pytest.fixture
def runtime(cnitool: Path, box: Sandbox, folder: Path) -> Iterator[Runtime]:
    plugins = folder / "bin"
    plugins.mkdir()
    for plugin in (programs.shim(), Path(programs.plugin_path()) / "host-local"):
        (plugins / plugin.name).symlink_to(plugin)
    runtime = Runtime(cnitool, f"podvif-test-{secrets.token_hex(4)}", folder, box)
    yield runtime
    left = runtime.cached
    for path in left:
        path.unlink()
    assert left == []


@pytest.mark.parametrize("mode", MODES)
def test_add_check_del(node: Node, runtime: Runtime, mode: str) -> None:
    """By cnitool ADD, CHECK and DEL succeed and leave nothing."""
    runtime.write(**node.network(mode))
    result = json.loads(runtime.does("add"))
    (interface,) = result["interfaces"]
    assert (interface["name"], interface["sandbox"]) == ("eth0", str(runtime.box.netns))
    assert Path(interface["socketPath"]).parent == node.mount_point
    assert (node.mount_point / f"{runtime.container_id}-eth0").exists()
    runtime.does("check")
    assert runtime.does("del") == ""
    assert runtime.does("del") == ""
    assert node.leftovers() == []


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_older_versions(node: Node, runtime: Runtime, version: str) -> None:
    """The answers in the older versions are read by cnitool as well."""
    runtime.write(**node.network(cniVersion=version))
    assert json.loads(runtime.does("add"))["cniVersion"] == version
    if version != "0.3.1":
        runtime.does("check")
    runtime.does("del")


def test_check_fails(node: Node, runtime: Runtime) -> None:
    """By cnitool CHECK fails with our words when the port is gone."""
    runtime.write(**node.network())
    runtime.does("add")
    (port,) = node.ovs.ports()
    node.ovs.pause_vswitchd()  # else it is mended before we ask
    try:
        node.ovs.vsctl("--no-wait", "del-port", port)
        failed = runtime.run("check")
    finally:
        node.ovs.resume_vswitchd()
    assert failed.returncode != 0
    assert port in failed.stderr
    runtime.does("del")


def test_status(node: Node, runtime: Runtime) -> None:
    """By cnitool STATUS succeeds on a node that is ready, and fails with the reason on one that is not."""
    runtime.write(**node.network())
    runtime.does("status")
    node.mount_point.rmdir()
    try:
        failed = runtime.run("status")
    finally:
        node.mount_point.mkdir()
    assert failed.returncode != 0
    assert str(node.mount_point) in failed.stderr


def test_gc(node: Node, runtime: Runtime) -> None:
    """By cnitool GC, which holds nothing for valid, succeeds and leaves nothing of the network."""
    runtime.write(**node.network())
    runtime.does("add")
    runtime.does("add", CNI_IFNAME="net1")
    runtime.does("gc")
    assert node.leftovers() == []


def test_capabilities(node: Node, runtime: Runtime) -> None:
    """What cnitool hands over as capabilities and arguments is honoured."""
    runtime.write(**node.network(capabilities={"mac": True, "ips": True}))
    wishes = json.dumps({"mac": "02:00:00:00:00:42", "ips": ["10.9.0.42/16"]})
    result = json.loads(runtime.does("add", CAP_ARGS=wishes, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=pod-1"))
    assert result["interfaces"][0]["mac"] == "02:00:00:00:00:42"
    assert result["ips"][0]["address"] == "10.9.0.42/16"
    assert [item["pod"] for item in node.status()["attachments"]] == ["/pod-1"]
    runtime.does("del")
