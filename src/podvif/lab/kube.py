"""A private etcd and kube-apiserver, on an address of their own in 127.0.0.0/8.

Law: what runs is Kubernetes' own code (lab/kubernetes, built by scripts/build-kube); everything is in one folder; it listens
on one loopback address that it has for itself, so that labs side by side do not collide and a server that was killed finds
its port free.  There is no kubelet, scheduler or controller manager: pods are objects, and nothing collects garbage.
`lab/controlplane.py` makes it the API server of a real cluster.
"""

import json
import os
import secrets
import signal
import ssl
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podvif.lab import programs
from podvif.lab.process import Child, LabError, output, wait_any

START = 60.0
"""Seconds that the server may take until it is ready; three where nothing else runs."""

PROGRAMS = "PODVIF_KUBERNETES"
"""The environment variable that names the folder of the programs, where they are not in the cache."""

_BUILD = Path(__file__).parents[3] / "scripts" / "build-kube"


def folder_of_programs() -> Path:
    """The folder that has etcd and kube-apiserver.

    Raises:
        LabError: they are not built.
    """
    if given := os.environ.get(PROGRAMS):
        if not (Path(given) / "kube-apiserver").exists():
            raise LabError(f"kube-apiserver is not in {given}: set {PROGRAMS} to the folder that has it and etcd")
        return Path(given)
    return build_folder("kubernetes", "kube-apiserver")


def build_folder(part: str, program: str) -> Path:
    """The folder of what `scripts/build-kube PART` builds, which has this program.

    Raises:
        LabError: it is not built; the message says how to.
    """
    if not _BUILD.exists():
        raise LabError(f"{program} is not there: it is built by scripts/build-kube of podvif's source tree")
    folder = Path(output([str(_BUILD), "--where", part]).strip())
    if not (folder / program).exists():
        raise LabError(f"{program} is not in {folder}: run scripts/build-kube {part}, which takes some minutes")
    return folder


class KubeApi:
    """etcd and kube-apiserver; they run inside the `with` block unless a method stopped them.

    Args:
        folder: for all that they write; belongs to the caller, and stays.
        flags: more flags of kube-apiserver.

    Attributes:
        address: where they listen.
        port: of the API, https.
        kubeconfig: an administrator's.
        certificate: what the server shows; it signs itself.
        token: an administrator's.
        nobody: the token of a user without rights.
        programs: the folder that has Kubernetes' programs.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.address = ".".join(["127", *(str(secrets.randbelow(253) + 1) for _ in range(3))])
        self.port, self._etcd_port, self._peer_port = 6443, 2379, 2380
        self.kubeconfig = folder / "admin.kubeconfig"
        self.certificate = folder / "apiserver.crt"
        self._key = folder / "apiserver.key"
        self._tokens = folder / "tokens.csv"
        self._flags = flags
        self._subject = "/CN=kube-apiserver"
        self.programs = folder_of_programs()
        self.token, self.nobody = secrets.token_hex(16), secrets.token_hex(16)
        self._where: list[str] = []  # what comes before a command
        self._etcd: Child | None = None
        self._api: Child | None = None

    def __enter__(self) -> Self:
        self._make_certificate()
        self._write_credentials()
        try:
            self.start_etcd()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in (self._api, self._etcd):
            if child is not None:
                child.kill()  # nobody needs what they would write in the end

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"https://{self.address}:{self.port}"

    @property
    def api(self) -> Child:
        """kube-apiserver's process."""
        if self._api is None:
            raise LabError("kube-apiserver was never started: use it in a with block")
        return self._api

    def write_kubeconfig(self, path: Path, *, url: str = "", token: str = "") -> Path:
        """A kubeconfig, of the administrator by default; `url` leads there by another way, for instance a proxy."""
        cluster = {"server": url or self.url, "certificate-authority": str(self.certificate)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token or self.token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
            "current-context": "lab",
        }
        path.write_text(json.dumps(document))  # JSON is YAML
        return path

    # -- what happens to it --------------------------------------------------------------------------------------------

    def start_etcd(self) -> None:
        """Start etcd; it may take a moment until it answers, which kube-apiserver waits for."""
        client, peer = (f"http://{self.address}:{port}" for port in (self._etcd_port, self._peer_port))
        command = [*self._where, str(self.programs / "etcd"), "--name", "lab", "--data-dir", str(self.folder / "etcd")]
        command += ["--unsafe-no-fsync", "--log-level", "warn", "--initial-cluster", f"lab={peer}"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        self._etcd = Child(command, log=self.folder / "etcd.log", name="etcd")

    def start(self, timeout: float = START) -> float:
        """Start kube-apiserver and wait until it is ready; returns the seconds it took.

        Raises:
            LabError: it ended first, or was not ready after `timeout` seconds; the message has its last words.
        """
        began = time.monotonic()
        self._api = Child(
            [*self._where, *self._command()], log=self.folder / "kube-apiserver.log", name="kube-apiserver"
        )
        while not self.ready():
            if not self._api.alive():
                raise self._api.died()
            if time.monotonic() > began + timeout:
                raise LabError(f"kube-apiserver is not ready; its last words:\n{self._api.last_words()}")
            wait_any([self._api.pidfd], 0.05)  # it says nothing when it is ready: ask again soon, or when it ends
        return time.monotonic() - began

    def _command(self) -> list[str]:
        flags = self._settings()
        return [str(self.programs / "kube-apiserver"), *(f"--{name}={flags[name]}" for name in flags), *self._flags]

    def _settings(self) -> dict[str, str]:
        """Flags of kube-apiserver."""
        return {
            "etcd-servers": f"http://{self.address}:{self._etcd_port}",
            "bind-address": self.address,
            "secure-port": str(self.port),
            "advertise-address": "192.0.2.1",  # TEST-NET-1: a loopback address is refused, and nobody goes there
            "endpoint-reconciler-type": "none",
            "tls-cert-file": str(self.certificate),
            "tls-private-key-file": str(self._key),
            "token-auth-file": str(self._tokens),
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": str(self.certificate),
            "service-account-signing-key-file": str(self._key),
            "service-cluster-ip-range": "192.0.2.0/24",
            # There is no controller manager that makes a service account for each namespace.
            "disable-admission-plugins": "ServiceAccount",
            "profiling": "false",
        }

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        try:
            self._read("/readyz")
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request of the administrator and its answer.

        Raises:
            OSError: there was none, or it says no.
        """
        answered: dict[str, Any] = json.loads(self._read(path, method, body))
        return answered

    def _read(self, path: str, method: str = "GET", body: dict[str, Any] | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  https
        trust = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=5, context=trust) as answer:  # noqa: S310  https
            read: bytes = answer.read()
            return read

    def kill(self) -> None:
        """kube-apiserver ends by SIGKILL, as in a crash."""
        self.api.kill()

    def pause(self) -> None:
        """kube-apiserver neither answers nor ends (SIGSTOP)."""
        self.api.send(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self.api.send(signal.SIGCONT)

    def compact(self) -> None:
        """Have etcd forget every version but the newest."""
        base = f"http://{self.address}:{self._etcd_port}/v3"
        revision = _post(f"{base}/kv/range", {"key": "AA=="})["header"]["revision"]
        _post(f"{base}/kv/compaction", {"revision": revision, "physical": True})

    # -- its credentials -----------------------------------------------------------------------------------------------

    def _make_certificate(self) -> None:
        """One certificate, which the server shows and clients trust; its key also signs service accounts' tokens."""
        names = f"subjectAltName={','.join(self._names())}"
        usage = "keyUsage=critical,digitalSignature,keyCertSign"
        command = [programs.openssl(), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-subj", self._subject, "-days", "3650", "-addext", names, "-addext", usage]
        output([*command, "-keyout", str(self._key), "-out", str(self.certificate)])

    def _names(self) -> list[str]:
        """What the certificate is for, as openssl writes it."""
        return [f"IP:{self.address}", "IP:127.0.0.1", "DNS:localhost", "DNS:kubernetes.default.svc"]

    def _write_credentials(self) -> None:
        self._tokens.touch(0o600)
        self._tokens.write_text("".join(f"{line}\n" for line in self._users()))
        self.write_kubeconfig(self.kubeconfig)

    def _users(self) -> list[str]:
        """Lines of a token file: token, name, UID, groups."""
        return [f'{self.token},admin,admin,"system:masters"', f"{self.nobody},nobody,nobody"]


def _post(url: str, document: dict[str, Any]) -> dict[str, Any]:
    """Ask etcd's JSON gateway."""
    request = urllib.request.Request(url, json.dumps(document).encode())  # noqa: S310  http on loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  likewise
        answered: dict[str, Any] = json.load(answer)
        return answered
