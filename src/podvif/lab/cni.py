"""The real shim, run as a container runtime runs it.

Law: what a runtime gives is all the shim gets: CNI_* variables, the configuration on stdin, and nothing of our environment
but what a caller adds by name.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podvif.lab import programs
from podvif.lab.process import LabError


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call of the plugin came to.

    Attributes:
        code: its exit code.
        document: stdout as parsed JSON; None when stdout was empty or no JSON object.
        text: stdout as it was.
        stderr: stderr as it was.
        seconds: from the start of the process to its end.
    """

    code: int
    document: dict[str, Any] | None
    text: str
    stderr: str
    seconds: float

    def checked(self) -> dict[str, Any]:
        """The document of a call that succeeded, {} when there is none.

        Raises:
            LabError: the plugin failed; the message has its own words.
        """
        if self.code:
            raise LabError(f"podvif-cni: exit code {self.code}: {self.text.strip() or self.stderr.strip()}")
        return self.document or {}


def call(
    command: str,
    config: Mapping[str, Any] | bytes,
    *,
    container_id: str = "",
    netns: Path | str = "",
    ifname: str = "",
    cni_path: str = "",
    args: str = "",
    env: Mapping[str, str] | None = None,
    executable: Path | None = None,
    timeout: float = 120.0,
) -> Answer:
    """Run the plugin once; variables left empty are not set, as runtimes leave them out.

    Args:
        command: ADD, DEL, CHECK, GC, STATUS, VERSION, or whatever a test wants to see refused.
        config: the network configuration; bytes are sent as they are.
        container_id: CNI_CONTAINERID.
        netns: CNI_NETNS, a path.
        ifname: CNI_IFNAME.
        cni_path: CNI_PATH, where plugins are looked for.
        args: CNI_ARGS, `KEY=value;…`.
        env: more variables, for instance TRACEPARENT.
        executable: the shim; the one beside this interpreter by default.
        timeout: seconds until the plugin is killed.

    Raises:
        LabError: it had not ended after `timeout`.
    """
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": str(netns),
        "CNI_IFNAME": ifname,
        "CNI_PATH": cni_path,
        "CNI_ARGS": args,
    }
    given = {"PATH": os.environ["PATH"]} | {name: value for name, value in variables.items() if value} | dict(env or {})
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    began = time.monotonic()
    try:
        done = subprocess.run(
            [executable or programs.shim()],
            input=stdin,
            env=given,
            capture_output=True,
            timeout=timeout,
            check=False,
            start_new_session=True,  # a Ctrl-C at a terminal is not meant for a call that has begun
        )
    except subprocess.TimeoutExpired as slow:
        raise LabError(f"podvif-cni {command}: no end after {timeout:g} s") from slow
    seconds = time.monotonic() - began
    text = done.stdout.decode(errors="replace")
    return Answer(done.returncode, _parsed(text), text, done.stderr.decode(errors="replace"), seconds)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
