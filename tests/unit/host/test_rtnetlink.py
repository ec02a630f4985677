"""What the kernel says of devices: the loopback of this machine, and answers that this machine need not give."""

import errno
import ipaddress
import socket
import struct

import pytest

from podvif.host import rtnetlink
from podvif.host.rtnetlink import Kernel, messages


def message(kind: int, payload: bytes, length: int | None = None) -> bytes:
    """One netlink message, padded; `length` lies about it."""
    size = 16 + len(payload)
    return struct.pack("=IHHII", length or size, kind, 0, 1, 0) + payload + b"\0" * (-size % 4)


class Scripted(Kernel):
    """A kernel that gives these answers, one after the other."""

    def __init__(self, *answers: bytes) -> None:
        self._link = Answers(answers)  # type: ignore[assignment]  # what is used of a socket


class Answers:
    """A socket that has been told what to say."""

    def __init__(self, answers: tuple[bytes, ...]) -> None:
        self._answers = list(answers)

    def send(self, data: bytes) -> int:
        """Takes everything."""
        return len(data)

    def recv(self, size: int) -> bytes:
        """The next answer."""
        assert len(self._answers[0]) <= size
        return self._answers.pop(0)


DONE = message(3, b"\0" * 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def route(index: int, *more: bytes, family: int = socket.AF_INET, kind: int = 1, length: int = 0) -> bytes:
    fixed = struct.pack("=8BI", family, length, 0, 0, 254, 0, 0, kind, 0)
    return message(24, fixed + attribute(4, struct.pack("=I", index)) + b"".join(more))


def test_loopback() -> None:
    """A device is found by its name and by its number, and is the same."""
    with Kernel() as kernel:
        by_name = kernel.device("lo")
        assert by_name
        assert (by_name.name, by_name.mac, by_name.kind, by_name.master) == ("lo", "00:00:00:00:00:00", "", 0)
        assert by_name.index == socket.if_nametoindex("lo")
        assert kernel.device(by_name.index) == by_name


def test_addresses_of_the_loopback() -> None:
    """Addresses are this device's alone, as `ipaddress` writes them; a second question gets its own answer."""
    with Kernel() as kernel:
        found = kernel.device("lo")
        assert found
        addresses = list(kernel.addresses(found.index))
        assert addresses == list(kernel.addresses(found.index))
        assert all(ipaddress.ip_interface(address).is_loopback for address in addresses)
        assert ("127.0.0.1/8" in addresses) is found.up
        assert not list(kernel.addresses(0x7FFFFFFF))


def test_nobody() -> None:
    """A device that is not there is None, and has no routes."""
    with Kernel() as kernel:
        assert kernel.device("nobody0") is None
        assert kernel.device(0x7FFFFFFF) is None
        assert not list(kernel.routes(0x7FFFFFFF))


def test_routes() -> None:
    """Unicast routes that leave by the device are told, whatever else the kernel lists; a long table comes in parts."""
    gateway = attribute(5, socket.inet_aton("10.1.0.1"))
    first = [
        route(7, gateway),
        route(8, gateway),
        route(7, attribute(1, socket.inet_aton("10.1.0.5")), kind=2, length=32),
        route(7, family=128),
    ]
    second = [
        route(7, attribute(1, socket.inet_pton(socket.AF_INET6, "fd00::")), family=socket.AF_INET6, length=64),
        route(7, attribute(1, socket.inet_aton("10.9.0.0")), attribute(15, struct.pack("=I", 1000)), length=16),
    ]

    found = list(Scripted(b"".join(first), b"".join(second), DONE).routes(7))

    assert found == [("0.0.0.0/0", "10.1.0.1", 254), ("fd00::/64", None, 254), ("10.9.0.0/16", None, 1000)]


def test_error() -> None:
    """What the kernel refuses is raised with its errno; that there is no such device is an answer."""
    with pytest.raises(PermissionError):
        Scripted(message(2, struct.pack("=i", -errno.EPERM))).device("eth0")
    assert Scripted(message(2, struct.pack("=i", -errno.ENODEV))).device("eth0") is None


def test_unfinished() -> None:
    """An answer that was cut off ends what is read of it, and nothing goes in circles."""
    assert list(messages(message(24, b"abcd", length=4) + b"\0" * 3)) == [(24, b"")]
    assert rtnetlink._attributes(attribute(1, b"abcd") + struct.pack("=HH", 90, 2), 0) == {1: b"abcd"}
    assert rtnetlink._attributes(struct.pack("=HH", 0, 2), 0) == {}
