"""Asking the node daemon something, over the socket that the CNI plugin uses."""

import base64
import json
import socket
import struct
from typing import Any

from podvif.errors import Bug, Retry

_LENGTH = struct.Struct(">I")
_SECONDS = 10.0


def ask(path: str, query: str) -> Any:
    """The daemon's answer to a query, decoded.

    Raises:
        Retry: no daemon listens there, or it does not answer.
        Bug: it answers with something else.
    """
    try:
        data = _exchange(path, json.dumps({"query": query}).encode())
    except (OSError, EOFError) as error:
        raise Retry(
            f"the podvif node daemon cannot be reached at {path}: {error}", "start it (as root), or give --socket"
        ) from error
    try:
        reply = json.loads(data)
        code, document = reply["code"], json.loads(reply["stdout"])
    except (ValueError, LookupError, TypeError) as error:
        raise Bug(f"what listens at {path} is no podvif node daemon of this version: {error}") from error
    if code != 0:
        raise Bug(str(document.get("msg", document)))
    return document


def why_not_ready(path: str, bin_dir: str) -> str | None:
    """Why the daemon cannot serve an ADD now, or None: what the runtime is told by CNI's STATUS.

    Args:
        path: the daemon's socket.
        bin_dir: the runtime's directory of plugins, which STATUS has to name (CNI_PATH).
    """
    config = json.dumps({"cniVersion": "1.1.0", "name": "podvif", "type": "podvif-cni"}).encode()
    request = {"env": {"CNI_COMMAND": "STATUS", "CNI_PATH": bin_dir}, "stdin": base64.b64encode(config).decode()}
    try:
        reply = json.loads(_exchange(path, json.dumps(request).encode()))
        return None if reply["code"] == 0 else str(json.loads(reply["stdout"])["msg"])
    except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
        return f"it does not answer at {path}: {error}"


def _exchange(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_SECONDS)
        link.connect(path)
        link.sendall(_LENGTH.pack(len(data)) + data)
        return receive(link)


def receive(link: socket.socket, most: int | None = None) -> bytes:
    """The payload of one frame of the plugin's protocol (shim/main.go).

    Raises:
        EOFError: it is cut short.
        ValueError: it announces more than `most` bytes.
        OSError: the connection's.
    """
    (length,) = _LENGTH.unpack(_exactly(link, _LENGTH.size))
    if most is not None and length > most:
        raise ValueError(f"a frame of {length} bytes")
    return _exactly(link, length)


def _exactly(link: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = link.recv(length - len(data))
        if not piece:
            raise EOFError("the answer was cut short")
        data += piece
    return data
