"""Who answers at OVSDB's address, asked in a few bytes of its own protocol (RFC 7047).

Law: it changes nothing in the database and holds nothing when it returns.  The library says only that it could not get the
schema; here the cause is told apart: nothing there, nobody listening, no right, no answer, no OVSDB, or somebody else's
database.
"""

import contextlib
import errno
import json
import os
import socket
import stat
from typing import Any

import msgspec

_DATABASE = "Open_vSwitch"
_LOCK = "ovs_vswitchd"
"""The lock that vswitchd holds for as long as it runs (OVS vswitchd/bridge.c, bridge_init)."""

_SECONDS = 2.0
_ANSWER_MAX = 1 << 20
_AS_ROOT = "run it as root"
_MEND = "start ovsdb-server, or mend [vif_plug_ovs] ovsdb_connection"


class Found(msgspec.Struct, frozen=True):
    """What is at the address.

    Attributes:
        trouble: why it is not an Open vSwitch's database, one clause; None when it is.
        remedy: what to do about that.
        vswitchd: whether an ovs-vswitchd works on that database; None when that could not be asked.
    """

    trouble: str | None = None
    remedy: str = ""
    vswitchd: bool | None = None


def look(remote: str, seconds: float = _SECONDS) -> Found:
    """Ask whoever listens at `remote`, for at most about `seconds` for each of two questions.

    An ssl: address is not asked: it needs certificates, and whoever has them connects with them.
    """
    kind, _, where = remote.partition(":")
    if kind not in {"unix", "tcp"}:
        return Found()
    if kind == "unix" and (missing := _why_no_socket(where)):
        return missing
    if kind == "tcp" and not where.rpartition(":")[2].isdigit():
        return Found("it names no port", "write it as tcp:ADDRESS:PORT")
    try:
        with _connect(kind, where, seconds) as link:
            return _ask(link)
    except TimeoutError:
        return Found(f"it does not answer within {seconds:g} s", "look whether ovsdb-server hangs; see its log")
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Found(f"{error.strerror} for uid {os.geteuid()}", _AS_ROOT)
        if error.errno == errno.ECONNREFUSED:
            return Found("nobody listens there", _MEND)
        return Found(str(error.strerror or error), _MEND)
    except ValueError:
        return Found("what answers there is no ovsdb-server", "mend [vif_plug_ovs] ovsdb_connection")


def _why_no_socket(path: str) -> Found | None:
    try:
        found = os.stat(path)  # noqa: PTH116  the vocabulary of this package is strings
    except FileNotFoundError:
        return Found("there is no such file", _MEND)
    except PermissionError as error:
        return Found(f"{error.strerror} for uid {os.geteuid()}", _AS_ROOT)
    except OSError as error:
        return Found(str(error.strerror), _MEND)
    if not stat.S_ISSOCK(found.st_mode):
        return Found("it is no socket", "mend [vif_plug_ovs] ovsdb_connection")
    return None


def _connect(kind: str, where: str, seconds: float) -> socket.socket:
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), seconds)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    link.settimeout(seconds)
    try:
        link.connect(where)
    except BaseException:
        link.close()
        raise
    return link


def _ask(link: socket.socket) -> Found:
    databases = _call(link, "list_dbs", [])
    if not isinstance(databases, list):
        raise ValueError("no list")  # noqa: TRY004  it is the far end's fault, as text that is no JSON is
    if _DATABASE not in databases:
        others = ", ".join(str(name) for name in databases if name != "_Server")
        return Found(
            f"it serves {others or 'no database'} and not {_DATABASE}: it is not Open vSwitch's",
            "mend [vif_plug_ovs] ovsdb_connection",
        )
    return Found(vswitchd=_vswitchd_holds(link))


def _vswitchd_holds(link: socket.socket) -> bool | None:
    """Whether somebody holds vswitchd's lock.

    If nobody does it is ours for the time of two messages; a vswitchd that starts just then takes it right after.
    """
    answer = _call(link, "lock", [_LOCK])
    with contextlib.suppress(OSError):
        link.sendall(_message("unlock", [_LOCK]))
    return not answer["locked"] if isinstance(answer, dict) and "locked" in answer else None


def _call(link: socket.socket, method: str, parameters: list[Any]) -> Any:
    """The answer to one call.

    Raises:
        ValueError: it is none.
        OSError: the connection fails.
    """
    link.sendall(_message(method, parameters))
    data = b""
    decoder = json.JSONDecoder()
    while len(data) < _ANSWER_MAX:
        piece = link.recv(1 << 16)
        if not piece:
            raise ValueError("the answer was cut short")
        data += piece
        try:  # messages follow one another without a mark between them
            answer, _ = decoder.raw_decode(data.decode())
        except ValueError:
            continue
        if not isinstance(answer, dict) or answer.get("error") is not None:
            raise ValueError("no answer")
        return answer.get("result")
    raise ValueError("too long an answer")


def _message(method: str, parameters: list[Any]) -> bytes:
    return json.dumps({"method": method, "params": parameters, "id": method}).encode()
