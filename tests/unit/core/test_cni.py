"""CNI's requests, results, versions and error documents."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from podvif import errors, names
from podvif.core import cni
from podvif.core.cni import NEWEST_VERSION, SUPPORTED_VERSIONS, Command, parse_request
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.model import Address, Addresses, Attachment, Dns, Pod, Route
from tests.fakes.values import ATTACHMENT, config, environment, kernel_vif, request, vif

ADDRESSES = Addresses(
    ips=(Address("10.1.0.5/24", "10.1.0.1"), Address("fd00::5/64")),
    routes=(Route("0.0.0.0/0", gw="10.1.0.1", mtu=1400, priority=10), Route("10.9.0.0/16")),
    dns=Dns(nameservers=("10.1.0.1",), search=("example.org",)),
)


def refusal(env: Mapping[str, str], stdin: bytes | dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_request(env, stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode())
    return caught.value


# -- requests --------------------------------------------------------------------------------------------------------


def test_add_request() -> None:
    """Everything that the runtime says of an ADD is in the request."""
    found = request("ADD", config(mtu=9000), CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;X=a=b;")

    assert (found.command, found.version, found.network) == (Command.ADD, "1.1.0", "dpdk-net")
    assert found.attachment == found.expect_attachment() == ATTACHMENT
    assert (found.netns, found.path) == ("/proc/self/ns/net", ("/opt/cni/bin", "/usr/lib/cni"))
    assert found.args == {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "ns", "K8S_POD_NAME": "p", "X": "a=b"}
    assert found.pod == Pod("ns", "p", "")
    assert found.config == config(mtu=9000)


@pytest.mark.parametrize(
    ("stdin", "code", "words"),
    [
        (b"", errors.DECODING_FAILURE, "is not JSON"),
        (b"{", errors.DECODING_FAILURE, "is not JSON"),
        (b'{"name": "\xff"}', errors.DECODING_FAILURE, "is not JSON"),
        (b"[]", errors.DECODING_FAILURE, "is no JSON object"),
        (b"7", errors.DECODING_FAILURE, "is no JSON object"),
        (b"[" * 100_000, errors.DECODING_FAILURE, "is not JSON"),
        (config(name=None), errors.INVALID_CONFIG, "has no name"),
        (config(name=""), errors.INVALID_CONFIG, "has no name"),
        (config(name=7), errors.INVALID_CONFIG, "has no name"),
        (config(cniVersion="0.2.0"), errors.INCOMPATIBLE_VERSION, "cniVersion '0.2.0' is not supported"),
        (config(cniVersion="1.2.0"), errors.INCOMPATIBLE_VERSION, "cniVersion '1.2.0' is not supported"),
        (config(cniVersion=1.1), errors.INCOMPATIBLE_VERSION, "cniVersion 1.1 is not supported"),
        (config(cniVersion=["1.1.0"]), errors.INCOMPATIBLE_VERSION, "is not supported"),
        ({"cniVersion": None, "name": "n"}, errors.INCOMPATIBLE_VERSION, "cniVersion None is not supported"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_bad_configuration(command: str, stdin: bytes | dict[str, Any], code: int, words: str) -> None:
    """A configuration that cannot be read, has no name or another version is refused with CNI's code."""
    error = refusal(environment(command), stdin)

    assert (error.code, words in error.message) == (code, True), error.message


@pytest.mark.parametrize(
    ("previous", "key"),
    [
        (7, "prevResult"),
        ([], "prevResult"),
        ({"interfaces": 7}, "interfaces"),
        ({"interfaces": {"name": "eth0"}}, "interfaces"),
        ({"ips": "10.0.0.1/24"}, "ips"),
        ({"routes": {"dst": "0.0.0.0/0"}}, "routes"),
        ({"dns": []}, "dns"),
    ],
)
def test_previous_result_of_a_wrong_type(previous: Any, key: str) -> None:
    """A prevResult that is none is refused with the key's name, before anything is done with it."""
    error = refusal(environment("ADD"), config(prevResult=previous))

    assert key in error.message


@pytest.mark.parametrize("value", ["", "/", "a/b", "..", "../x", ".hidden", "-x", "a b", "a:b", "ä", "a\n", "x" * 201])
def test_bad_container_id(value: str) -> None:
    """A container id that cannot be a part of a file name is refused with its variable's name, code 4."""
    error = refusal(environment() | {"CNI_CONTAINERID": value}, config())

    assert (error.code, "CNI_CONTAINERID" in error.message) == (errors.INVALID_ENVIRONMENT, True)


@pytest.mark.parametrize("value", ["a", "0" * 64, "x" * 200, "a..b", "A_b.c-d"])
def test_good_container_id(value: str) -> None:
    """CNI's container ids of up to 200 characters are taken."""
    assert request(CNI_CONTAINERID=value).expect_attachment().container_id == value


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "x" * 16, "ääääääää", "a\x00b", "a\x7f"])
def test_bad_ifname(value: str) -> None:
    """An interface name that the kernel would not take is refused with its variable's name, code 4."""
    error = refusal(environment() | {"CNI_IFNAME": value}, config())

    assert (error.code, "CNI_IFNAME" in error.message) == (errors.INVALID_ENVIRONMENT, True)


@pytest.mark.parametrize("value", ["eth0", "x" * 15, "net-1.100", "ähm"])
def test_good_ifname(value: str) -> None:
    """An interface name of up to 15 bytes is taken."""
    assert request(CNI_IFNAME=value).expect_attachment().ifname == value


REQUIRED = {
    "ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "DEL": {"CNI_CONTAINERID", "CNI_IFNAME"},
    "GC": {"CNI_PATH"},
    "STATUS": {"CNI_PATH"},
    "VERSION": set(),
}


@pytest.mark.parametrize("command", REQUIRED)
def test_required_variables(command: str) -> None:
    """Each verb is refused without a variable that it needs, with code 4 and its name, and does without the others."""
    for variable in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"):
        env = environment(command)
        del env[variable]
        if command not in {"ADD", "CHECK", "DEL"}:
            env.pop("CNI_CONTAINERID", None)
        if variable in REQUIRED[command]:
            error = refusal(env, config())
            assert (error.code, variable in error.message) == (errors.INVALID_ENVIRONMENT, True)
        else:
            parse_request(env, json.dumps(config()).encode())


@pytest.mark.parametrize("value", ["", "add", "PURGE"])
def test_bad_command(value: str) -> None:
    """A verb that CNI does not have is refused with the list of those it has."""
    error = refusal(environment() | {"CNI_COMMAND": value}, config())

    assert error.code == errors.INVALID_ENVIRONMENT
    assert error.remedy == "it has to be one of ADD, CHECK, DEL, GC, STATUS, VERSION"


def test_bad_args() -> None:
    """CNI_ARGS without a '=' is refused with the pair."""
    error = refusal(environment(CNI_ARGS="IgnoreUnknown=1;MAC"), config())

    assert (error.code, "CNI_ARGS holds 'MAC'" in error.message) == (errors.INVALID_ENVIRONMENT, True)


@pytest.mark.parametrize(
    ("command", "first"),
    [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0"), ("ADD", "0.3.1"), ("DEL", "0.3.1")],
)
def test_verb_and_version(command: str, first: str) -> None:
    """A verb is refused with code 1 in versions of CNI that do not have it."""
    for version in SUPPORTED_VERSIONS:
        if SUPPORTED_VERSIONS.index(version) < SUPPORTED_VERSIONS.index(first):
            error = refusal(environment(command), config(cniVersion=version))
            assert (error.code, error.remedy) == (
                errors.INCOMPATIBLE_VERSION,
                f"set cniVersion to {first} or newer",
            )
        else:
            assert request(command, config(cniVersion=version)).version == version


def test_no_version() -> None:
    """A configuration without cniVersion is too old for ADD, and no hindrance for DEL."""
    assert refusal(environment("ADD"), config(cniVersion=None)).code == errors.INCOMPATIBLE_VERSION
    assert request("DEL", config(cniVersion=None)).version == NEWEST_VERSION


@pytest.mark.parametrize(
    ("stdin", "version"), [(b"", "1.1.0"), (b"{", "1.1.0"), (b'{"cniVersion": "0.4.0"}', "0.4.0"), (b"[]", "1.1.0")]
)
def test_version_needs_nothing(stdin: bytes, version: str) -> None:
    """VERSION is answered whatever is on stdin, in the version that was asked if it is known, by the list of all."""
    found = parse_request({"CNI_COMMAND": "VERSION"}, stdin)

    assert (found.command, found.version) == (Command.VERSION, version)
    assert cni.render_version(version) == {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def test_expect_attachment() -> None:
    """Asking a verb without one for its attachment is a bug."""
    with pytest.raises(Bug):
        request("STATUS").expect_attachment()


# -- results ---------------------------------------------------------------------------------------------------------


def result(version: str, addresses: Addresses = ADDRESSES, **more: Any) -> dict[str, Any]:
    """ADD's answer as the runtime reads it."""
    found = request("ADD", config(cniVersion=version, **more))
    answer: dict[str, Any] = json.loads(json.dumps(cni.render_result(found, vif(), addresses)))
    return answer


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_result(version: str) -> None:
    """A result is in the version asked for: ips[].version before 1.0.0, mtu and socketPath from 1.1.0 on."""
    new, old = version == "1.1.0", version in {"0.3.1", "0.4.0"}
    interface = {"name": "net1", "mac": vif().mac, "sandbox": "/proc/self/ns/net"}
    routes: list[dict[str, Any]] = [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "10.9.0.0/16"}]
    if new:
        routes[0] |= {"mtu": 1400, "priority": 10}

    assert result(version) == {
        "cniVersion": version,
        "interfaces": [interface | ({"mtu": 1500, "socketPath": vif().socket} if new else {})],
        "ips": [
            {"interface": 0, "address": "10.1.0.5/24", "gateway": "10.1.0.1"} | ({"version": "4"} if old else {}),
            {"interface": 0, "address": "fd00::5/64"} | ({"version": "6"} if old else {}),
        ],
        "routes": routes,
        "dns": {"nameservers": ["10.1.0.1"], "search": ["example.org"]},
    }


def test_result_without_ipam() -> None:
    """A result without addresses has its interface and no empty lists."""
    assert set(result("1.1.0", Addresses())) == {"cniVersion", "interfaces"}


PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "sandbox": "/ns"}, {"name": "veth1"}],
    "ips": [{"address": "10.0.0.2/24", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"domain": "cluster.local"},
}


def test_previous_result_is_added_to() -> None:
    """What the plugins before us answered stays, and our address points at our interface behind theirs."""
    found = result("1.1.0", prevResult=PREVIOUS)

    assert [item["name"] for item in found["interfaces"]] == ["eth0", "veth1", "net1"]
    assert [(ip["address"], ip["interface"]) for ip in found["ips"]] == [
        ("10.0.0.2/24", 0),
        ("10.1.0.5/24", 2),
        ("fd00::5/64", 2),
    ]
    assert [route["dst"] for route in found["routes"]] == ["0.0.0.0/0", "0.0.0.0/0", "10.9.0.0/16"]
    assert found["dns"]["nameservers"] == ["10.1.0.1"]


@pytest.mark.parametrize("previous", [PREVIOUS, PREVIOUS | {"ips": None, "routes": None}, {"interfaces": None}])
def test_previous_result_without_ipam(previous: dict[str, Any]) -> None:
    """With no address of ours the result before us passes through, lists that Go wrote as null included."""
    found = result("1.1.0", Addresses(), prevResult=previous)

    assert found.get("dns", {}) == previous.get("dns", {})
    assert found.get("ips") == (previous.get("ips") or None)
    assert [item["name"] for item in found["interfaces"]][-1] == "net1"


# -- CHECK's prevResult ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"mac": vif().mac.upper()}, None),
        ({"mac": "02:00:00:00:00:99"}, "the MAC 02:00:00:00:00:99"),
        ({"socketPath": "/elsewhere"}, "the socket /elsewhere"),
        ({"name": "net2"}, "no interface net1 in a sandbox"),
        ({"sandbox": ""}, "no interface net1 in a sandbox"),
    ],
)
def test_previous_result_of_check(changes: dict[str, Any], words: str | None) -> None:
    """CHECK compares the MAC and the socket of our own interface, and says what prevResult has instead."""
    interface = {"name": "net1", "mac": vif().mac, "sandbox": "/ns", "socketPath": vif().socket} | changes
    previous = {"interfaces": [{"name": "eth0", "sandbox": "/ns", "mac": "x"}, {"name": "net1"}, interface]}

    found = cni.why_not_previous(request("CHECK", config(prevResult=previous)), vif())

    assert (found is None) if words is None else words in (found or "")


def test_check_without_previous_result() -> None:
    """CHECK without prevResult says so."""
    assert cni.why_not_previous(request("CHECK"), vif()) == "CHECK came without prevResult"


# -- GC --------------------------------------------------------------------------------------------------------------

LISTED = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}]
VALID = frozenset({Attachment("a", "eth0"), Attachment("b", "net1")})


@pytest.mark.parametrize(
    ("keys", "valid"),
    [
        ({"cni.dev/valid-attachments": LISTED}, VALID),
        ({"cni.dev/attachments": LISTED}, VALID),
        ({"cni.dev/valid-attachments": LISTED, "cni.dev/attachments": LISTED}, VALID),
        ({"cni.dev/valid-attachments": LISTED[:1], "cni.dev/attachments": LISTED[1:]}, VALID),
        ({"cni.dev/valid-attachments": []}, frozenset()),
        # Go's nil slice: how libcni says that no attachment is valid.
        ({"cni.dev/valid-attachments": None, "cni.dev/attachments": None}, frozenset()),
    ],
)
def test_valid_attachments(keys: dict[str, Any], valid: frozenset[Attachment]) -> None:
    """GC spares what either key lists; an empty list, also as null, spares nothing."""
    assert (
        cni.parse_valid_attachments(config(**{key: value for key, value in keys.items() if value is not None}) | keys)
        == valid
    )


def test_no_valid_attachments() -> None:
    """GC without a list says nothing about any attachment."""
    assert cni.parse_valid_attachments(config()) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"cni.dev/valid-attachments": "all"},
        {"cni.dev/valid-attachments": ["a"]},
        {"cni.dev/valid-attachments": [{"containerID": "a"}]},
        {"cni.dev/valid-attachments": [{"containerID": 7, "ifname": "eth0"}]},
        {"cni.dev/valid-attachments": [*LISTED, None]},
    ],
)
def test_valid_attachments_refused(keys: dict[str, Any]) -> None:
    """GC with a list that cannot be read is refused: it would remove too much."""
    with pytest.raises(Refused) as caught:
        cni.parse_valid_attachments(config() | keys)

    assert "cni.dev/valid-attachments" in caught.value.message
    assert caught.value.remedy.endswith("nothing was removed")


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Retry("w", "r"), 11),
        (Retry("w", "r", code=50), 50),
        (Refused("w", "r"), 7),
        (Refused("w", "r", code=4), 4),
        (Bug("w", "r"), 999),
    ],
)
@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_error_document(error: PodvifError, code: int, version: str) -> None:
    """An error of ours becomes a document with its code, what happened and what to do, in the version asked for."""
    assert cni.render_error(error, version) == {"cniVersion": version, "code": code, "msg": "w", "details": "r"}


def test_unforeseen_error() -> None:
    """An exception that nobody foresaw is a bug of podvif, with its type and words."""
    document = cni.render_error(KeyError("x"), "1.0.0")

    assert (document["code"], document["msg"]) == (999, "podvif has a bug: KeyError: 'x'")


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        *((json.dumps({"cniVersion": version}).encode(), version) for version in SUPPORTED_VERSIONS),
        (b'{"cniVersion": "9.9.9"}', NEWEST_VERSION),
        (b'{"cniVersion": ["1.0.0"]}', NEWEST_VERSION),
        (b"{}", NEWEST_VERSION),
        (b"[]", NEWEST_VERSION),
        (b"", NEWEST_VERSION),
        (b'"\xff"', NEWEST_VERSION),
        (b"[" * 100_000, NEWEST_VERSION),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_version_of_an_error(stdin: bytes, version: str) -> None:
    """An error document has the configuration's version if that can be read and is known, else the newest."""
    assert cni.answer_version(stdin) == version


def test_versions_are_in_order() -> None:
    """The supported versions stand from the oldest to the newest."""
    assert sorted(SUPPORTED_VERSIONS, key=cni.version_tuple) == list(SUPPORTED_VERSIONS)
    assert cni.version_tuple("1.10.0") > cni.version_tuple("1.9.0")


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_result_of_a_pair(version: str) -> None:
    """A pair is in the result with both its ends; the pod's is in the sandbox and has the addresses, and no socket."""
    call = request("ADD", config(cniVersion=version))
    found = cni.render_result(call, kernel_vif(), ADDRESSES)
    mtu = {"mtu": 1500} if version == "1.1.0" else {}

    assert found["interfaces"] == [
        {"name": kernel_vif().name, "mac": names.host_mac(ATTACHMENT)} | mtu,
        {"name": "net1", "mac": kernel_vif().mac, "sandbox": "/proc/self/ns/net"} | mtu,
    ]
    assert [ip["interface"] for ip in found["ips"]] == [1, 1]
    checking = request("CHECK", config(cniVersion=version, prevResult=found)) if version != "0.3.1" else None
    assert checking is None or cni.why_not_previous(checking, kernel_vif()) is None
