"""Images without an engine."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from podvif.lab.image import Image, write


def _contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def _image(folder: Path) -> Image:
    program = folder / "program"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o4775)
    files: dict[str, Path | bytes] = {"usr/lib/program": program, "etc/passwd": b"root\n"}
    return Image("localhost/test:1", files, {"lib": "usr/lib"}, ("tmp",), ("/usr/lib/program",))


def test_whole(tmp_path: Path) -> None:
    """An archive's index names a manifest, and that a configuration and a layer, each by size and digest; all are there."""
    archive = tmp_path / "image.tar"
    write(_image(tmp_path), archive)
    contents = _contents(archive)

    def blob(about: dict[str, Any]) -> bytes:
        found = contents["blobs/sha256/" + about["digest"].removeprefix("sha256:")]
        assert (len(found), "sha256:" + hashlib.sha256(found).hexdigest()) == (about["size"], about["digest"])
        return found

    (entry,) = json.loads(contents["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    (layer,) = manifest["layers"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/test:1"
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert config["config"]["Entrypoint"] == ["/usr/lib/program"]
    with tarfile.open(fileobj=io.BytesIO(blob(layer))) as tar:
        members = {member.name: member for member in tar}
    assert members["lib"].linkname == "usr/lib"
    assert members["tmp"].mode == 0o1777
    assert members["usr/lib/program"].mode == 0o755
    assert members["usr/lib"].isdir()


def test_same(tmp_path: Path) -> None:
    """The same files give the same archive, whoever wrote them and when."""
    write(_image(tmp_path), tmp_path / "one.tar")
    (tmp_path / "program").touch()
    write(_image(tmp_path), tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
