"""The guard of the pods' directories and sockets: whether each serves whom it should, and what makes it so.

Law: it compares what lies there with what `podvif.core.rights` wants, and decides nothing else.  As whom vswitchd runs is asked
of its process; nothing is looked at where nobody needs a right, as with a vswitchd of root's and no setting to the contrary.
"""

from collections.abc import Callable

from podvif.core import rights as core
from podvif.host import rights
from podvif.host.machine import Machine, PidFile
from podvif.model import Access, Account, Listener, Rights, SocketPath, Vif
from podvif.settings import Settings


class Guard:
    """Looks at rights and mends them."""

    def __init__(self, settings: Settings, vswitchd: Callable[[], PidFile | None]) -> None:
        """Take the settings, and who knows vswitchd's process.

        Raises:
            Refused: a user or a group of the settings does not exist.
        """
        self._vswitchd = vswitchd
        self._configured = rights.account(settings.vswitchd_user)
        self._group = rights.group_id(settings.socket_group)
        self._mode = int(settings.socket_mode, 8) if settings.socket_mode else None
        self._label = settings.selinux_context
        self._machine = Machine()
        self._known: tuple[int, Account] | None = None

    def account(self) -> Account | None:
        """As whom vswitchd runs, or ran last; None when nothing is known of it."""
        if self._configured:
            return self._configured
        found = self._vswitchd()
        if found and found.pid and (self._known is None or self._known[0] != found.pid):
            who = self._machine.identity(found.pid)
            if who:
                self._known = found.pid, Account(who.uid, who.gid, who.groups, who.passes_everywhere())
        return self._known[1] if self._known else None

    def forget_process(self) -> None:
        """Vswitchd has ended: whoever has its number next is asked anew."""
        if self._known:
            self._known = 0, self._known[1]

    # -- a pod's own directory -----------------------------------------------------------------------------------------

    def make_directory(self, path: str, access: Access) -> None:
        """Make a pod's own directory, below one that only vswitchd may go through.

        Raises:
            Refused: it cannot be made.
            Retry: the disk is full or an I/O error.
        """
        rights.ensure_directory(path, lambda found: self._pod_directory(found, access))

    def make_parent(self, path: str) -> None:
        """Make a directory on the way to the pods' own, likewise."""
        rights.ensure_directory(path, lambda _: core.parent_directory(self.account()))

    def make_mount_point(self, path: str) -> None:
        """Give the shared directory, which is there, its group."""
        rights.ensure_directory(path, lambda found: core.shared_directory(found, self._group))

    def _pod_directory(self, found: Rights, access: Access) -> Rights:
        del found
        return core.pod_directory(access, self.account(), self._label)

    def is_directory_mended(self, path: str, access: Access | None) -> bool:
        """Whether a pod's own directory is its own; a missing one is another's question, and so is the shared one."""
        found = rights.look_at(path) if access is not None else None
        return access is None or found is None or core.is_as(found, self._pod_directory(found, access))

    # -- sockets -------------------------------------------------------------------------------------------------------

    def is_socket_mended(self, path: SocketPath, vif: Vif, access: Access | None) -> bool:
        """Whether the living socket at `path` serves whom it should."""
        if vif.listener is Listener.OVS:
            if access is None and self._group is None and self._mode is None and not self._label:
                return True
        elif (account := self.account()) is None or account.everywhere:
            return True
        found = rights.look_at(path)
        return found is None or core.is_as(found, self._socket(found, vif, access))

    def mend_socket(self, path: SocketPath, vif: Vif, access: Access | None) -> None:
        """Have it so.

        Raises:
            Refused: the file system has no access control lists.
            Retry: an I/O error.
        """
        rights.mend(path, lambda found: self._socket(found, vif, access))

    def _socket(self, found: Rights, vif: Vif, access: Access | None) -> Rights:
        if vif.listener is Listener.APPLICATION:
            return core.socket_of_application(found, self.account())
        if access is not None:
            return core.socket_of_ovs(found, access, self._label)
        return core.shared_socket_of_ovs(found, self._group, self._mode, self._label)
