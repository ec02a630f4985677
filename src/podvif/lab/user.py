"""A user as a pod's securityContext makes one: numbers, no name, no capability.

Law: what such a user may do is the kernel's word, asked by processes that have become him.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from podvif.lab import programs


@dataclass(frozen=True, slots=True)
class User:
    """runAsUser, runAsGroup, and fsGroup and supplementalGroups."""

    uid: int
    gid: int
    groups: Sequence[int] = ()

    def become(self) -> list[str]:
        """What to put before a command so that it runs as this user."""
        groups = [f"--groups={','.join(map(str, self.groups))}"] if self.groups else ["--clear-groups"]
        who = [f"--reuid={self.uid}", f"--regid={self.gid}", *groups]
        none = ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        return [programs.require("setpriv", "util-linux"), *who, *none, "--"]
