"""Two API servers under one contract: the fake in memory, and podvif's adapter on a real kube-apiserver.

Law: a case speaks to `kube` as podvif does, and to the world as a crash or an administrator would; it does not know which of
the two it has.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, Protocol

from podvif.kube.client import EVERYTHING, Event, Kube, Outcome, Page
from podvif.kube.resources import PODVIFS, Document, Key, Resource, Where
from podvif.lab.kube import KubeApi
from tests.fakes.kube import FakeKube

SECONDS = 30.0
"""The longest that a case waits for something that happens by itself."""

MANAGER = "podvif-test"


class Api(Protocol):
    """All that podvif needs of an API server."""

    def pages(self, resource: Resource, where: Where = EVERYTHING) -> AsyncIterator[Page]:
        """List."""

    def watch(
        self, resource: Resource, version: str, where: Where = EVERYTHING, *, window: float = 60.0
    ) -> AsyncIterator[Event]:
        """Watch."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """Get."""

    async def create(self, resource: Resource, document: Document, manager: str) -> Document | Outcome:
        """Create."""

    async def apply(
        self,
        resource: Resource,
        key: Key,
        document: Document,
        manager: str,
        *,
        status: bool = False,
        force: bool = True,
    ) -> Document | Outcome:
        """Server-side apply."""

    async def merge(
        self, resource: Resource, key: Key, document: Document, manager: str, *, status: bool = False
    ) -> Document | Outcome:
        """Merge patch."""

    async def delete(self, resource: Resource, key: Key, *, uid: str = "", version: str = "") -> Outcome | None:
        """Delete."""

    async def close(self) -> None:
        """Close."""


class World:
    """An API server, and what happens to it.

    Attributes:
        kube: podvif's side.
        namespace: the case's own.
    """

    def __init__(self, kube: Api) -> None:
        self.kube = kube
        self.namespace = f"case-{secrets.token_hex(4)}"

    def key(self, name: str = "p1") -> Key:
        """A key in the case's namespace."""
        return Key(self.namespace, name)

    @property
    def here(self) -> Where:
        """All objects of the case's namespace."""
        return Where(self.namespace)

    def podvif(self, name: str = "p1", **metadata: Any) -> Document:
        """A PodVif that nobody has had before."""
        spec = {"nodeName": "n1", "podUID": secrets.token_hex(8), "interfaces": [{"name": "eth0"}]}
        return {"metadata": {"namespace": self.namespace, "name": name, **metadata}, "spec": spec}

    async def made(self, name: str = "p1", **metadata: Any) -> Document:
        """A PodVif, made."""
        made = await self.kube.create(PODVIFS, self.podvif(name, **metadata), MANAGER)
        assert not isinstance(made, Outcome)
        return made

    async def listed(self, resource: Resource, where: Where) -> tuple[list[Document], str]:
        """A whole list and its version."""
        pages = [page async for page in self.kube.pages(resource, where)]
        return [item for page in pages for item in page.items], pages[-1].version

    # What happens to it; each world has its own way.

    async def lose(self) -> None:
        """The server ends, as in a crash."""
        raise NotImplementedError

    async def regain(self) -> None:
        """It is there again."""
        raise NotImplementedError

    def hang(self) -> None:
        """It takes requests and does not answer."""
        raise NotImplementedError

    def resume(self) -> None:
        """It goes on."""
        raise NotImplementedError

    async def forget(self) -> None:
        """All versions but the newest are forgotten."""
        raise NotImplementedError


class FakeWorld(World):
    """The fake server."""

    def __init__(self) -> None:
        self.fake = FakeKube()
        super().__init__(self.fake)

    async def lose(self) -> None:
        self.fake.lose()

    async def regain(self) -> None:
        self.fake.regain()

    def hang(self) -> None:
        self.fake.hang()

    def resume(self) -> None:
        self.fake.resume()

    async def forget(self) -> None:
        self.fake.forget()


class RealWorld(World):
    """podvif's adapter, and a private kube-apiserver."""

    def __init__(self, api: KubeApi, **arguments: Any) -> None:
        self.api = api
        super().__init__(Kube(str(api.kubeconfig), **arguments))

    async def lose(self) -> None:
        self.api.kill()

    async def regain(self) -> None:
        # In this thread, since the kernel ends children with the thread that started them; it takes a few seconds.
        self.api.start()
        await asyncio.sleep(0)

    def hang(self) -> None:
        self.api.pause()

    def resume(self) -> None:
        self.api.resume()

    async def forget(self) -> None:
        self.api.kill()  # it keeps a window of versions in memory
        self.api.compact()
        self.api.start()
