"""The command line as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from podvif.cli import cli


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str) -> None:
    """The help lists every subcommand with what it does."""
    result = CliRunner().invoke(cli, [flag])

    assert result.exit_code == 0
    assert all(name in result.output for name in ("node", "status", "demo", "Serve the CNI plugin on this node."))


@pytest.mark.parametrize("name", ["node", "status", "demo", "demo-neutron"])
def test_help_of_a_subcommand(name: str) -> None:
    """Each subcommand that is listed is there and explains its options."""
    result = CliRunner().invoke(cli, [name, "--help"])

    assert result.exit_code == 0
    assert "--" in result.output


def test_unknown_subcommand() -> None:
    """A subcommand that is not there is refused by its name."""
    result = CliRunner().invoke(cli, ["frobnicate"])

    assert result.exit_code == 2
    assert "No such command 'frobnicate'" in result.output


def test_help_is_light() -> None:
    """Neither the help nor a listing of the commands imports anything heavy."""
    script = (
        "import sys; from podvif.cli import cli; cli(['--help'], standalone_mode=False)\n"
        "heavy = {'os_vif', 'ovsdbapp', 'oslo_config', 'rich', 'asyncio', 'msgspec'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "podvif", *arguments], capture_output=True, text=True, check=False)


def test_error_of_ours(tmp_path: Path) -> None:
    """An error of ours is two lines on standard error, what happened and what to do, and exit code 1."""
    done = run("status", "--socket", str(tmp_path / "gone"))

    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"podvif: the podvif node daemon cannot be reached at {tmp_path}/gone")
    assert second == "        start it (as root), or give --socket"
