"""A candidate in a process of its own, to be killed: kubeconfig, namespace, name and identity, and the three times."""

import asyncio
import sys

from podvif.kube.client import Kube
from podvif.kube.elector import Elector, Timing
from podvif.kube.resources import Key


async def main(config: str, namespace: str, name: str, identity: str, *times: str) -> None:
    """Stand, and say so when elected."""

    async def lead() -> None:
        print(f"{identity} leads", flush=True)
        await asyncio.Event().wait()

    await Elector(Kube(config), Key(namespace, name), identity, Timing(*map(float, times))).run(lead)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
