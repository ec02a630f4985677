"""OCI image archives from this machine's own files, without a container engine and without a registry.

Law: an image has what it names and, of each program in it, the libraries that the dynamic loader would look for; the same
files give the same archive.  For a private cluster alone: podvif's own images come from deploy/image.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podvif.lab import programs
from podvif.lab.process import LabError, output

PAUSE = "localhost/podvif/lab-pause:1"
"""The sandbox's own container."""

APP = "localhost/podvif/lab-testpmd:1"
"""Busybox and dpdk-testpmd: example pods and tests run it."""

PMDS = ("bus_vdev", "net_virtio", "mempool_ring", "net_ring")
"""The DPDK drivers that an application on a vhost-user socket needs."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Image:
    """What is in an image.

    Attributes:
        name: as pods name it, with a tag.
        files: path in the image and what is put there: a file of ours, or bytes.
        links: path in the image and where the symbolic link leads.
        folders: empty folders; of mode 01777, for anybody.
        entrypoint: its program and arguments; a pod may name others.
    """

    name: str
    files: Mapping[str, Path | bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()
    entrypoint: Sequence[str] = ()


def pause() -> Image:
    """An image whose program does nothing until it is killed."""
    command = ("/bin/busybox", "sleep", "2147483647")
    return Image(PAUSE, {"bin/busybox": Path(programs.busybox())}, entrypoint=command)


def app() -> Image:
    """An image with a shell and its usual commands, and dpdk-testpmd with the drivers for a vhost-user socket."""
    busybox = programs.busybox()
    applets = output([busybox, "--list"]).split()
    links = {f"bin/{name}": "busybox" for name in applets if name != "busybox"}
    testpmd = Path(programs.testpmd())
    drivers = _drivers()
    stdbuf = [Path(programs.require("stdbuf", "coreutils")), *Path("/usr/libexec/coreutils").glob("libstdbuf.so")]
    files: dict[str, Path | bytes] = {"bin/busybox": Path(busybox)}
    # Busybox's own network clients crash: without a dynamic loader glibc cannot look up even an address.
    bash = Path(programs.require("bash", "bash"))
    binaries = [testpmd, bash, *stdbuf, *drivers]
    for path in [*binaries, *libraries(binaries)]:
        # One file of many names stays one: a driver that is loaded twice registers twice.
        real = path.parent / path.resolve().name
        files[_inner(real)] = path
        if real != path:
            links[_inner(path)] = real.name
    files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    files["etc/group"] = b"root:x:0:\nnogroup:x:65534:\n"
    # Debian's libc looks below /lib/<triplet> and /usr/lib/<triplet>, which are one folder there.
    links |= {"lib": "usr/lib", "lib64": "usr/lib64"}
    return Image(APP, files, links, ("tmp", "run", "var/run", "root"), ("/bin/sh",))


def libraries(binaries: Iterable[Path]) -> list[Path]:
    """Every shared library that the programs and libraries need, the loader included, as the loader names them."""
    found: set[Path] = set()
    for binary in binaries:
        for line in output(["ldd", str(binary)]).splitlines():
            place = line.split("=>")[-1].split()
            if place and place[0].startswith("/"):
                found.add(Path(place[0]))
            elif "not found" in line:
                raise LabError(f"{binary} needs a library that is not there: {line.strip()}")
    return sorted(found)


def _drivers() -> list[Path]:
    folders = sorted(Path("/usr/lib").glob("*/dpdk/pmds-*"))
    if not folders:
        raise LabError("DPDK's drivers are not there: install the Debian package dpdk")
    return [path for name in PMDS for path in sorted(folders[-1].glob(f"librte_{name}.so*"))]


def _inner(path: Path) -> str:
    """Where a file of ours is in an image, whose /lib is /usr/lib."""
    text = str(path).lstrip("/")
    return text if text.startswith("usr/") or not text.startswith("lib") else f"usr/{text}"


def write(image: Image, archive: Path) -> None:
    """Write an image as an OCI archive, which `ctr images import` reads; it is there when it is whole."""
    layer = _layer(image)
    digest = _digest(layer)
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    place = {"architecture": architecture, "os": "linux"}
    settings = {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/", "Entrypoint": list(image.entrypoint)}
    config = _document({**place, "rootfs": {"type": "layers", "diff_ids": [digest]}, "config": settings})
    kind = "application/vnd.oci.image"
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": _about(f"{kind}.config.v1+json", config),
            "layers": [_about(f"{kind}.layer.v1.tar", layer)],
        }
    )
    names = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rsplit(":", 1)[1]}
    entry = _about(f"{kind}.manifest.v1+json", manifest) | {"annotations": names, "platform": place}
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (config, manifest, layer)}
    index = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    index["index.json"] = _document({"schemaVersion": 2, "manifests": [entry]})
    new = archive.with_suffix(".new")
    with tarfile.open(new, "w") as out:
        for name, content in (index | blobs).items():
            out.addfile(_member(name, size=len(content)), io.BytesIO(content))
    new.replace(archive)


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def parents(name: str) -> None:
            for parent in reversed([str(each) for each in Path(name).parents if str(each) != "."]):
                if parent not in made and parent not in image.links:
                    made.add(parent)
                    tar.addfile(_member(parent, kind=tarfile.DIRTYPE, mode=0o755))

        for name in image.folders:
            parents(name)
            made.add(name)
            tar.addfile(_member(name, kind=tarfile.DIRTYPE, mode=0o1777))
        for name, target in sorted(image.links.items()):
            parents(name)
            tar.addfile(_member(name, kind=tarfile.SYMTYPE, mode=0o777, target=target))
        for name, source in sorted(image.files.items()):
            parents(name)
            content = source if isinstance(source, bytes) else source.read_bytes()
            mode = 0o644 if isinstance(source, bytes) else source.stat().st_mode & 0o755
            tar.addfile(_member(name, size=len(content), mode=mode), io.BytesIO(content))
    return buffer.getvalue()


def _member(
    name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, target: str = ""
) -> tarfile.TarInfo:
    """Root's, of no date: the same content is the same image."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname = size, kind, mode, target
    return info


def _document(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _about(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}
