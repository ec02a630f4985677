"""The units of systemd are of a form that systemd takes, and the rights that they and the chart leave podvif are enough.

Law: nothing here is started by systemd; docs/install.md says what was. A program that is not installed is a skip that says so,
and a failure where CI=true.
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_confinement import DEPLOY, found

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
LEFT = {
    "systemd/podvif-node.service": r"CapabilityBoundingSet=(.*)",
    "helm/podvif/templates/daemonset.yaml": r"add: \[(NET_ADMIN.*)\]",
}
"""Where the capabilities of `podvif node` stand."""

MAKE_SHARED = """
import sys
from podvif.node.guard import Guard
from podvif.settings import load

settings = load([sys.argv[1]])
Guard(settings, lambda: None).make_mount_point(settings.mount_point)
"""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_form(tmp_path: Path, unit: Path) -> None:
    """The service manager takes every line of the unit."""
    analyze = found("systemd-analyze", "systemd")
    for one in UNITS:  # they name each other
        (tmp_path / one.name).write_text(one.read_text().replace("/opt/podvif/bin/podvif", "/bin/true"))

    done = subprocess.run([analyze, "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("file", LEFT)
def test_capabilities_suffice_for_a_shared_directory(tmp_path: Path, file: str) -> None:
    """With the capabilities that it is left, podvif gives the shared directory its group, whose every new file has it too."""
    match = re.search(LEFT[file], (DEPLOY / file).read_text())
    assert match
    named = [f"+{word.removeprefix('CAP_').lower()}" for word in re.findall(r"\w+", match[1])]
    shared, conf = tmp_path / "shared", tmp_path / "kuryr.conf"
    shared.mkdir()
    conf.write_text(f"[vhostuser]\nmount_point = {shared}\nsocket_group = 62001\n")
    left = [found("setpriv", "util-linux"), f"--bounding-set={','.join(['-all', *named])}", "--"]

    subprocess.run([*left, sys.executable, "-c", MAKE_SHARED, str(conf)], check=True)

    status = shared.stat()
    assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (62001, 0o3775)
