"""What a pod asks for and cannot have, and what Neutron binds and podvif cannot plug: said in an event and in the condition.

Law: one row, one pod; all of them stand at once, as in a cluster where many things are wrong.
"""

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.neutron.stage import RealStage, controller

pytestmark = pytest.mark.node

TAKEN, TAKEN_MAC, MAC = "10.6.0.77", "02:00:00:00:00:77", "02:00:00:00:5a:01"
NOWHERE = str(uuid.uuid4())
LONG = "a-node-of-a-long-name." * 11 + "example"


class Row(msgspec.Struct, frozen=True):
    """A pod.

    Attributes:
        reason: what event and condition have to say.
        words: what the message has to say.
        networks: the annotation; a list is its JSON form.
        node: where it runs.
        waits: it is tried again by itself before long; else only seldom, and when something changes.
    """

    reason: str
    words: str
    networks: Any = ""
    node: str = ""
    waits: bool = False


ROWS = {
    "nad-missing": Row("NetworksRefused", r"NetworkAttachmentDefinition \S+/none is missing", "none"),
    "nad-elsewhere": Row("NetworksRefused", "there is one in namespace other-", "far"),
    "nad-bare": Row("NetworksRefused", "has neither the annotation", "bare"),
    "nad-broken": Row("NetworksRefused", "openstack.org/kuryr-config is broken JSON", "broken"),
    "nad-broken-config": Row("NetworksRefused", "spec.config is broken JSON", "broken-config"),
    "nad-no-uuid": Row("NetworksRefused", "is no UUID", "no-uuid"),
    "annotation-broken": Row("NetworksRefused", "networks is broken JSON", '[{"name": "fast"'),
    "annotation-of-100": Row("NetworksRefused", "asks for 101 interfaces", ",".join(["fast"] * 100)),
    "mac-twice": Row("NetworksRefused", f"mac {MAC} is eth1's already", [{"name": "fast", "mac": MAC}] * 2),
    "mac-taken": Row("PortNotMade", TAKEN_MAC, [{"name": "fast", "mac": TAKEN_MAC}], waits=True),
    "subnet-unknown": Row("PlaceUnknown", f"subnet {NOWHERE} not found", "unknown"),
    "address-taken": Row("PortNotMade", TAKEN, [{"name": "fast", "ips": [TAKEN]}], waits=True),
    "address-elsewhere": Row("PlaceUnknown", "192.0.2.7 is not in subnet", [{"name": "fast", "ips": ["192.0.2.7"]}]),
    "no-agent": Row("BindingFailed", "no agent with datapath netdev on node ghost", node="ghost", waits=True),
    "no-agent-on-a-long-name": Row("BindingFailed", f"on node {LONG}", node=LONG, waits=True),
    "hardware": Row("UnpluggableVif", "hw_veb", node="sriov-host"),
    "no-details": Row("UnpluggableVif", "vif_details", node="mute-host"),
    "unknown-mode": Row("UnpluggableVif", "sideways", node="odd-host"),
}


async def test_bad_input(stage: RealStage, tmp_path: Path) -> None:
    """Each pod that cannot be served says why, in an event and in its condition, waits for a bounded time, and leaves no port."""
    other = f"other-{stage.world.namespace}"
    await stage.subnet_nad("fast", stage.subnet)
    await stage.subnet_nad("far", stage.subnet, other)
    await stage.subnet_nad("unknown", NOWHERE)
    await stage.nad("bare")
    await stage.nad("broken", kuryr='{"subnetId": ')
    await stage.nad("no-uuid", kuryr='{"subnetId": "pods"}')
    await stage.nad("broken-config", config="{")
    taken = {"network_id": stage.network, "fixed_ips": [{"ip_address": TAKEN}], "mac_address": TAKEN_MAC}
    foreign = await asyncio.to_thread(lambda: stage.neutron.create("port", **taken))
    with controller(stage, tmp_path) as running:
        for name, row in ROWS.items():
            stage.node = row.node or stage.neutron.host
            networks = row.networks if isinstance(row.networks, str) else json.dumps(row.networks)
            await stage.pod(name, networks)
        for name, row in ROWS.items():
            condition = await stage.until_said(row.reason, name)
            assert condition.status == "False", name
            assert re.search(row.words, condition.message), (name, condition.message)
            assert re.search(row.words, (await stage.notes(name))[row.reason]), name
        log = running.log.read_text()
        for name, row in ROWS.items():
            waits = re.findall(rf"{row.reason}: .*{row.words}.*; next look in ([\d.]+) s", log)
            assert waits, name
            assert all((float(wait) < 15) == row.waits and float(wait) <= 300 for wait in waits), (name, waits)
        interfaces = {port["name"].partition("/")[2] for port in await stage.ports()}
        assert not {name for name in interfaces if name.startswith(("nad-", "annotation-", "mac-twice"))}
        for name in ROWS:
            await stage.remove_pod(name)
        await stage.until_bound()
    left = await asyncio.to_thread(stage.neutron.ask, "GET", "/ports?fields=id")
    assert [port["id"] for port in left["ports"]] == [foreign["id"]]
