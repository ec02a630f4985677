"""CNI's language: requests in, results and error documents out.

Law: everything the runtime says is parsed here once, into frozen values, or refused with the name of what is wrong; and
everything it hears is rendered here, in the version it asked for.  Source: CNI SPEC.md 1.1.0 sections 1, 2 and 5; the set
of required variables is the one that the Go skeleton (containernetworking/cni, pkg/skel) enforces.
"""

import enum
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from podvif import errors, names
from podvif.errors import Bug, PodvifError, Refused
from podvif.model import Addresses, Attachment, Pod, PortKind, Vif

SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST_VERSION = SUPPORTED_VERSIONS[-1]

_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_IFNAME_MAX = 15  # IFNAMSIZ less the closing zero, linux/if.h


class Command(enum.Enum):
    """The verbs of CNI 1.1."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


_REQUIRED = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    # The skeleton also wants CNI_PATH here; SPEC.md does not, and a DEL that can be done is done.
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.GC: ("CNI_PATH",),
    Command.STATUS: ("CNI_PATH",),
    Command.VERSION: (),
}

_SINCE = {Command.CHECK: (0, 4, 0), Command.GC: (1, 1, 0), Command.STATUS: (1, 1, 0)}


class Request(msgspec.Struct, frozen=True):
    """One call of the runtime, parsed.

    Attributes:
        command: the verb.
        version: the configuration's cniVersion: the answer is in it.
        network: the configuration's name.
        attachment: for ADD, CHECK and DEL; None otherwise.
        netns: CNI_NETNS, empty when the runtime gave none.
        path: CNI_PATH's directories.
        args: CNI_ARGS' pairs.
        raw_args: CNI_ARGS as it came.
        config: the network configuration, decoded and otherwise untouched.
    """

    command: Command
    version: str
    network: str
    attachment: Attachment | None
    netns: str
    path: tuple[str, ...]
    args: dict[str, str]
    raw_args: str
    config: dict[str, Any]

    @property
    def pod(self) -> Pod:
        """The pod as containerd and CRI-O name it in CNI_ARGS."""
        return Pod(
            namespace=self.args.get("K8S_POD_NAMESPACE", ""),
            name=self.args.get("K8S_POD_NAME", ""),
            uid=self.args.get("K8S_POD_UID", ""),
        )

    def expect_attachment(self) -> Attachment:
        """The attachment of a verb that has one."""
        if self.attachment is None:
            raise Bug(f"{self.command.value} was handled as if it named an attachment")
        return self.attachment


def parse_request(env: Mapping[str, str], stdin: bytes) -> Request:
    """Read one call: the CNI_* environment and the configuration on stdin.

    Raises:
        Refused: with CNI's code and the name of the variable or key that is wrong.
    """
    command = _parse_command(env)
    if command is Command.VERSION:  # stdin may be anything (SPEC.md section 2, "VERSION")
        config: dict[str, Any] = {"cniVersion": answer_version(stdin), "name": "version"}
    else:
        config = _parse_config(stdin)
    version = _parse_version(config, command)
    network = config.get("name")
    if not isinstance(network, str) or not network:
        raise Refused("the network configuration has no name", 'add "name": "…" to it')
    for variable in _REQUIRED[command]:
        if not env.get(variable):
            raise Refused(
                f"{variable} is missing: {command.value} needs it",
                "the runtime sets it; by hand, use cnitool or set it in the environment",
                code=errors.INVALID_ENVIRONMENT,
            )
    attachment = None
    if command in {Command.ADD, Command.CHECK, Command.DEL}:
        attachment = Attachment(_parse_container_id(env["CNI_CONTAINERID"]), _parse_ifname(env["CNI_IFNAME"]))
    if command in {Command.ADD, Command.CHECK}:  # a DEL does without
        _refuse_previous(config)
    raw_args = env.get("CNI_ARGS", "")
    return Request(
        command=command,
        version=version,
        network=network,
        attachment=attachment,
        netns=env.get("CNI_NETNS", ""),
        path=tuple(part for part in env.get("CNI_PATH", "").split(":") if part),
        args=_parse_args(raw_args),
        raw_args=raw_args,
        config=config,
    )


def answer_version(stdin: bytes) -> str:
    """The version an error document shall carry, guessed from a configuration that may be anything."""
    try:
        asked = msgspec.json.decode(stdin).get("cniVersion")
    except (msgspec.DecodeError, AttributeError, UnicodeDecodeError, RecursionError):
        return NEWEST_VERSION
    return asked if asked in SUPPORTED_VERSIONS else NEWEST_VERSION


def _parse_command(env: Mapping[str, str]) -> Command:
    value = env.get("CNI_COMMAND", "")
    try:
        return Command(value)
    except ValueError:
        known = ", ".join(command.value for command in Command)
        raise Refused(
            f"CNI_COMMAND is {value!r}", f"it has to be one of {known}", code=errors.INVALID_ENVIRONMENT
        ) from None


def _parse_config(stdin: bytes) -> dict[str, Any]:
    try:
        config = msgspec.json.decode(stdin)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise Refused(
            f"the network configuration on stdin is not JSON: {cause}",
            "check the file in /etc/cni/net.d or the NetworkAttachmentDefinition's spec.config",
            code=errors.DECODING_FAILURE,
        ) from cause
    if not isinstance(config, dict):
        raise Refused(
            "the network configuration on stdin is no JSON object",
            'it has to look like {"cniVersion": "1.1.0", "name": "…", "type": "podvif-cni"}',
            code=errors.DECODING_FAILURE,
        )
    return config


def _parse_version(config: Mapping[str, Any], command: Command) -> str:
    # The oldest CNI had no such key, and DEL has to do its work whatever is left of the configuration.
    version = config.get("cniVersion", NEWEST_VERSION if command is Command.DEL else "0.1.0")
    if version not in SUPPORTED_VERSIONS:
        raise Refused(
            f"cniVersion {version!r} is not supported",
            f"use one of {', '.join(SUPPORTED_VERSIONS)}",
            code=errors.INCOMPATIBLE_VERSION,
        )
    if command in _SINCE and version_tuple(version) < _SINCE[command]:
        since = ".".join(str(part) for part in _SINCE[command])
        raise Refused(
            f"{command.value} does not exist in CNI {version}",
            f"set cniVersion to {since} or newer",
            code=errors.INCOMPATIBLE_VERSION,
        )
    return str(version)


class _PreviousResult(msgspec.Struct, frozen=True):
    """Only the form: what is in it belongs to other plugins, and goes on as it came."""

    interfaces: list[dict[str, Any]] | None = None
    ips: list[dict[str, Any]] | None = None
    routes: list[dict[str, Any]] | None = None
    dns: dict[str, Any] | None = None


def _refuse_previous(config: Mapping[str, Any]) -> None:
    if config.get("prevResult") is None:
        return
    try:
        msgspec.convert(config["prevResult"], _PreviousResult)
    except msgspec.ValidationError as cause:
        raise Refused(
            f"the network configuration's prevResult is wrong: {cause}", "the runtime puts ADD's result there"
        ) from cause


def version_tuple(version: str) -> tuple[int, ...]:
    """A version in an order that compares."""
    return tuple(int(part) for part in version.split("."))


def _parse_container_id(value: str) -> str:
    if not _CONTAINER_ID.fullmatch(value):
        raise Refused(
            f"CNI_CONTAINERID {value!r} is not a container id",
            "it has to start with a letter or digit and go on with letters, digits, '_', '.' and '-'",
            code=errors.INVALID_ENVIRONMENT,
        )
    if len(value) > names.CONTAINER_ID_MAX:
        raise Refused(
            f"CNI_CONTAINERID {value[:20]}… has {len(value)} characters",
            f"podvif takes at most {names.CONTAINER_ID_MAX}: file names are made of it",
            code=errors.INVALID_ENVIRONMENT,
        )
    return value


def why_not_ifname(value: str) -> str | None:
    """Why this is no name of a Linux network interface, or None when it is one."""
    if not value or value in {".", ".."}:
        return "it is empty, '.' or '..'"
    if len(value.encode()) > _IFNAME_MAX:
        return f"it has {len(value.encode())} bytes and the kernel takes at most {_IFNAME_MAX}"
    if any(character in "/:" or character.isspace() or not character.isprintable() for character in value):
        return "it holds '/', ':', white space or a control character"
    return None


def _parse_ifname(value: str) -> str:
    if reason := why_not_ifname(value):
        raise Refused(
            f"CNI_IFNAME {value!r} is not an interface name: {reason}",
            "give another name",
            code=errors.INVALID_ENVIRONMENT,
        )
    return value


def _parse_args(raw: str) -> dict[str, str]:
    pairs = {}
    for pair in raw.split(";"):
        if not pair:
            continue
        key, separator, value = pair.partition("=")
        if not separator:
            raise Refused(
                f"CNI_ARGS holds {pair!r}", "it is a list of KEY=VALUE;KEY=VALUE", code=errors.INVALID_ENVIRONMENT
            )
        pairs[key] = value
    return pairs


def parse_valid_attachments(config: Mapping[str, Any]) -> frozenset[Attachment] | None:
    """The attachments that GC shall leave alone.

    SPEC.md calls the key `cni.dev/valid-attachments`; libcni also sends `cni.dev/attachments`, the name in an earlier text.
    Where neither is there (cnitool's gc) the runtime has not said which are valid, so none can be called invalid: None.

    Raises:
        Refused: a key has the wrong form.
    """
    found = [config[key] for key in ("cni.dev/valid-attachments", "cni.dev/attachments") if key in config]
    if not found:
        return None
    valid = set()
    for listed in found:
        # Go writes an empty list as null.
        for item in [] if listed is None else listed if isinstance(listed, list) else [listed]:
            match item:
                case {"containerID": str(container_id), "ifname": str(ifname)}:
                    valid.add(Attachment(container_id, ifname))
                case _:
                    raise Refused(
                        f"cni.dev/valid-attachments holds {item!r}",
                        'each item is {"containerID": "…", "ifname": "…"}; nothing was removed',
                    )
    return frozenset(valid)


def render_result(request: Request, vif: Vif, addresses: Addresses) -> dict[str, Any]:
    """ADD's answer (SPEC.md section 5, "Success"), added to prevResult when we are not first in a list.

    A pair has its host end before the pod's.  `mtu` and `socketPath` exist since 1.1.0; `ips[].version` only before 1.0.0.
    """
    attachment = request.expect_attachment()
    at = version_tuple(request.version)
    interface: dict[str, Any] = {"name": attachment.ifname, "mac": vif.mac, "sandbox": request.netns}
    ours = [interface]
    if vif.kind is not PortKind.VHOST_USER:
        ours = [{"name": names.host_device(vif.port_id), "mac": names.host_mac(attachment)}, interface]
    if at >= (1, 1, 0):
        ours = [item | {"mtu": vif.mtu} for item in ours]
        if vif.kind is PortKind.VHOST_USER:
            ours[-1]["socketPath"] = vif.socket
    previous = request.config.get("prevResult")
    before: dict[str, Any] = previous if isinstance(previous, dict) else {}
    interfaces = [*(before.get("interfaces") or []), *ours]
    ips = []
    for ip in addresses.ips:
        item: dict[str, Any] = {"interface": len(interfaces) - 1, "address": ip.address}
        if at < (1, 0, 0):
            item["version"] = str(ipaddress.ip_interface(ip.address).version)
        if ip.gateway:
            item["gateway"] = ip.gateway
        ips.append(item)
    keys = None if at >= (1, 1, 0) else {"dst", "gw"}
    routes = [
        {key: value for key, value in msgspec.to_builtins(route).items() if keys is None or key in keys}
        for route in addresses.routes
    ]
    result: dict[str, Any] = {
        "cniVersion": request.version,
        "interfaces": interfaces,
        "ips": [*(before.get("ips") or []), *ips],
        "routes": [*(before.get("routes") or []), *routes],
        "dns": msgspec.to_builtins(addresses.dns) or before.get("dns") or {},
    }
    return {key: value for key, value in result.items() if value or key in {"cniVersion", "interfaces"}}


def why_not_previous(request: Request, vif: Vif) -> str | None:
    """What CHECK's prevResult says otherwise than the attachment, or None when they agree.

    Other plugins of a list may have added to the result, so only our own interface is looked at.
    """
    previous = request.config.get("prevResult")
    if not isinstance(previous, dict):
        return "CHECK came without prevResult"
    name = request.expect_attachment().ifname
    ours = [
        item
        for item in previous.get("interfaces") or []
        if isinstance(item, dict) and item.get("name") == name and item.get("sandbox")
    ]
    if not ours:
        return f"prevResult has no interface {name} in a sandbox"
    for item in ours:
        if str(item.get("mac", vif.mac)).lower() != vif.mac:
            return f"prevResult gives {name} the MAC {item['mac']}, it has {vif.mac}"
        if item.get("socketPath", vif.socket) != vif.socket:
            return f"prevResult gives {name} the socket {item['socketPath']}, it is {vif.socket}"
    return None


def render_version(version: str) -> dict[str, Any]:
    """VERSION's answer, in the version that was asked."""
    return {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def render_error(error: BaseException, version: str) -> dict[str, Any]:
    """CNI's error document (SPEC.md section 5, "Error"): the one place where an exception becomes a code."""
    if isinstance(error, PodvifError):
        return {"cniVersion": version, "code": error.code, "msg": error.message, "details": error.remedy}
    return {
        "cniVersion": version,
        "code": errors.INTERNAL,
        "msg": f"podvif has a bug: {type(error).__name__}: {error}",
        "details": "the daemon's log has the traceback; please report it",
    }
