"""`podvif node` whose kernel ports are hybrid: Neutron alone asks for such ports, and here is none.

Law: what the port's kind decides is podvif's own; only who says which kind it is stands in here.
"""

import sys

from podvif.core import translate
from podvif.model import PortKind, Vif
from podvif.node import main

_kernel_vif = translate._kernel_vif


def _hybrid(kind: PortKind, port: str, *, mac: str, mtu: int, bridge: str, vlan: int | None = None) -> Vif:
    return _kernel_vif(
        PortKind.HYBRID if kind is PortKind.VETH else kind, port, mac=mac, mtu=mtu, bridge=bridge, vlan=vlan
    )


if __name__ == "__main__":
    translate._kernel_vif = _hybrid
    main.run([value for flag, value in zip(sys.argv[1:], sys.argv[2:], strict=False) if flag == "--config-file"])
