"""The policies for SELinux and AppArmor are of a form that their compilers take: that they do what they should needs their kernels.

Law: a compiler that is not installed is a skip that says so, and a failure where CI=true; nothing here loads a policy.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def found(program: str, package: str) -> str:
    """Path of a compiler."""
    if path := shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        return path
    reason = f"{program} is not there: install the Debian package {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def compiled(*command: str) -> None:
    """Run a compiler to its end; its words are the failure's."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_selinux(tmp_path: Path) -> None:
    """The module compiles, and can be packed."""
    source, module = DEPLOY / "selinux" / "podvif.te", str(tmp_path / "podvif.mod")
    compiled(found("checkmodule", "checkpolicy"), "-M", "-m", "-o", module, str(source))
    compiled(found("semodule_package", "semodule-utils"), "-o", str(tmp_path / "podvif.pp"), "-m", module)


def test_selinux_opens_no_control_socket() -> None:
    """No rule is about the type that the control sockets of Open vSwitch have."""
    rules = [line for line in (DEPLOY / "selinux" / "podvif.te").read_text().splitlines() if line.startswith("allow")]

    assert rules
    assert not [rule for rule in rules if "_var_run_t" in rule]


@pytest.mark.parametrize("name", ["podvif-pod", "podvif-vhost-user"])
def test_apparmor(tmp_path: Path, name: str) -> None:
    """The profile compiles; the other file does inside of one."""
    parser = found("apparmor_parser", "apparmor")
    text = (DEPLOY / "apparmor" / name).read_text()
    if name == "podvif-vhost-user":
        text = f"profile wrapped {{\n{text}\n}}\n"
    profile = tmp_path / name
    profile.write_text(text)
    compiled(parser, "--skip-kernel-load", "--skip-cache", "--quiet", str(profile))
