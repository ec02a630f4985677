"""Which table decides: one for each kind of port.

Law: nobody outside of `core/` asks what kind a port is in order to decide something about it.
"""

from podvif.core import attach, veth
from podvif.core.attach import Fail, Link, Step, Want
from podvif.model import PortKind, Seen


def next_step(want: Want, seen: Seen) -> Step | Fail | None:
    """The next thing to do for one attachment, or None when it is as wanted."""
    return attach.next_step(want, seen) if _has_socket(want) else veth.next_step(want, seen)


def why_not_attached(want: Want, seen: Seen) -> str | None:
    """CHECK's answer: what is not as it should be, or None when all is."""
    return attach.why_not_attached(want, seen) if _has_socket(want) else veth.why_not_attached(want, seen)


def link(want: Want, seen: Seen) -> Link:
    """The state of an attached interface's link, as observed."""
    return attach.link(want, seen) if _has_socket(want) else veth.link(want, seen)


def _has_socket(want: Want) -> bool:
    return want.vif.kind is PortKind.VHOST_USER
