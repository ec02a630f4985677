"""What the controller adds to Neutron: a storm of pods, beside the same ports asked of Neutron itself.

Law: Neutron's own time is that of the bare requests, by podvif's client, at the same concurrency, in the same run and in turn with
the storms, each of the two being first as often as the other; so it has nothing in it of the API server or of the decisions.  A
storm is over when the API server has every PodVif as bound.  `python -m bench.controller` runs this part alone.
"""

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from bench.rows import Row, Rows
from podvif.core.ports import INTERFACE_TAG
from podvif.kube.client import Kube, Outcome
from podvif.kube.resources import CRDS, NAMESPACES, PODS, PODVIFS, Document, Key, Where
from podvif.lab import ovs
from podvif.lab.controller import Controller
from podvif.lab.hugepages import hugepages
from podvif.lab.kube import KubeApi, folder_of_programs
from podvif.lab.neutron import PrivateNeutron, look_for_all
from podvif.lab.neutron_files import Mechanism
from podvif.lab.process import LabError
from podvif.model import PortRequest
from podvif.neutron import access
from podvif.neutron.client import Neutron

NEUTRON = "Neutron alone"
PODVIF = "pods to PodVifs that are bound"
RSS = "RSS with pods and PodVifs"

_CRD = Path(__file__).resolve().parents[1] / "deploy" / "crds" / "podvifs.podvif.io.yaml"
_NAMESPACE = "storm"
_MANAGER = "podvif-bench"
_AT_ONCE = 16
_SECONDS = 600.0


class Bench:
    """An API server, a Neutron and a controller between them."""

    def __init__(self, folder: Path, api: KubeApi, neutron: PrivateNeutron) -> None:
        self.neutron = neutron
        self.network, self.subnet = neutron.network("10.7.0.0/16", name="pods")
        more = {"neutron_defaults": {"pod_subnet": "pods"}, "controller": {"lease_namespace": _NAMESPACE}}
        self.controller = Controller(folder, kubeconfig=api.kubeconfig, neutron=neutron.options(), more=more)
        self._kubeconfig = str(api.kubeconfig)

    @asynccontextmanager
    async def kube(self) -> AsyncIterator[Kube]:
        """A client of the API server, which has the CRD and the namespace."""
        kube = Kube(self._kubeconfig, seconds=60)
        try:
            crd = msgspec.yaml.decode(_CRD.read_bytes(), type=Document)
            await kube.apply(CRDS, Key("", crd["metadata"]["name"]), crd, _MANAGER)
            await kube.apply(NAMESPACES, Key("", _NAMESPACE), {}, _MANAGER)
            yield kube
        finally:
            await kube.close()

    async def storm(self, kube: Kube, pods: int) -> float:
        """Make pods at once; the seconds until all are bound.

        Raises:
            LabError: some were not, or a port was made twice.
        """
        names = [f"p{number}" for number in range(pods)]
        version = (await _listed(kube))[1]
        began = time.monotonic()
        making = asyncio.gather(*(_make_pod(kube, name, self.neutron.host) for name in names))
        bound: set[str] = set()
        async with asyncio.timeout(_SECONDS):
            async for event in _forever(kube, version):
                conditions = (event.get("status") or {}).get("conditions") or []
                if any((one["type"], one["status"]) == ("Bound", "True") for one in conditions):
                    bound.add(event["metadata"]["name"])
                if len(bound) == pods:
                    break
        took = time.monotonic() - began
        await making
        ports = len(self.neutron.ask("GET", "/ports?device_owner=compute:kuryr&fields=id")["ports"])
        if ports != pods:
            raise LabError(f"{pods} pods have {ports} ports")
        return took

    async def calm(self, kube: Kube, pods: int) -> float:
        """Remove the pods; the seconds until their ports and PodVifs are gone."""
        began = time.monotonic()
        await asyncio.gather(*(kube.delete(PODS, Key(_NAMESPACE, f"p{number}")) for number in range(pods)))
        async with asyncio.timeout(_SECONDS):
            while (await _listed(kube))[0]:  # noqa: ASYNC110  it is not timed finer than that
                await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def alone(self, ports: int, folder: Path) -> float:
        """Ask Neutron itself for as many ports; the seconds that took."""
        file = folder / "neutron.conf"
        file.write_text(
            "\n".join(["[neutron]", *(f"{key} = {value}" for key, value in self.neutron.options().items())])
        )
        client = Neutron(access.load([str(file)]))
        try:
            await client.network(self.network)
            await client.subnet(self.subnet)
            await client.extensions()
            gate = asyncio.Semaphore(_AT_ONCE)

            async def one(number: int) -> str:
                request = PortRequest(
                    network_id=self.network,
                    host_id=self.neutron.host,
                    device_id=str(uuid.uuid4()),
                    device_owner=client.device_owner,
                    name=f"{_NAMESPACE}/p{number}:eth0",
                    subnet_ids=(self.subnet,),
                    tags=("bench", f"{INTERFACE_TAG}eth0"),  # without the mark: the sweep has nothing to do with it
                )
                async with gate:
                    return (await client.create_port(request)).id

            began = time.monotonic()
            made = await asyncio.gather(*(one(number) for number in range(ports)))
            took = time.monotonic() - began
            await asyncio.gather(*(client.delete_port(port) for port in made))
        finally:
            await client.close()
        return took


async def _make_pod(kube: Kube, name: str, node: str) -> None:
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": "none"}]}
    document = {"metadata": {"namespace": _NAMESPACE, "name": name}, "spec": spec}
    if isinstance(await kube.create(PODS, document, _MANAGER), Outcome):
        raise LabError(f"pod {name} could not be made")


async def _listed(kube: Kube) -> tuple[list[Document], str]:
    pages = [page async for page in kube.pages(PODVIFS, Where(_NAMESPACE))]
    return [item for page in pages for item in page.items], pages[-1].version


async def _forever(kube: Kube, version: str) -> AsyncIterator[Document]:
    while True:
        async for event in kube.watch(PODVIFS, version, Where(_NAMESPACE)):
            version = event.document["metadata"]["resourceVersion"]
            yield event.document


@contextmanager
def booted(folder: Path) -> Iterator[Bench]:
    """The parts, up; what they need is looked for before the first one starts.

    Raises:
        LabError: a part is missing.
    """
    look_for_all(Mechanism.OVN)
    folder_of_programs()
    kube, neutron = folder / "k", folder / "n"
    kube.mkdir(parents=True)
    with hugepages(ovs.PAGES), PrivateNeutron(neutron) as real, KubeApi(kube) as api:
        yield Bench(folder / "c", api, real)


def measure(rows: Rows, folder: Path, pods: int, turns: int, namespaces: list[str]) -> None:
    """Adds rows of section controller, and the name of its network namespace as soon as there is one.

    Raises:
        LabError: a part is missing or did not do what it should.
    """
    with booted(folder) as bench:
        namespaces.append(bench.neutron.box.name)
        asyncio.run(_turns(bench, rows, folder, pods, turns))


async def _turns(bench: Bench, rows: Rows, folder: Path, pods: int, turns: int) -> None:
    async with bench.kube() as kube:
        with bench.controller as controller:
            await bench.storm(kube, 2)  # the first ones find nothing cached anywhere
            await bench.calm(kube, 2)
            for turn in range(turns):
                if turn % 2 == 0:
                    rows.take(Row("controller", NEUTRON, "s", standing=pods), await bench.alone(pods, folder))
                rows.take(Row("controller", PODVIF, "s", standing=pods), await bench.storm(kube, pods))
                rows.take(Row("controller", RSS, "MB", standing=pods), controller.rss_kib() * 1024 / 1e6)
                await bench.calm(kube, pods)
                if turn % 2 == 1:
                    rows.take(Row("controller", NEUTRON, "s", standing=pods), await bench.alone(pods, folder))


def main() -> None:
    """This part alone: pods and turns may be given."""
    pods, turns = (int(argument) for argument in [*sys.argv[1:], "200", "3"][:2])
    rows = Rows()
    with tempfile.TemporaryDirectory(prefix="podvif-bench-") as folder:
        measure(rows, Path(folder), pods, turns, [])
    for row in rows.rows:
        print(f"{row.what}, {row.standing}: {', '.join(f'{sample:.2f}' for sample in row.samples)} {row.unit}")


if __name__ == "__main__":
    main()
