"""Telling systemd (or whoever started us) how far we are: the sd_notify protocol, sd_notify(3)."""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send `state`, as READY=1 or STOPPING=1, to $NOTIFY_SOCKET; without one nobody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # Whoever wanted to know may have gone: that is no reason to stop serving.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link, contextlib.suppress(OSError):
        link.sendto(state.encode(), address)
