"""The build hook that puts the executable ``podvif-cni`` into the wheel, so that ``pip install`` lays it beside ``podvif``.

Law: the executable depends on the source and on the Go toolchain, and on nothing else of the machine: no path, time, flag
or state of the version control gets in, so two builds give the same bytes.  Hatchling runs the hook for every wheel, an
editable one included.  It compiles ``shim/`` into a temporary folder, tells the executable the two facts that have their
home elsewhere (the project's version, the daemon's list of CNI versions) and hands it over as a script of the wheel.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EXECUTABLE = "podvif-cni"
SHIM = "shim"
VERSIONS_MODULE = "src/podvif/core/cni.py"
VERSIONS_NAME = "SUPPORTED_VERSIONS"

# What a wheel's tag calls the processor that Go knows by another name. These are the ones that Open vSwitch with DPDK
# and Go both run on.
PROCESSORS = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "loong64": "loongarch64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
}

WHAT_TO_INSTALL = (
    "Install Go 1.19 or later (Debian and Ubuntu: apt-get install golang-go; Fedora: dnf install golang; any system: "
    "https://go.dev/dl/), and see that `go` is on PATH."
)


class ShimBuildError(Exception):
    """The executable cannot be built; the message says why and what to do."""


class ShimBuildHook(BuildHookInterface[BuilderConfig]):
    """Builds ``shim/`` and adds the executable to the wheel."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile the executable and register it as a script, before hatchling collects the files of the wheel."""
        if self.target_name != "wheel":  # An sdist carries the source.
            return
        # It is also removed when the build fails later on and `finalize` is never called.
        self._folder = tempfile.TemporaryDirectory(prefix="podvif-cni-")
        executable = Path(self._folder.name) / EXECUTABLE
        try:
            processor = build_shim(Path(self.root), self.metadata.version, executable)
        except ShimBuildError as error:
            # The message alone: below a traceback of the build backend nobody would find what to install.
            raise SystemExit(f"{EXECUTABLE} cannot be built: {error}") from error
        build_data["shared_scripts"][str(executable)] = EXECUTABLE
        build_data["pure_python"] = False
        build_data["tag"] = wheel_tag(processor)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the temporary folder, once the wheel is written."""
        if self._folder is not None:
            self._folder.cleanup()


def build_shim(root: Path, version: str, executable: Path) -> str:
    """Compile ``root/shim`` to ``executable`` and return the processor it is for, in the words of a wheel's tag.

    Args:
        root: The root of the project.
        version: The version of the project, which the executable tells the daemon.
        executable: The file to write; its mode becomes 0755 whatever the umask is.

    Raises:
        ShimBuildError: Go is missing, fails, or builds for a processor that has no name here; or the list of CNI
            versions cannot be read.
    """
    versions = ",".join(supported_versions(root / VERSIONS_MODULE))
    shim = root / SHIM
    goarch = run_go(shim, "env", "GOARCH").strip()
    if goarch not in PROCESSORS:
        known = ", ".join(sorted(PROCESSORS))
        raise ShimBuildError(f"GOARCH is {goarch}, and podvif is built for one of {known}. Set GOARCH to one of them.")
    stamps = f"-s -w -buildid= -X main.version={version} -X main.supportedVersions={versions}"
    run_go(shim, "build", "-trimpath", "-buildvcs=false", "-ldflags", stamps, "-o", str(executable), ".")
    executable.chmod(0o755)
    return PROCESSORS[goarch]


def wheel_tag(processor: str) -> str:
    """Return the tag of a wheel that runs on every Linux of this processor, since a static executable asks for no libc."""
    platforms = ("manylinux_2_17", "manylinux2014", "musllinux_1_1")
    return "py3-none-" + ".".join(f"{platform}_{processor}" for platform in platforms)


def supported_versions(module: Path) -> tuple[str, ...]:
    """Read the CNI versions, oldest first, from the source of the module that owns them.

    The module is parsed, not imported: its own imports are not there while a wheel is being built.

    Raises:
        ShimBuildError: The module or the assignment is missing, or it is no literal tuple of versions in rising order.
    """
    try:
        tree = ast.parse(module.read_bytes(), str(module))
    except (OSError, SyntaxError) as error:
        raise ShimBuildError(f"the CNI versions cannot be read: {error}") from error
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if name == VERSIONS_NAME:
                return _checked_versions(module, value)
    raise ShimBuildError(f"{module} does not assign {VERSIONS_NAME}.")


def _checked_versions(module: Path, value: ast.expr) -> tuple[str, ...]:
    try:
        versions = ast.literal_eval(value)
    except ValueError:
        versions = None
    # The executable takes the last one for the newest, and the list travels as words between commas.
    if (
        not isinstance(versions, tuple | list)
        or not versions
        or not all(isinstance(one, str) and re.fullmatch(r"\d+\.\d+\.\d+", one) for one in versions)
        or sorted(versions, key=_as_numbers) != list(versions)
    ):
        raise ShimBuildError(f"{VERSIONS_NAME} in {module} has to be a literal tuple of versions, oldest first.")
    return tuple(versions)


def _as_numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def run_go(folder: Path, *arguments: str) -> str:
    """Run ``go`` in a folder and return what it prints.

    Raises:
        ShimBuildError: ``go`` is missing, or fails; the message then holds what it said.
    """
    go = shutil.which("go")
    if go is None:
        raise ShimBuildError(f"it is written in Go, and there is no `go` on PATH. {WHAT_TO_INSTALL}")
    # The environment of the person stays (GOARCH, caches, proxies) but for what would change the executable: a libc, the
    # system that is built for, flags, and a workspace that happens to lie above.
    environment = os.environ | {"CGO_ENABLED": "0", "GOOS": "linux", "GOFLAGS": "", "GOWORK": "off"}
    done = subprocess.run([go, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ShimBuildError(
            f"`go {arguments[0]}` ended with exit code {done.returncode}:\n{done.stderr.strip()}\n"
            f"If this Go is older than 1.19, that is the reason. {WHAT_TO_INSTALL}"
        )
    return done.stdout
