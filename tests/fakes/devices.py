"""Network devices in memory that behave: pairs whose ends go together, namespaces by path, numbers that do not come back.

Law: they run the same contract as the kernel's (tests/contract/test_devices.py).
"""

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from podvif import errors
from podvif.core.veth import route_key
from podvif.errors import Refused, Retry
from podvif.model import Pair, Route, SeenDevice

_HERE = ""
"""Our own namespace, which has no path."""


class FakeDevices:
    """The devices of all namespaces; a namespace is there until `lose_namespace`."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], SeenDevice] = {}
        self._other_end: dict[tuple[str, str], tuple[str, str]] = {}
        self._gone: set[str] = set()
        self._next = 2  # 1 is the loopback device

    # -- what podvif asks for ------------------------------------------------------------------------------------------

    def look_at(self, name: str) -> SeenDevice | None:
        found = self._found.get((_HERE, name))
        # Of a device in its own namespace podvif asks no more than the kernel's first answer.
        return found and msgspec.structs.replace(found, checksums_left_out=False)

    def look_into(self, namespace: str, name: str) -> SeenDevice | None:
        if namespace in self._gone:
            raise Retry(f"interface {name} of {namespace} cannot be looked at: No such file or directory")
        return self._found.get((namespace, name))

    def make(self, pair: Pair) -> None:
        if pair.namespace in self._gone:
            raise Retry(f"the pair {pair.host} cannot be made: No such file or directory")
        near, far = (_HERE, pair.host), (pair.namespace, pair.ifname)
        if near in self._found or far in self._found:
            raise Refused(f"the pair {pair.host} cannot be made: File exists", code=errors.IO_FAILURE)
        first, second = self._number(), self._number()
        self._found[near] = SeenDevice(first, pair.host_mac, pair.mtu, False, second, checksums_left_out=True)  # noqa: FBT003
        self._found[far] = SeenDevice(second, pair.mac, pair.mtu, False, first, checksums_left_out=True)  # noqa: FBT003
        self._other_end |= {near: far, far: near}

    def set_up(self, pair: Pair, addresses: Iterable[str], routes: Sequence[Route]) -> None:
        near, far = (_HERE, pair.host), (pair.namespace, pair.ifname)
        if near not in self._found or far not in self._found:
            raise Retry(f"network device {pair.host} or its other end is gone")
        self._found[near] = msgspec.structs.replace(self._found[near], mtu=pair.mtu, up=True)
        had = self._found[far]
        given = had.addresses | frozenset(addresses)
        networks = [ipaddress.ip_interface(address).network for address in given]
        for route in routes:
            if route.gw and not any(ipaddress.ip_address(route.gw) in network for network in networks):
                raise Refused(f"the route to {route.dst} cannot be made: Network is unreachable")
        self._found[far] = msgspec.structs.replace(
            had,
            mac=pair.mac,
            mtu=pair.mtu,
            up=True,
            checksums_left_out=False,
            addresses=given,
            routes=had.routes | {route_key(route) for route in routes},
        )

    def join(self, host: str, bridge: str) -> None:
        if (_HERE, host) not in self._found or (_HERE, bridge) not in self._found:
            raise Retry(f"network device {host} or {bridge} is gone")
        self._found[(_HERE, host)] = msgspec.structs.replace(self._found[(_HERE, host)], master=bridge)

    def remove(self, host: str, index: int) -> None:
        found = self._found.get((_HERE, host))
        if found and found.index == index:
            self._drop((_HERE, host))

    # -- what the test does to it --------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The devices of our own namespace."""
        return sorted(name for namespace, name in self._found if namespace == _HERE)

    def add(self, name: str, namespace: str = _HERE, **facts: object) -> None:
        """Somebody else's device, no end of a pair."""
        self._found[(namespace, name)] = SeenDevice(
            **{"index": self._number(), "mac": "02:00:00:00:00:99", "mtu": 1500, "up": True, "peer": 0, **facts}  # type: ignore[arg-type]  # the test says what
        )

    def change(self, name: str, namespace: str = _HERE, **facts: object) -> None:
        """Somebody does something to a device."""
        self._found[(namespace, name)] = msgspec.structs.replace(self._found[(namespace, name)], **facts)

    def delete(self, name: str, namespace: str = _HERE) -> None:
        """Somebody deletes a device."""
        self._drop((namespace, name))

    def lose_namespace(self, namespace: str) -> None:
        """A namespace goes, with its devices and their other ends."""
        self._gone.add(namespace)
        for where, name in list(self._found):
            if where == namespace:
                self._drop((where, name))

    def _drop(self, which: tuple[str, str]) -> None:
        self._found.pop(which, None)
        other = self._other_end.pop(which, None)
        if other:
            self._found.pop(other, None)
            self._other_end.pop(other, None)

    def _number(self) -> int:
        self._next += 1
        return self._next
