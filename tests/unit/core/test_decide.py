"""Which table decides."""

import pytest

from podvif.core import attach, decide, veth
from podvif.core.attach import Link, Step, Want
from podvif.model import Goal, PortKind
from tests.fakes.values import ATTACHMENT, kernel_vif, vif
from tests.unit.core import test_attach, test_veth


def test_socket() -> None:
    """A vhost-user port is decided by its own table."""
    want = Want(ATTACHMENT, Goal.ATTACHED, vif())
    seen = test_attach.seen(test_attach.APPLICATION, port=None)

    assert decide.next_step(want, seen) is attach.next_step(want, seen) is Step.PLUG
    assert decide.why_not_attached(want, seen) == attach.why_not_attached(want, seen)
    assert decide.link(want, seen) is Link.NOT_PLUGGED


@pytest.mark.parametrize("kind", [PortKind.VETH, PortKind.HYBRID])
def test_kernel_port(kind: PortKind) -> None:
    """A kernel port is decided by the table of kernel ports, which has steps that the other has not."""
    want = Want(ATTACHMENT, Goal.ATTACHED, kernel_vif(kind))
    seen = test_veth.seen(kind, port=None, host=None, pod=None)

    assert decide.next_step(want, seen) is veth.next_step(want, seen) is Step.MAKE_PAIR
    assert decide.why_not_attached(want, seen) == veth.why_not_attached(want, seen)
    assert decide.link(want, seen) is Link.NOT_PLUGGED
