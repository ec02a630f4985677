"""`podvif node` whose pods have directories of their own, whose owners the network configuration says ("testAccess").

Law: what the rights are is podvif's own; only who says whose the directory is stands in here.
"""

import sys
from typing import Any

import msgspec

from podvif.core.cni import Request
from podvif.model import Access, Entry, SocketDir
from podvif.names import socket_path
from podvif.node import main
from podvif.node.drivers import Drivers
from podvif.node.sources import Standalone

OWN = sys.argv[1]
"""The folder of the pods' own directories."""

_entries, _drivers = Standalone.entries, Drivers.__init__
_made: list[Drivers] = []


def _remember(self: Drivers, *parts: Any) -> None:
    _drivers(self, *parts)
    _made.append(self)


async def _owned(self: Standalone, request: Request) -> list[Entry]:
    entries = []
    for entry in await _entries(self, request):
        access = msgspec.convert(request.config["testAccess"], Access)
        own = SocketDir(f"{OWN}/{entry.attachment.container_id[:12]}")
        _made[0].guard.make_parent(OWN)
        _made[0].guard.make_directory(own, access)
        vif = msgspec.structs.replace(entry.vif, socket=socket_path(own, entry.vif.name))
        entries.append(msgspec.structs.replace(entry, vif=vif, access=access))
    return entries


if __name__ == "__main__":
    Drivers.__init__ = _remember  # type: ignore[method-assign, assignment]  # the daemon makes them itself
    Standalone.entries = _owned  # type: ignore[method-assign]  # and this
    main.run([value for flag, value in zip(sys.argv[1:], sys.argv[2:], strict=False) if flag == "--config-file"])
