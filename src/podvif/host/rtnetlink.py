"""What the kernel says of network devices, their addresses and their routes, asked by NETLINK_ROUTE.

Law: it looks and changes nothing (`podvif.host.veth` does, by pyroute2).  What is asked is what the calling thread's network
namespace has.  pyroute2 answers the same questions, but a millisecond each: it starts an event loop, and decodes each
attribute of a device and every route of the namespace; the kernel itself needs 20 microseconds, so a look can be taken where
the daemon's own loop runs.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import msgspec

_RTM_GETLINK = 18  # linux/rtnetlink.h
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300  # linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_TYPE = 0x3FFF  # NLA_TYPE_MASK
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_DEVICE = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct(
    "=8BI"
)  # rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_UNICAST = 1  # RTN_UNICAST
_UP = 0x1  # IFF_UP of net/if.h
_DEFAULT = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}
_GONE = frozenset({errno.ENODEV, errno.ENOENT})
_BUFFER = 1 << 16


class Device(msgspec.Struct, frozen=True):
    """A network device.

    Attributes:
        index: its number in its namespace.
        name: its name.
        mac: lower case with colons, empty where it has none.
        mtu: bytes of layer 3.
        up: administratively.
        kind: as `ip link add type` has it, empty for hardware.
        link: number of the device that it hangs on; of a veth, the other end's, in that one's namespace.
        master: number of the bridge that it is in, 0 for none.
    """

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    kind: str
    link: int
    master: int


class Kernel:
    """A way to ask the kernel about the network namespace of the thread that opens it; a context manager."""

    def __enter__(self) -> Self:
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        with contextlib.suppress(OSError):  # before Linux 4.20 the kernel lists all there is, and we pick
            self._link.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    def device(self, which: str | int) -> Device | None:
        """The device of that name or number, None when there is none.

        Raises:
            OSError: the kernel does not say, with its errno.
        """
        index, named = (which, b"") if isinstance(which, int) else (0, _attribute(_IFLA_IFNAME, which.encode() + b"\0"))
        try:
            found = self._ask(_RTM_GETLINK, _DEVICE.pack(0, 0, index, 0, 0) + named)
            return _device(found[0][1])
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def addresses(self, index: int) -> Iterator[str]:
        """The addresses of a device with their prefix lengths, as `ipaddress` writes them.

        Raises:
            OSError: the kernel does not say.
        """
        for kind, payload in self._ask(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, index), _NLM_F_DUMP):
            _, length, _, _, of = _ADDRESS.unpack_from(payload)
            if (kind, of) == (_RTM_NEWADDR, index):
                found = _attributes(payload, _ADDRESS.size)
                yield f"{ipaddress.ip_address(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])}/{length}"

    def routes(self, index: int) -> Iterator[tuple[str, str | None, int]]:
        """The unicast routes that leave by a device alone: destination, gateway, table.

        Raises:
            OSError: the kernel does not say.
        """
        asked = _ROUTE.pack(*[0] * 9) + _attribute(_RTA_OIF, _NUMBER.pack(index))
        for kind, payload in self._ask(_RTM_GETROUTE, asked, _NLM_F_DUMP):
            family, length, _, _, table, _, _, of, _ = _ROUTE.unpack_from(payload)
            if (kind, of) != (_RTM_NEWROUTE, _UNICAST) or family not in _DEFAULT:
                continue
            found = _attributes(payload, _ROUTE.size)
            if _number(found, _RTA_OIF) != index:
                continue
            text = f"{socket.inet_ntop(family, found[_RTA_DST])}/{length}" if _RTA_DST in found else _DEFAULT[family]
            gateway = socket.inet_ntop(family, found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else None
            yield text, gateway, _number(found, _RTA_TABLE) or table

    def _ask(self, kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        """Kind and payload of each message of the answer; of a dump all are read, so that the next answer is the next one's."""
        self._link.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0) + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            for of, payload in messages(self._link.recv(_BUFFER)):
                if of == _NLMSG_DONE:
                    return answers
                if of == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    raise OSError(number, os.strerror(number))
                answers.append((of, payload))
            if not flags:
                return answers


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of each message in what a netlink socket has given."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += max(length, _HEADER.size) + 3 & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(payload: bytes, offset: int) -> dict[int, bytes]:
    """What stands behind a message's fixed part; a value that the kernel has not finished is left out."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if not _ATTRIBUTE.size <= length <= len(payload) - offset:
            break
        found[kind & _TYPE] = payload[offset + _ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3
    return found


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(_NUMBER.unpack(found[kind])[0]) if kind in found else 0


def _text(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode()


def _device(payload: bytes) -> Device:
    _, _, index, flags, _ = _DEVICE.unpack_from(payload)
    found = _attributes(payload, _DEVICE.size)
    return Device(
        index=index,
        name=_text(found, _IFLA_IFNAME),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, _IFLA_MTU),
        up=bool(flags & _UP),
        kind=_text(_attributes(found.get(_IFLA_LINKINFO, b""), 0), _IFLA_INFO_KIND),
        link=_number(found, _IFLA_LINK),
        master=_number(found, _IFLA_MASTER),
    )
