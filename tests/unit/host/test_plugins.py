"""The runtime's directories: what appears there is whole, and what is somebody else's stays."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from podvif.errors import Refused
from podvif.host import plugins

CONFIGURATION = json.dumps({"cniVersion": "1.0.0", "name": "podvif", "plugins": [{"type": "podvif-cni"}]})
OTHERS = json.dumps({"cniVersion": "1.0.0", "name": "other", "type": "bridge"})


def test_executable_appears_and_goes(tmp_path: Path) -> None:
    """The plugin is there with its mode, once is enough, and nothing else is left when it goes."""
    source, directory = tmp_path / "source", tmp_path / "bin"
    directory.mkdir()
    source.write_bytes(b"new")

    assert plugins.put_executable(str(source), str(directory))
    assert (directory / "podvif-cni").read_bytes() == b"new"
    assert (directory / "podvif-cni").stat().st_mode & 0o7777 == 0o755
    assert not plugins.put_executable(str(source), str(directory))
    assert plugins.remove_executable(str(directory))
    assert not plugins.remove_executable(str(directory))
    assert os.listdir(directory) == []  # noqa: PTH208


def test_running_executable_is_replaced(tmp_path: Path) -> None:
    """A plugin that runs is replaced under its name, and the call that runs ends as it would have."""
    directory = tmp_path / "bin"
    directory.mkdir()
    plugins.put_executable("/bin/cat", str(directory))
    with subprocess.Popen([directory / "podvif-cni"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        newer = tmp_path / "newer"
        newer.write_bytes(b"#!/bin/false\n")

        assert plugins.put_executable(str(newer), str(directory))
        out, _ = running.communicate(b"still here")

    assert (out, running.returncode) == (b"still here", 0)
    assert (directory / "podvif-cni").read_bytes() == b"#!/bin/false\n"


def test_leftover_of_a_killed_installer(tmp_path: Path) -> None:
    """What an installer that was killed has left is taken by the next one."""
    (tmp_path / ".podvif-cni.new").write_bytes(b"half")
    (tmp_path / "source").write_bytes(b"whole")

    assert plugins.put_executable(str(tmp_path / "source"), str(tmp_path))
    assert not (tmp_path / ".podvif-cni.new").exists()


def test_missing_directory(tmp_path: Path) -> None:
    """A directory that is not there is refused by its name."""
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(Refused, match="no-such"):
        plugins.put_executable(str(tmp_path / "source"), str(tmp_path / "no-such"))


def test_missing_source(tmp_path: Path) -> None:
    """A plugin that the package does not have is refused by its path."""
    with pytest.raises(Refused, match="no-such"):
        plugins.put_executable(str(tmp_path / "no-such"), str(tmp_path))


def test_configuration(tmp_path: Path) -> None:
    """Our configuration is put, put again when it differs, and removed."""
    newer = CONFIGURATION.replace("1.0.0", "1.1.0")

    assert plugins.put_configuration(CONFIGURATION, str(tmp_path), "10-podvif.conflist")
    assert not plugins.put_configuration(CONFIGURATION, str(tmp_path), "10-podvif.conflist")
    assert plugins.put_configuration(newer, str(tmp_path), "10-podvif.conflist")
    assert (tmp_path / "10-podvif.conflist").read_text() == newer
    assert plugins.remove_configuration(str(tmp_path), "10-podvif.conflist")
    assert list(tmp_path.iterdir()) == []


def test_configuration_of_another(tmp_path: Path) -> None:
    """A configuration of our name that does not name the plugin is neither written over nor removed."""
    (tmp_path / "10-podvif.conf").write_text(OTHERS)

    with pytest.raises(Refused, match="somebody else"):
        plugins.put_configuration(CONFIGURATION, str(tmp_path), "10-podvif.conf")
    assert not plugins.remove_configuration(str(tmp_path), "10-podvif.conf")
    assert (tmp_path / "10-podvif.conf").read_text() == OTHERS


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"plugins": {}}', b'{"plugins": [1]}', b'{"type": "x"}']
)
def test_names_no_plugin(data: bytes) -> None:
    """What is no configuration, or another plugin's, does not name ours."""
    assert not plugins.names_plugin(data)


def test_names_plugin() -> None:
    """A list and a single plugin's configuration name ours."""
    assert plugins.names_plugin(CONFIGURATION.encode())
    assert plugins.names_plugin(b'{"type": "podvif-cni"}')


def test_directory_that_is_used(tmp_path: Path) -> None:
    """A directory is removed when nothing is in it."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").touch()

    assert not plugins.remove_directory(str(tmp_path / "d"))
    (tmp_path / "d" / "f").unlink()
    assert plugins.remove_directory(str(tmp_path / "d"))
    assert not plugins.remove_directory(str(tmp_path / "d"))


def test_directory_by_a_link(tmp_path: Path) -> None:
    """A directory that is called by a link, as a container calls the host's, is removed itself."""
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")

    assert plugins.remove_directory(str(tmp_path / "link"))
    assert not (tmp_path / "d").exists()
