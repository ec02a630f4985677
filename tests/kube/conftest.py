"""The kube tier: podvif's adapter on a real kube-apiserver with a real etcd.

Law: one server serves the whole session; a test that stops it starts it again.  Cases of the contract also run on the fake,
anywhere.  A machine that cannot have the real one says why and skips it.
"""

import asyncio
import contextlib
import functools
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from podvif.kube.resources import CRDS, NAMESPACES, Document, Key, Where, key_of
from podvif.lab.kube import KubeApi, folder_of_programs
from podvif.lab.process import LabError
from tests.kube.rights import audit_flags
from tests.kube.worlds import MANAGER, SECONDS, FakeWorld, RealWorld, World

CRD = Path(__file__).parents[2] / "deploy" / "crds" / "podvifs.podvif.io.yaml"


@functools.cache
def why_not_real() -> str | None:
    """Why this machine has no API server, or None when it has."""
    try:
        folder_of_programs()
    except LabError as error:
        return str(error)
    return None


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """The server that all tests share, with the CRD."""
    if reason := why_not_real():
        pytest.skip(reason)  # also in CI: the build says why where it cannot be done
    folder = tmp_path_factory.mktemp("kube")
    with KubeApi(folder, *audit_flags(folder)) as api:
        yield api


@pytest.fixture(scope="session")
def crd() -> Document:
    """The CRD as it is shipped."""
    return msgspec.yaml.decode(CRD.read_bytes(), type=Document)


async def serves(world: RealWorld, crd: Document) -> None:
    """Install the CRD, and wait until the server serves its kind."""
    key = Key("", crd["metadata"]["name"])
    await world.kube.apply(CRDS, key, crd, MANAGER)
    await world.kube.apply(NAMESPACES, Key("", world.namespace), {}, MANAGER)
    async with asyncio.timeout(SECONDS):
        _, version = await world.listed(CRDS, itself := Where(fields=f"metadata.name={key.name}"))
        if _established(await world.kube.get(CRDS, key)):
            return
        async for event in world.kube.watch(CRDS, version, itself):
            if key_of(event.document) == key and _established(event.document):
                return


def _established(crd: Document | None) -> bool:
    conditions = ((crd or {}).get("status") or {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


@contextlib.asynccontextmanager
async def visited(api: KubeApi, crd: Document) -> AsyncIterator[RealWorld]:
    """The real server for one test; it runs again when that ends."""
    world = RealWorld(api)
    try:
        await serves(world, crd)
        yield world
    finally:
        await world.kube.close()
        with warnings.catch_warnings():
            # A connection whose TLS handshake is cancelled is left to the collector by the library.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        api.resume()
        if not api.api.alive():
            api.start()


@pytest.fixture
async def real(api: KubeApi, crd: Document) -> AsyncIterator[RealWorld]:
    """The real server."""
    async with visited(api, crd) as world:
        yield world


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, crd: Document) -> AsyncIterator[World]:
    """An API server, the fake one or the real one."""
    if request.param == "fake":
        yield FakeWorld()
        return
    async with visited(request.getfixturevalue("api"), crd) as world:
        yield world
