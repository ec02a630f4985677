"""Plain os-vif, as its other users run it: a process of its own with one connection to OVSDB that os-vif itself made.

Law: nothing of podvif is in here.  One line of JSON asks for ports to be plugged or unplugged, one line answers with the seconds
of each call; the objects are built beforehand, so that only os-vif is timed.
"""

import json
import logging
import os
import sys
import time
from typing import Any

# os-vif pulls in oslo.service, which starts eventlet unless it is told otherwise before anything of it is used.
from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

import os_vif  # noqa: E402
from os_vif.objects import instance_info, network  # noqa: E402
from os_vif.objects import vif as os_vif_vif  # noqa: E402
from oslo_config import cfg  # noqa: E402
from vif_plug_ovs import privsep  # noqa: E402


def prepare(ovsdb: str) -> None:
    """Load os-vif in process, as root: no privsep daemon, native OVSDB."""
    logging.getLogger().setLevel(logging.ERROR)
    cfg.CONF([], project="podvif-bench", default_config_files=[], default_config_dirs=[])
    os_vif.initialize()
    cfg.CONF.set_override("ovsdb_connection", ovsdb, "os_vif_ovs")
    privsep.vif_plug.set_client_mode(False)
    os_vif.initialize(reset=True)  # the plug-in copied the address when it was loaded


def vif(port: dict[str, Any]) -> tuple[Any, Any]:
    """os-vif's objects for one port."""
    profile = os_vif_vif.VIFPortProfileOpenVSwitch(interface_id=port["id"], datapath_type="netdev")
    made = os_vif_vif.VIFVHostUser(
        id=port["id"],
        address=port["mac"],
        network=network.Network(id=port["id"], bridge=port["bridge"], mtu=port["mtu"]),
        port_profile=profile,
        plugin="ovs",
        mode=port["mode"],
        path=port["path"],
        vif_name=port["name"],
        has_traffic_filtering=False,
        preserve_on_delete=False,
        active=False,
    )
    return made, instance_info.InstanceInfo(uuid=port["id"], name=port["name"])


def timed(verb: str, ports: list[dict[str, Any]]) -> list[float]:
    """Seconds of each call."""
    do = {"plug": os_vif.plug, "unplug": os_vif.unplug}[verb]
    seconds = []
    for made, instance in [vif(port) for port in ports]:
        began = time.perf_counter()
        do(made, instance)
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Answer until stdin ends; argv[1] is OVSDB's address."""
    # Libraries may print; the pipe is ours alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    prepare(sys.argv[1])
    print("ready", file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(timed(asked["verb"], asked["ports"])), file=answers)


if __name__ == "__main__":
    main()
