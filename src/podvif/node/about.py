"""What the daemon says of itself: its version, what it runs with, and who has called.

Law: it is for `podvif doctor`, which compares it with what is installed and configured; nothing here is looked up anew.
"""

import socket
from typing import Any

import msgspec

from podvif.daemon.version import version
from podvif.settings import Settings


async def about(settings: Settings, plugin_version: str, metrics: str) -> dict[str, Any]:
    """What the daemon knows of itself, for `podvif doctor`.

    Args:
        settings: what it runs with.
        plugin_version: of the CNI plugin that called last.
        metrics: host and port of /metrics, empty when they are off.
    """
    return {
        "version": version(),
        "plugin_version": plugin_version,
        "metrics": metrics,
        "settings": msgspec.to_builtins(settings),
    }


def node_name(settings: Settings) -> str:
    """This node's name in Kubernetes: kubelet's own is the host's in lower case (pkg/util/node, GetHostname)."""
    return settings.node_name or socket.gethostname().strip().lower()
