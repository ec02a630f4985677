"""Who may use a pod's directory and sockets."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podvif.core import rights
from podvif.core.rights import READ, SEARCH, WRITE, granted, may
from podvif.model import Access, Account, Rights

ROOT = Account(0, 0, everywhere=True)
WEAK_ROOT = Account(0, 0)
OVS = Account(600, 601)
POD = Account(1000, 3000)
IN_GROUP = Account(1000, 1000, frozenset({2000}))
OTHER = Account(1001, 3001)


@pytest.mark.parametrize(
    ("has", "who", "need", "allowed"),
    [
        (Rights(0, 0, 0), ROOT, WRITE, True),
        (Rights(0, 0, 0), WEAK_ROOT, WRITE, False),
        (Rights(1000, 0, 0o755), POD, WRITE, True),
        (Rights(0, 0, 0o755), POD, WRITE, False),
        (Rights(0, 2000, 0o770), IN_GROUP, WRITE, True),
        (Rights(0, 2000, 0o707), IN_GROUP, WRITE, False),  # the group's line is the one that counts
        (Rights(0, 0, 0o777), OTHER, WRITE, True),
        (Rights(0, 0, 0o700, users=((600, 7),), mask=7), OVS, WRITE, True),
        (Rights(0, 0, 0o700, users=((600, 7),), mask=5), OVS, WRITE, False),
        (Rights(0, 0, 0o707, users=((600, 0),), mask=7), OVS, WRITE, False),
        (Rights(600, 0, 0o600, users=((600, 0),), mask=0), OVS, WRITE, True),  # the owner's line is not masked
        (Rights(0, 0, 0o700, groups=((601, 6),), mask=6), OVS, READ | WRITE, True),
        (Rights(0, 601, 0o740, groups=((601, 2),), mask=7), OVS, READ | WRITE, False),  # no one line has both
    ],
)
def test_may(has: Rights, who: Account, need: int, *, allowed: bool) -> None:
    """Whether somebody may do something is decided as the kernel does."""
    assert may(has, who, need) is allowed


PERMISSION = st.integers(0, 7)
LINES = st.lists(st.tuples(st.sampled_from([600, 601, 1000, 2000]), PERMISSION), unique_by=lambda line: line[0]).map(
    lambda lines: tuple(sorted(lines))
)


@st.composite
def found(draw: st.DrawFn) -> Rights:
    """The rights that a file may have."""
    users, groups = draw(LINES), draw(LINES)
    mask = draw(PERMISSION if users or groups else st.none() | PERMISSION)
    return Rights(
        draw(st.sampled_from([0, 600, 1000])), draw(st.sampled_from([0, 601, 2000])), draw(st.integers(0, 0o777)),
        users, groups, mask,
    )  # fmt: skip


PEOPLE = [WEAK_ROOT, OVS, POD, IN_GROUP, OTHER, Account(601, 2000), Account(2000, 2000)]


@given(found(), st.sampled_from(PEOPLE), st.sampled_from([SEARCH, WRITE, READ | WRITE]))
def test_granted(has: Rights, who: Account, need: int) -> None:
    """A grant gives one what he needs, takes nothing from him, and changes nothing for anybody else."""
    given_ = granted(has, who, need)

    assert may(given_, who, need)
    assert granted(given_, who, need) == given_
    for bit in (READ, WRITE, SEARCH):
        assert may(given_, who, bit) or not may(has, who, bit)
        for other in PEOPLE:
            assert other.uid == who.uid or may(given_, other, bit) is may(has, other, bit), other


@pytest.mark.parametrize("ovs", [None, ROOT, OVS, WEAK_ROOT, Account(1000, 1000)])
@pytest.mark.parametrize("access", [Access(), Access(gid=2000), Access(1000), Access(1000, 2000)])
def test_own_directory(access: Access, ovs: Account | None) -> None:
    """A pod's directory is open to the pod and to vswitchd, who may go through only, and to nobody else."""
    made = rights.pod_directory(access, ovs)
    pod = Account(access.uid, 1000, frozenset() if access.gid is None else frozenset({access.gid}))

    assert may(made, pod, READ | WRITE | SEARCH)
    assert ovs is None or may(made, ovs, SEARCH)
    assert made.mode & 0o007 == 0
    for bit in (READ, WRITE, SEARCH):
        assert not may(made, OTHER, bit)
        assert bit == SEARCH or not may(made, OVS, bit)
    assert bool(made.mode & 0o2000) is (access.gid is not None)


def test_way_to_own_directories() -> None:
    """Above the pods' directories nobody goes but vswitchd."""
    assert rights.parent_directory(None) == rights.parent_directory(ROOT) == Rights(0, 0, 0o700)
    made = rights.parent_directory(OVS)
    assert may(made, OVS, SEARCH)
    assert not any(may(made, who, bit) for who in (POD, IN_GROUP, OTHER) for bit in (READ, WRITE, SEARCH))


@pytest.mark.parametrize("umask", range(0o1000))
def test_socket_of_application(umask: int) -> None:
    """With whatever umask an application makes its socket, a vswitchd of whatever user may connect, and nobody new beside."""
    made = Rights(1000, 2000, 0o777 & ~umask)

    assert rights.socket_of_application(made, ROOT) == rights.socket_of_application(made, None) == made
    mended = rights.socket_of_application(made, OVS)
    assert may(mended, OVS, WRITE)
    assert all(may(mended, who, WRITE) is may(made, who, WRITE) for who in (POD, IN_GROUP, OTHER))


@pytest.mark.parametrize("maker", [Rights(0, 0, 0o755), Rights(600, 601, 0o750), Rights(0, 0, 0o777)])
@pytest.mark.parametrize("access", [Access(), Access(gid=2000), Access(1000), Access(1000, 2000)])
def test_socket_of_ovs(access: Access, maker: Rights) -> None:
    """Whoever vswitchd is, its socket is the pod's: the pod may connect and nobody else may."""
    made = rights.socket_of_ovs(maker, access)
    pod = Account(access.uid, 1000, frozenset() if access.gid is None else frozenset({access.gid}))

    assert may(made, pod, WRITE)
    assert not may(made, OTHER, WRITE)
    assert rights.socket_of_ovs(made, access) == made


@pytest.mark.parametrize(
    ("group", "mode", "wanted"),
    [
        (None, None, Rights(0, 0, 0o755)),
        (2000, None, Rights(0, 2000, 0o660)),
        (2000, 0o666, Rights(0, 2000, 0o666)),
        (None, 0o777, Rights(0, 0, 0o777)),
    ],
)
def test_shared(group: int | None, mode: int | None, wanted: Rights) -> None:
    """In the shared directory what OVS made is changed as the settings say, and without any not at all."""
    assert rights.shared_socket_of_ovs(Rights(0, 0, 0o755), group, mode) == wanted
    directory = rights.shared_directory(Rights(0, 0, 0o755), group)
    assert directory == (Rights(0, 0, 0o755) if group is None else Rights(0, 2000, 0o3775))
    assert not may(directory, OTHER, WRITE)


def test_label() -> None:
    """A label is put where one is named, and what has one keeps it where none is."""
    labelled = msgspec.structs.replace(rights.pod_directory(Access(), None), label="a:b:c:s0")

    assert rights.is_as(labelled, rights.pod_directory(Access(), None))
    assert rights.is_as(labelled, rights.pod_directory(Access(), None, "a:b:c:s0"))
    assert not rights.is_as(labelled, rights.pod_directory(Access(), None, "a:b:d:s0"))
    assert rights.socket_of_ovs(labelled, Access()).label == "a:b:c:s0"
    assert rights.shared_socket_of_ovs(labelled, None, None, "x").label == "x"
