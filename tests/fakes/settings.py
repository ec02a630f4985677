"""kuryr.conf for a node in a folder."""

from pathlib import Path
from typing import Any

import msgspec

from podvif.settings import Settings, load


def settings(folder: Path, **changes: Any) -> Settings:
    """The defaults, with every path below `folder`; both directories of sockets are made."""
    paths = {"mount_point": folder / "pods", "ovs_vhu_path": folder / "ovs"}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    below = {
        "ovsdb_connection": f"unix:{folder}/ovs/db.sock",
        "cni_socket": f"{folder}/cni.sock",
        "state_dir": f"{folder}/state",
        "metrics_bind": "",
    }
    values: dict[str, Any] = {name: str(path) for name, path in paths.items()} | below | changes
    return msgspec.structs.replace(load([]), **values)
