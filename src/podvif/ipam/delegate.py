"""Calling an IPAM plugin as CNI's execution protocol says (SPEC.md section 4, "Plugin delegation").

Law: the plugin gets the whole network configuration and the environment of our own call, for ADD as for DEL.  When it
speaks no version as new as the configuration's it is asked in the newest that both know: Debian's host-local stops at 1.0.0,
and the addresses are the same.
"""

import asyncio
import contextlib
import ipaddress
import os
import signal
from collections.abc import Mapping
from typing import Any

import msgspec

from podvif import errors
from podvif.core import cni
from podvif.errors import Refused, Retry
from podvif.model import Address, Addresses, Attachment, Dns, IpamCall, Route

_ANSWER_MAX = 1 << 20


class _Answer(msgspec.Struct, frozen=True):
    """The abbreviated success of an IPAM plugin: SPEC.md section 5."""

    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


class _VersionAnswer(msgspec.Struct, frozen=True, rename="camel"):
    supported_versions: tuple[Any, ...] = ()


class Delegate:
    """Runs IPAM plugins; remembers which versions each executable speaks."""

    def __init__(self, timeout: float) -> None:
        """Take `timeout` seconds as the longest a plugin may run."""
        self._timeout = timeout
        self._versions: dict[tuple[str, float], tuple[str, ...]] = {}

    async def add(self, attachment: Attachment, call: IpamCall) -> Addresses:
        """Reserve addresses.

        Raises:
            Refused: there is no such plugin, or its answer is no result.
            Retry: it failed and says that a repeat may help, or it did not end in time.
        """
        answer = await self._run("ADD", attachment, call)
        plugin = plugin_name(call)
        try:
            result = msgspec.json.decode(answer, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(
                f"IPAM plugin {plugin} answered ADD with something that is no result: {error}",
                "run it by hand with the same configuration",
                code=errors.DECODING_FAILURE,
            ) from error
        bad = [ip.address for ip in result.ips if not _is_cidr(ip.address)]
        if bad:
            raise Refused(
                f"IPAM plugin {plugin} answered ADD with {bad[0]!r}, which is no address with a prefix length",
                "run it by hand with the same configuration",
                code=errors.DECODING_FAILURE,
            )
        if not result.ips:
            raise Refused(f"IPAM plugin {plugin} answered ADD without an address", "look at its configuration")
        return Addresses(result.ips, result.routes, result.dns)

    async def remove(self, attachment: Attachment, call: IpamCall) -> None:
        """Give back what the attachment holds; nothing held is fine."""
        await self._run("DEL", attachment, call)

    async def check(self, attachment: Attachment, call: IpamCall, previous: Mapping[str, Any]) -> None:
        """Ask the plugin whether it still knows the addresses of `previous`, the result of ADD."""
        if cni.version_tuple(await self._version(call)) >= (0, 4, 0):
            config = call.config | {"prevResult": dict(previous)}
            await self._run("CHECK", attachment, msgspec.structs.replace(call, config=config))

    async def collect(self, call: IpamCall) -> None:
        """Forward GC, to a plugin that knows it (SPEC.md section 2, "GC")."""
        if cni.version_tuple(await self._version(call)) >= (1, 1, 0):
            await self._run("GC", None, call)

    async def _version(self, call: IpamCall) -> str:
        """The newest version that the configuration allows and the plugin speaks."""
        asked = call.config.get("cniVersion", "0.3.1")
        executable = find(call)
        key = (executable, os.stat(executable).st_mtime)  # noqa: PTH116
        if key not in self._versions:
            output, _ = await self._execute(
                executable, {"CNI_COMMAND": "VERSION", "CNI_PATH": ":".join(call.path)}, b'{"cniVersion":"1.0.0"}'
            )
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._versions[key] = msgspec.json.decode(output, type=_VersionAnswer).supported_versions
        shared = [
            version
            for version in cni.SUPPORTED_VERSIONS
            if version in self._versions.get(key, ()) and cni.version_tuple(version) <= cni.version_tuple(asked)
        ]
        return shared[-1] if shared else asked

    async def _run(self, command: str, attachment: Attachment | None, call: IpamCall) -> bytes:
        executable = find(call)
        config = call.config | {"cniVersion": await self._version(call)}
        environment = {"CNI_COMMAND": command, "CNI_PATH": ":".join(call.path), "CNI_ARGS": call.args}
        if attachment is not None:
            environment |= {
                "CNI_CONTAINERID": attachment.container_id,
                "CNI_IFNAME": attachment.ifname,
                "CNI_NETNS": call.netns,
            }
        output, code = await self._execute(executable, environment, msgspec.json.encode(config))
        if code != 0:
            raise _failure(plugin_name(call), command, output, code)
        return output

    async def _execute(self, executable: str, environment: Mapping[str, str], stdin: bytes) -> tuple[bytes, int]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CNI_")}
        try:
            process = await asyncio.create_subprocess_exec(
                executable,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=inherited | dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise Refused(
                f"IPAM plugin {executable} cannot be run: {error.strerror}", "look at the file", code=errors.IO_FAILURE
            ) from error
        try:
            output, _ = await asyncio.wait_for(process.communicate(stdin), self._timeout)
        except TimeoutError as error:
            raise Retry(f"IPAM plugin {executable} has not ended after {self._timeout:g} s") from error
        finally:
            if process.returncode is None:
                # With its children: one that holds the pipe would keep us waiting after its parent is dead.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return output[:_ANSWER_MAX], process.returncode or 0


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def plugin_name(call: IpamCall) -> str:
    """The configuration's `ipam.type`."""
    return str(call.config["ipam"]["type"])


def find(call: IpamCall) -> str:
    """The plugin's executable in CNI_PATH.

    Raises:
        Refused: it is in none of the directories, or its name is a path.
    """
    name = plugin_name(call)
    if "/" in name or name in {".", ".."}:
        raise Refused(f"ipam.type {name!r} is no plugin name", "it names an executable in CNI_PATH, without a path")
    for directory in call.path:
        candidate = f"{directory}/{name}"
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113
            return candidate
    raise Refused(
        f"IPAM plugin {name} is in none of {', '.join(call.path) or 'no directories'}",
        "install it (Debian: containernetworking-plugins) or mend CNI_PATH",
    )


def _failure(plugin: str, command: str, output: bytes, code: int) -> Refused | Retry:
    """The plugin's own error document, its code kept."""
    try:
        document = msgspec.json.decode(output)
        text = ": ".join(str(document[key]) for key in ("msg", "details") if document.get(key))
        number = int(document.get("code") or errors.INTERNAL)
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, RecursionError):
        text, number = f"exit code {code} and no error document", errors.INTERNAL
    message = f"IPAM plugin {plugin} failed to {command}: {text}"
    if number == errors.TRY_AGAIN_LATER:
        return Retry(message)
    return Refused(message, "look at the ipam part of the network configuration", code=number)
