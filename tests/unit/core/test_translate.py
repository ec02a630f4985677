"""From a CNI configuration to the wanted port."""

from typing import Any

import pytest

from podvif import errors, names
from podvif.core import translate
from podvif.errors import Refused
from podvif.model import Address, Addresses, Listener, SocketDir, Vif
from tests.fakes.values import ATTACHMENT, BOTH, config, request, vif

PODS, OVS = SocketDir("/pods"), SocketDir("/ovs")


def translated(network: dict[str, Any], **variables: Any) -> Vif:
    found = request("ADD", network, **variables)
    return translate.vif_from_network(found, translate.parse_network(found.config), PODS, OVS)


def refusal(network: dict[str, Any], **variables: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        translated(network, **variables)
    assert caught.value.code == errors.INVALID_CONFIG
    return caught.value


def each(key: str, values: list[Any]) -> list[tuple[str, Any]]:
    return [(key, value) for value in values]


def test_defaults() -> None:
    """A configuration with nothing but what CNI wants is a port of br-int in server mode, 1500 bytes, one queue pair."""
    assert translated(config(bridge=None)) == vif(Listener.APPLICATION, bridge="br-int", mtu=1500, queues=1, vlan=None)


def test_everything_said() -> None:
    """What a configuration says is what the port shall be."""
    network = config(
        vhostuserMode="client", bridge="br-x", mtu=9000, queues=4, vlan=100, mac="02:00:00:00:00:0A", daemonTimeout=2.5
    )

    assert translated(network) == vif(
        Listener.OVS, bridge="br-x", mtu=9000, queues=4, vlan=100, mac="02:00:00:00:00:0a"
    )


def test_unknown_keys() -> None:
    """Keys that podvif does not know are ignored, also inside of those it knows."""
    network = config(
        type="podvif-cni", isGateway=7, capabilities={"mac": True}, ipam={"type": "x", "ranges": []}, args={"other": []},
        runtimeConfig={"portMappings": [1]}, dns={}, prevResult={},
    )  # fmt: skip

    assert translated(network) == vif()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *each("mtu", [40, 67, translate.MTU_MAX + 1, 100_000, -1, "1500", True, 1500.5, [], None]),
        *each("queues", [0, translate.QUEUES_MAX + 1, -1, "1", True, False, None]),
        *each("vlan", [0, 4095, -1, "7", True]),
        *each("vhostuserMode", ["", "Server", "listener", 7, True, None]),
        *each("bridge", [7, True, None, [], "", ".", "..", "a/b", "a b", "x" * 16, "a\nb", "tbr-1"]),
        *each("mac", ["", 7, True, "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:0g"]),
        *each("mac", ["02:00:00:00:00:01\n", "02:00:00:00:00:01:02"]),
        ("ipam", "host-local"),
        ("ipam", {"type": 7}),
        ("daemonSocket", 7),
        ("daemonTimeout", 0),
        ("daemonTimeout", "30"),
        ("runtimeConfig", {"mac": 7}),
        ("runtimeConfig", {"ips": "10.0.0.1"}),
        ("args", []),
        ("args", {"cni": {"mac": "x"}}),
        ("args", {"cni": {"ips": [7]}}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_value(key: str, value: Any) -> None:
    """A key of the wrong type, or with a value that cannot work, is refused with its name."""
    error = refusal(config() | {key: value})

    assert key.lower() in error.message.lower()
    assert error.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *each("mtu", [68, 9000, translate.MTU_MAX]),
        *each("queues", [1, translate.QUEUES_MAX]),
        *each("vlan", [1, 4094]),
        ("bridge", "x" * 15),
    ],
)
def test_ends_of_ranges(key: str, value: Any) -> None:
    """The first and the last value of each range are taken."""
    assert getattr(translated(config() | {key: value}), key) == value


def test_mode_is_explained() -> None:
    """A wrong mode is answered with what both modes mean."""
    assert "(the application listens)" in refusal(config(vhostuserMode="both")).remedy


@pytest.mark.parametrize("listener", BOTH)
def test_mode_and_back(listener: Listener) -> None:
    """The far end's word for a listener, read again, is that listener."""
    assert translated(config(vhostuserMode=translate.mode_of(listener))).listener is listener


MACS = [f"02:00:00:00:00:0{digit}" for digit in "1234"]


@pytest.mark.parametrize("last", range(5))
def test_mac_priority(last: int) -> None:
    """The MAC nearest to the pod wins: runtimeConfig, args.cni, CNI_ARGS, the configuration, else a derived one."""
    given = [mac if index >= 4 - last else "" for index, mac in enumerate(MACS)]
    runtime, args, variable, plain = given
    network = config(
        runtimeConfig={"mac": runtime} if runtime else None,
        args={"cni": {"mac": args}} if args else None,
        mac=plain or None,
    )

    found = translated(network, CNI_ARGS=f"MAC={variable}" if variable else "")

    assert found.mac == next((mac for mac in given if mac), names.mac(ATTACHMENT))


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_no_unicast_mac(mac: str) -> None:
    """A group address and the zero address are refused, wherever they come from."""
    assert mac in refusal(config(mac=mac)).message
    assert mac in refusal(config(), CNI_ARGS=f"MAC={mac}").message


@pytest.mark.parametrize("mac", ["x", "02:00:00:00:00", "0200:00:00:00:00:01", "02:00:00:00:00:0g"])
def test_bad_mac_in_args(mac: str) -> None:
    """A MAC in CNI_ARGS that is none is refused with the variable's name."""
    assert f"CNI_ARGS MAC={mac} is no MAC address" in refusal(config(), CNI_ARGS=f"MAC={mac}").message


@pytest.mark.parametrize(
    ("network", "args", "asked"),
    [
        ({}, "", ()),
        ({}, "IP=10.0.0.9", ("10.0.0.9",)),
        ({"args": {"cni": {"ips": ["10.0.0.8"]}}}, "IP=10.0.0.9", ("10.0.0.8",)),
        ({"runtimeConfig": {"ips": ["10.0.0.7/24"]}, "args": {"cni": {"ips": ["::8"]}}}, "", ("10.0.0.7/24", "::8")),
    ],
)
def test_requested_addresses(network: dict[str, Any], args: str, asked: tuple[str, ...]) -> None:
    """Addresses are asked for by runtimeConfig, args.cni and CNI_ARGS."""
    found = request("ADD", config(**network), CNI_ARGS=args)

    assert translate.requested_ips(found, translate.parse_network(found.config)) == asked


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((), None),
        (("10.1.0.5",), None),
        (("10.1.0.5/16", "fd00:0::5"), None),
        (("10.1.0.6",), "10.1.0.6 was asked for and IPAM did not give it"),
        (("10.1.0.5", "10.1.0.6/24"), "10.1.0.6/24 was asked for and IPAM did not give it"),
        (("ten",), "'ten' is no IP address"),
    ],
)
def test_addresses_given(asked: tuple[str, ...], words: str | None) -> None:
    """An address that was asked for and is not given is named; the form it is written in does not count."""
    given = Addresses(ips=(Address("10.1.0.5/24"), Address("fd00::5/64")))

    assert translate.why_not_addresses(asked, given) == words


def test_ipam_or_not() -> None:
    """A network has IPAM when its ipam object names a plugin."""
    assert translate.has_ipam(translate.parse_network(config(ipam={"type": "host-local"})))
    assert not translate.has_ipam(translate.parse_network(config(ipam={})))
    assert not translate.has_ipam(translate.parse_network(config()))


def test_names_alone() -> None:
    """What is removed without journal and configuration has the names, paths and port id that ADD gave it."""
    found, made = translate.vif_by_name(ATTACHMENT, PODS, OVS), translated(config(mtu=9000, vhostuserMode="client"))

    for field in ("port_id", "name", "socket", "ovs_socket"):
        assert getattr(found, field) == getattr(made, field)
