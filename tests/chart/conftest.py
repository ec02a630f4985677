"""The chart tier: helm renders the chart, and a real kube-apiserver judges what comes out.

Law: a machine without helm (scripts/build-helm) or without the API server (scripts/build-kube) says why and skips what needs it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif.lab.kube import KubeApi
from podvif.lab.process import LabError
from tests.chart.helm import Helm
from tests.chart.objects import Objects

ROOT = Path(__file__).parents[2]


def _helm() -> str | None:
    if given := os.environ.get("PODVIF_HELM") or shutil.which("helm"):
        return given
    where = subprocess.run([ROOT / "scripts" / "build-helm", "--where"], check=True, capture_output=True, text=True)
    built = Path(where.stdout.strip()) / "helm"
    return str(built) if built.exists() else None


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm, with folders of its own."""
    if (program := _helm()) is None:
        pytest.skip("helm is not there: run scripts/build-helm, or set PODVIF_HELM")
    return Helm(program, ROOT / "deploy" / "helm" / "podvif", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """A kube-apiserver for all tests, with the kinds of Multus and of the Prometheus operator."""
    try:
        server = KubeApi(tmp_path_factory.mktemp("kube"), "--allow-privileged=true")
    except LabError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def objects(api: KubeApi) -> Objects:
    """Its objects."""
    found = Objects(api)
    found.prepare()
    return found
